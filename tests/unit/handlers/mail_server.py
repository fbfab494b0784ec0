"""Real SMTP servers on this machine, what they received, and what a mailer says of them."""

from __future__ import annotations

import asyncio
import base64
import email.policy
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from jobyard.handlers.email import Email, Mailer

PASSWORD = "s3cr:t/p@ss"
URL_PASSWORD = "s3cr%3At%2Fp%40ss"
SENDER = "Jobyard <jobs@yard.example>"


@dataclass
class Job:
    job_id: UUID = field(default_factory=uuid4)


@dataclass
class Received:
    sender: str
    recipients: list[str]
    options: list[str]
    content: bytes

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.content, policy=email.policy.default)


class Inbox:
    """What the server received, and how it is told to answer: by recipient, or by verb."""

    def __init__(self) -> None:
        self.mails: list[Received] = []
        self.replies: dict[str, str | bytes] = {}
        self.connections: list[Any] = []  # one entry for each MAIL: the client's socket address
        self.logins: list[tuple[bytes, bytes]] = []
        self.servers: list[Any] = []
        self.quits = 0
        self.cut_at: str | None = None
        self.silent_at: str | None = None

    def authenticate(self, server, session, envelope, mechanism, data) -> AuthResult:
        self.logins.append((data.login, data.password))
        if data.password == PASSWORD.encode():
            return AuthResult(success=True)
        return AuthResult(success=False, handled=False, message=self.replies.get("AUTH"))

    async def answer(self, server, verb: str, key: str) -> str | bytes | None:
        if self.cut_at == verb:
            server.transport.abort()
        if self.silent_at == verb:
            await asyncio.Event().wait()
        return self.replies.get(key)

    async def handle_MAIL(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's name
        self.connections.append(session.peer)
        self.servers.append(server)
        if reply := await self.answer(server, "MAIL", "MAIL"):
            return reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's name
        if reply := await self.answer(server, "RCPT", address):
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        content = envelope.content
        self.mails.append(Received(envelope.mail_from, envelope.rcpt_tos, envelope.mail_options, content))
        return await self.answer(server, "DATA", "DATA") or "250 OK"

    async def handle_QUIT(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        self.quits += 1
        return "221 Bye"


class Server(Controller):
    """aiosmtpd on a port that the system chose."""

    def __init__(self, inbox: Inbox, **options: Any) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        super().__init__(inbox, hostname="127.0.0.1", port=self.listener.getsockname()[1], **options)

    def _create_server(self):
        return self.loop.create_server(self._factory_invoker, sock=self.listener, ssl=self.ssl_context)


@contextmanager
def smtp_server(inbox: Inbox, **options: Any) -> Iterator[int]:
    server = Server(inbox, **options)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


@asynccontextmanager
async def mailer_for(
    url: str | None, outbox: Path = Path("unused"), sender: str = SENDER
) -> AsyncIterator[Mailer]:
    mailer = Mailer(url, sender, outbox)
    try:
        yield mailer
    finally:
        await mailer.close()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the server runs in a thread of its own and sets no event
            await asyncio.sleep(0.005)


def parsed(text: str) -> Email:
    return msgspec.json.decode(text, type=Email)


def said(error: BaseException) -> str:
    """All that an error could tell a log: itself, what caused it, and what it was raised in the midst of."""
    lines = "".join(traceback.format_exception(error))
    for inner in (error.__cause__, error.__context__):
        lines += said(inner) if inner is not None else ""
    return lines


def holds_password(text: str) -> bool:
    raw = PASSWORD.encode()
    forms = [
        PASSWORD,
        URL_PASSWORD,
        *(base64.b64encode(prefix + raw).decode() for prefix in (b"", b"\0user\0")),
    ]
    return any(form in text for form in forms)
