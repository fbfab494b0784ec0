"""Connections are shared, bounded, and replaced when they die."""

import asyncio

import pytest
from mail_server import (
    Job,
    mailer_for,
    until,
)

from jobyard.handlers import smtp
from jobyard.handlers.email import Email
from jobyard.handlers.smtp import DeliveryError


async def test_mails_one_after_another_share_a_connection(mailer, inbox):
    for n in range(20):
        await mailer.send(Email(to=f"u{n}@example.com"), Job())
    assert len(inbox.mails) == 20
    assert len(set(inbox.connections)) == 1


async def test_mails_at_once_share_a_bounded_number_of_connections(port, inbox, monkeypatch):
    monkeypatch.setattr(smtp, "MAX_CONNECTIONS", 3)
    async with mailer_for(f"smtp://127.0.0.1:{port}") as mailer:
        await asyncio.gather(*(mailer.send(Email(to=f"u{n}@example.com"), Job()) for n in range(50)))
    assert {mail.recipients[0] for mail in inbox.mails} == {f"u{n}@example.com" for n in range(50)}
    assert 1 < len(set(inbox.connections)) <= 3


@pytest.mark.parametrize("to", ["b@example.com", "用户@example.com"])
async def test_an_idle_connection_that_the_server_closed_is_replaced(mailer, inbox, to):
    await mailer.send(Email(to="a@example.com"), Job())
    inbox.servers[0].loop.call_soon_threadsafe(inbox.servers[0].transport.close)
    await until(lambda: inbox.servers[0].transport is None)
    result = await mailer.send(Email(to=to), Job())
    assert result["accepted"] == [to]
    assert len(set(inbox.connections)) == 2


@pytest.mark.parametrize("ending", ["421", "cut"])
async def test_an_idle_connection_that_dies_when_used_is_replaced(mailer, inbox, ending):
    class Once(dict):
        def get(self, key, default=None):
            return self.pop(key, default)

    await mailer.send(Email(to="a@example.com"), Job())
    if ending == "421":
        inbox.replies = Once(MAIL="421 4.4.2 idle for too long")
    else:
        first, real = inbox.connections[0], inbox.handle_MAIL

        async def cut(server, session, envelope, address, options):
            if session.peer == first:
                server.transport.abort()
            return await real(server, session, envelope, address, options)

        inbox.servers[0]._handle_hooks["MAIL"] = cut
    result = await mailer.send(Email(to="b@example.com"), Job())
    assert result["accepted"] == ["b@example.com"]
    assert [mail.recipients for mail in inbox.mails] == [["a@example.com"], ["b@example.com"]]
    assert len(set(inbox.connections)) == 2


@pytest.mark.parametrize("verb", ["RCPT", "DATA"])
async def test_a_connection_lost_later_is_left_to_the_next_attempt(mailer, inbox, verb):
    await mailer.send(Email(to="a@example.com"), Job())
    inbox.cut_at = verb
    with pytest.raises(DeliveryError):
        await mailer.send(Email(to="b@example.com"), Job())
    assert len(inbox.connections) == 2
    inbox.cut_at = None
    await mailer.send(Email(to="c@example.com"), Job())
    assert len(set(inbox.connections)) == 2


async def test_a_job_cancelled_in_the_middle_leaves_no_half_used_connection(mailer, inbox):
    inbox.silent_at = "DATA"
    sending = asyncio.create_task(mailer.send(Email(to="a@example.com"), Job()))
    await until(lambda: len(inbox.mails) == 1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await until(lambda: inbox.servers[0].transport is None)
    inbox.silent_at = None
    await mailer.send(Email(to="b@example.com"), Job())
    assert len(set(inbox.connections)) == 2


async def test_an_unused_connection_is_closed_after_a_while(mailer, inbox, monkeypatch):
    monkeypatch.setattr(smtp, "IDLE_SECONDS", 0.05)
    await mailer.send(Email(to="a@example.com"), Job())
    await until(lambda: inbox.servers[0].transport is None)
    await mailer.send(Email(to="b@example.com"), Job())
    assert len(set(inbox.connections)) == 2


async def test_closing_says_goodbye_and_a_send_after_it_keeps_no_connection(mailer, inbox):
    await mailer.send(Email(to="a@example.com"), Job())
    await mailer.close()
    assert inbox.quits == 1
    await mailer.send(Email(to="b@example.com"), Job())
    await until(lambda: inbox.servers[1].transport is None)
    assert len(inbox.mails) == 2
