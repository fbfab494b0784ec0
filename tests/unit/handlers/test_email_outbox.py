"""Without a server each mail is a file."""

import email.policy
from email import message_from_bytes
from pathlib import Path

import pytest
from mail_server import Job, mailer_for

from jobyard.handlers.email import Email


async def test_without_smtp_the_mail_lies_in_the_outbox_once_a_job(tmp_path):
    outbox, job = tmp_path / "home" / "outbox", Job()
    async with mailer_for(None, outbox) as mailer:
        mail = Email(to="用户@example.com", bcc="hidden@example.com", subject="Grüße")
        results = [await mailer.send(mail, job) for _ in range(2)]
        other = await mailer.send(Email(to="b@example.com"), Job())
    path = outbox / f"{job.job_id}.eml"
    accepted = ["用户@example.com", "hidden@example.com"]
    expected = {"messageId": f"<{job.job_id}@yard.example>", "accepted": accepted, "outbox": str(path)}
    assert results == [expected, expected]
    assert set(outbox.iterdir()) == {path, Path(other["outbox"])}
    message = message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert (message["Subject"], message["To"]) == ("Grüße", "用户@example.com")
    assert b"hidden" not in path.read_bytes()


async def test_a_second_attempt_puts_a_whole_new_file_in_place_of_the_first(tmp_path):
    job = Job()
    path = tmp_path / f"{job.job_id}.eml"
    async with mailer_for(None, tmp_path) as mailer:
        await mailer.send(Email(to="a@example.com", text="first"), job)
        with path.open("rb") as being_read:
            await mailer.send(Email(to="a@example.com", text="second"), job)
            assert b"first" in being_read.read()
    assert b"second" in path.read_bytes()


async def test_an_outbox_that_cannot_take_the_mail_raises_and_keeps_no_draft(tmp_path):
    job = Job()
    (tmp_path / f"{job.job_id}.eml" / "in the way").mkdir(parents=True)
    async with mailer_for(None, tmp_path) as mailer:
        with pytest.raises(OSError, match="directory"):
            await mailer.send(Email(to="a@example.com"), job)
    assert [path.name for path in tmp_path.iterdir()] == [f"{job.job_id}.eml"]
