"""What is refused before anything is sent."""

import asyncio
import email.policy
import tempfile
from email import message_from_bytes
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mail_server import (
    SENDER,
    Job,
    mailer_for,
    parsed,
)

from jobyard.domain.lifecycle import Fail
from jobyard.handlers.email import Attachment, Email, Mailer


@pytest.mark.parametrize(
    ("mail", "pointer"),
    [
        ({"to": []}, "/to"),
        ({"to": ""}, "/to"),
        ({"to": "no-at-sign"}, "/to"),
        ({"to": "a@example.com, b@example.com"}, "/to"),
        ({"to": "A <a@example.com>, B <b@example.com>"}, "/to"),
        ({"to": "a@example.com, B <b@example.com>"}, "/to"),
        ({"to": "A <a@example.com"}, "/to"),
        ({"to": "a@example.com>"}, "/to"),
        ({"to": "a@exa mple.com"}, "/to"),
        ({"to": "a@-..example"}, "/to"),
        ({"to": "a@ü..example"}, "/to"),
        ({"to": "x" * 65 + "@example.com"}, "/to"),
        ({"to": ["a@example.com", "b@example.com\r\nBcc: c@example.com"]}, "/to/1"),
        ({"to": "Eve\nBcc: c@example.com <a@example.com>"}, "/to"),
        ({"to": "=?utf-8?q?a=0D=0ABcc:_c?= <a@example.com>"}, "/to"),
        ({"to": "(" * 400 + "@example.com"}, "/to"),
        ({"to": [f"u{n}@example.com" for n in range(101)]}, "/to"),
        ({"to": "a@example.com", "bcc": [f"u{n}@example.com" for n in range(100)]}, "/to"),
        ({"cc": "a@example.com\r"}, "/cc"),
        ({"bcc": ["a@example.com> NOTIFY=NEVER"]}, "/bcc/0"),
        ({"from": "a@example.com\nSender: b"}, "/from"),
        ({"replyTo": ["x\n@example.com"]}, "/replyTo/0"),
        ({"subject": "hello\r\nBcc: c@example.com"}, "/subject"),
        ({"subject": "hello\u2028Bcc: c@example.com"}, "/subject"),
        ({"subject": "=?UTF-8?B?DQpCY2M6IGM=?="}, "/subject"),
        ({"subject": "x" * 999}, "/subject"),
        ({"headers": {"X-A": "b\nBcc: c"}}, "/headers/X-A"),
        ({"headers": {"X-A: b\r\nBcc": "c"}}, "/headers"),
        ({"headers": {"Bcc": "c@example.com"}}, "/headers"),
        ({"headers": {"bCC": "c@example.com"}}, "/headers"),
        ({"headers": {"Content-Type": "text/html"}}, "/headers"),
        ({"headers": {f"X-{n}": "" for n in range(51)}}, "/headers"),
        ({"attachments": [{"filename": "a", "content": "!!!"}]}, "/attachments/0/content"),
        ({"attachments": [{"filename": "a", "content": ""}, {"filename": "b", "content": "abc"}]}, "/attachments/1/content"),
        ({"attachments": [{"filename": "a", "content": "ü"}]}, "/attachments/0/content"),
        ({"attachments": [{"filename": "a\r\nX: y", "content": ""}]}, "/attachments/0/filename"),
        ({"attachments": [{"filename": "a", "content": "", "contentType": "text/x\r\nX: y"}]}, "/attachments/0/contentType"),
        ({"attachments": [{"filename": "a", "content": "", "contentType": "text"}]}, "/attachments/0/contentType"),
        ({"attachments": [{"filename": "a", "content": "", "contentType": "message/rfc822"}]}, "/attachments/0/contentType"),
        ({"attachments": [{"filename": "a", "content": ""}] * 51}, "/attachments"),
        ({"text": "x" * 6_000_000, "html": "x" * 6_000_000}, ""),
    ],
)  # fmt: skip
async def test_a_payload_that_cannot_be_a_mail_ends_the_job_and_points_at_the_fault(tmp_path, mail, pointer):
    async with mailer_for(None, tmp_path / "outbox") as mailer:
        ended = await mailer.send(msgspec.convert({"to": "a@example.com"} | mail, Email), Job())
    assert isinstance(ended, Fail)
    assert ended.type == "InvalidEmail"
    assert ended.message.startswith(f"{pointer}: ")
    assert not (tmp_path / "outbox").exists()


@pytest.mark.parametrize("text", ['{"subject": "x"}', '{"to": "a@b.c", "form": "x"}', '{"to": 5}'])
def test_a_payload_of_another_shape_is_not_an_email(text):
    with pytest.raises(msgspec.ValidationError):
        parsed(text)


NASTY = st.text(st.sampled_from("ab ü日\r\n\t\0\x85\u2028\"\\,;:<>@()[]=?_-.*%'"), max_size=60) | st.text(
    max_size=60
)


@settings(deadline=None)
@given(subject=NASTY, name=NASTY, header=NASTY, filename=NASTY)
def test_no_text_of_the_payload_can_forge_a_header_or_a_recipient(subject, name, header, filename):
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    mail = Email(
        to=f"{quoted} <a@example.com>",
        subject=subject,
        headers={"X-Own": header},
        attachments=[Attachment(filename=filename, content="YQ==")],
    )
    with tempfile.TemporaryDirectory() as folder:
        ended = asyncio.run(Mailer(None, SENDER, Path(folder)).send(mail, Job()))
        if isinstance(ended, Fail):
            assert ended.type == "InvalidEmail"
            return
        message = message_from_bytes(Path(str(ended["outbox"])).read_bytes(), policy=email.policy.default)
    names = {"Message-ID", "Date", "Subject", "From", "To", "X-Own", "MIME-Version", "Content-Type"}
    assert set(message.keys()) == names
    assert len(message.keys()) == len(names)
    assert [address.addr_spec for address in message["To"].addresses] == ["a@example.com"]
    (attachment,) = message.iter_attachments()
    assert set(attachment.keys()) <= {
        "Content-Type",
        "Content-Transfer-Encoding",
        "Content-Disposition",
        "MIME-Version",
    }
    assert attachment.get_content() == b"a"
