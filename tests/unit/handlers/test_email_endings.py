"""How the answers of a server end an attempt."""

import asyncio

import pytest
from mail_server import (
    Job,
    mailer_for,
    smtp_server,
)

from jobyard.domain.lifecycle import Fail
from jobyard.handlers import smtp
from jobyard.handlers.email import Email
from jobyard.handlers.smtp import DeliveryError


@pytest.mark.parametrize("verb", ["MAIL", "a@example.com", "DATA"])
async def test_a_temporary_refusal_raises_so_the_attempt_is_retried(mailer, inbox, verb):
    inbox.replies[verb] = "451 4.3.0 try later"
    with pytest.raises(DeliveryError, match=r"451 4\.3\.0 try later"):
        await mailer.send(Email(to="a@example.com"), Job())
    inbox.replies.clear()
    result = await mailer.send(Email(to="a@example.com"), Job())
    assert result["accepted"] == ["a@example.com"]


@pytest.mark.parametrize("verb", ["MAIL", "a@example.com", "DATA"])
async def test_a_permanent_refusal_ends_the_job(mailer, inbox, verb):
    inbox.replies[verb] = "550 5.7.1 not here"
    ended = await mailer.send(Email(to="a@example.com"), Job())
    assert ended == Fail("the SMTP server refused the mail: 550 5.7.1 not here", type="EmailRefused")


@pytest.mark.parametrize("reply", ["550 5.1.1 no such user", "450 4.2.0 greylisted"])
async def test_a_mail_that_somebody_got_succeeds_and_lists_who_was_refused(mailer, inbox, reply):
    inbox.replies["b@example.com"] = reply
    result = await mailer.send(Email(to=["a@example.com", "b@example.com"]), Job())
    assert result["accepted"] == ["a@example.com"]
    assert result["refused"] == {"b@example.com": reply}
    assert inbox.mails[0].recipients == ["a@example.com"]


async def test_everybody_refused_is_retried_while_one_refusal_is_temporary(mailer, inbox):
    inbox.replies |= {"a@example.com": "550 5.1.1 no such user", "b@example.com": "450 4.2.0 greylisted"}
    with pytest.raises(DeliveryError, match="greylisted"):
        await mailer.send(Email(to=["a@example.com", "b@example.com"]), Job())
    inbox.replies["b@example.com"] = "550 5.1.1 no such user"
    ended = await mailer.send(Email(to=["a@example.com", "b@example.com"]), Job())
    assert isinstance(ended, Fail)


async def test_a_mail_too_large_for_the_server_ends_the_job_before_it_is_sent(inbox):
    with smtp_server(inbox, data_size_limit=2000) as port:
        async with mailer_for(f"smtp://127.0.0.1:{port}") as mailer:
            ended = await mailer.send(Email(to="a@example.com", text="x" * 3000), Job())
    assert isinstance(ended, Fail)
    assert "552" in ended.message
    assert inbox.connections == []


async def test_a_reply_of_wild_bytes_becomes_one_printable_line(mailer, inbox):
    inbox.replies["b@example.com"] = b"550-no\x00body\r\n550 \xff here"
    result = await mailer.send(Email(to=["a@example.com", "b@example.com"]), Job())
    assert result["refused"] == {"b@example.com": "550 no body ? here"}


async def test_no_server_and_a_server_that_turns_us_away_raise():
    async def turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 5.7.1 blocked\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(turn_away, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with mailer_for(f"smtp://127.0.0.1:{port}") as mailer:
        async with server:
            with pytest.raises(DeliveryError, match=r"554 5\.7\.1 blocked"):
                await mailer.send(Email(to="a@example.com"), Job())
        with pytest.raises(DeliveryError, match=f"127.0.0.1:{port}"):
            await mailer.send(Email(to="a@example.com"), Job())


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_server_that_falls_silent_raises_in_time(mailer, inbox, monkeypatch, verb):
    monkeypatch.setattr(smtp, "COMMAND_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(smtp, "DATA_TIMEOUT_SECONDS", 0.2)
    inbox.silent_at = verb
    async with asyncio.timeout(10):
        with pytest.raises(DeliveryError, match="Timed out"):
            await mailer.send(Email(to="a@example.com"), Job())
