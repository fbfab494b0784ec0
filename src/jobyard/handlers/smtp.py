"""One SMTP server and the connections to it: each carries one mail at a time and is kept for the next."""

import asyncio
import base64
import re
import ssl
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

from aiosmtplib import (
    SMTP,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)

MAX_REPLY_CHARS = 500
"""How much of a server's reply is kept in an error or a result."""
CONNECT_TIMEOUT_SECONDS = 10.0
"""Until the server has greeted us."""
COMMAND_TIMEOUT_SECONDS = 30.0
"""For each reply, and for a TLS handshake."""
DATA_TIMEOUT_SECONDS = 120.0
"""For the reply to the message itself: generous, since giving up here risks sending it twice."""
QUIT_TIMEOUT_SECONDS = 2.0
"""For the goodbye when the mailer is closed."""
MAX_CONNECTIONS = 20
"""Connections of one mailer, busy and idle together; further sends wait for their turn."""
IDLE_SECONDS = 10.0
"""An unused connection is closed after this: sooner than servers and firewalls lose patience."""

_DEFAULT_PORTS = {"smtp": 587, "smtps": 465}
# 5xx, but about our login: the operator can mend that, so the job is kept.
_LOGIN_CODES = {530, 534, 535, 538}
_CLOSING = 421  # the server ends the connection
UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class DeliveryError(Exception):
    """The mail could not be handed over now; another attempt may succeed. The text holds no password."""


class RefusedError(Exception):
    """No attempt can send this mail: `kind` says whether the payload is wrong or the server refused it."""

    def __init__(self, message: str, kind: str = "EmailRefused") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Envelope:
    """A finished mail: who sends it to whom, as the server will hear it, and its bytes."""

    message_id: str
    sender: str
    recipients: list[str]
    content: bytes
    utf8: bool  # a local part is not ASCII, so the server must speak SMTPUTF8


class Server:
    """One SMTP server and the open connections to it, each used by one send at a time."""

    def __init__(self, url: str) -> None:
        parts = _split(url)
        self._host, self._port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
        self._tls = ssl.create_default_context()
        self._use_tls = parts.scheme == "smtps"
        self._user = None if parts.username is None else unquote(parts.username)
        self._password = unquote(parts.password or "")
        self._secrets = _forms_of(self._user or "", self._password)
        leaves_machine = not _is_loopback(self._host)
        self._start_tls = True if self._user is not None and leaves_machine and not self._use_tls else None
        self._greeting: str | None = None
        self._idle: dict[SMTP, asyncio.TimerHandle] = {}
        self._turns = asyncio.Semaphore(MAX_CONNECTIONS)
        self._closed = False

    async def deliver(self, envelope: Envelope) -> dict[str, str]:
        """Returns who was refused and why, when at least one recipient was accepted."""
        try:
            async with self._turns:
                return await self._transfer(envelope)
        except (SMTPException, OSError) as error:
            ending = self._ending(error)
        raise ending  # out here it has no context: the server's own words, which may repeat the password

    async def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, {}
        for timer in idle.values():
            timer.cancel()
        await asyncio.gather(*map(_quit, idle))

    async def _transfer(self, envelope: Envelope) -> dict[str, str]:
        smtp = await self._begin(envelope)
        with _closed_on_error(smtp):
            refused = await self._name_recipients(smtp, envelope)
            await smtp.data(envelope.content, timeout=DATA_TIMEOUT_SECONDS)
        self._keep(smtp)
        return refused

    async def _begin(self, envelope: Envelope) -> SMTP:
        """A connection that has taken the sender. A stale one shows here, before anything of the mail has been
        sent, so another can take its place."""
        while self._idle:
            smtp, timer = self._idle.popitem()
            timer.cancel()
            with suppress(SMTPServerDisconnected):
                return await _start_mail(smtp, envelope)
        return await _start_mail(await self._connect(), envelope)

    async def _connect(self) -> SMTP:
        smtp = SMTP(
            hostname=self._host,
            port=self._port,
            username=self._user,
            password=None if self._user is None else self._password,
            use_tls=self._use_tls,
            start_tls=self._start_tls,
            tls_context=self._tls,
            timeout=COMMAND_TIMEOUT_SECONDS,
            local_hostname=self._greeting,
        )
        await smtp.connect(timeout=CONNECT_TIMEOUT_SECONDS)
        with _closed_on_error(smtp):
            if smtp.is_ehlo_or_helo_needed:
                await smtp.ehlo()
        self._greeting = smtp.local_hostname  # found by a DNS query: once is enough
        return smtp

    async def _name_recipients(self, smtp: SMTP, envelope: Envelope) -> dict[str, str]:
        refusals: list[SMTPRecipientRefused] = []
        for recipient in envelope.recipients:
            try:
                await smtp.rcpt(recipient, encoding="utf-8")
            except SMTPRecipientRefused as refusal:
                refusals.append(refusal)
        if len(refusals) == len(envelope.recipients):
            # One temporary refusal among them is reason enough to come back: that one may be accepted then.
            raise min(refusals, key=lambda refusal: _is_permanent(refusal.code))
        return {refusal.recipient: self._told(refusal) for refusal in refusals}

    def _keep(self, smtp: SMTP) -> None:
        if self._closed:
            smtp.close()
        elif smtp.is_connected:
            self._idle[smtp] = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._expire, smtp)

    def _expire(self, smtp: SMTP) -> None:
        self._idle.pop(smtp, None)
        smtp.close()

    def _ending(self, error: Exception) -> RefusedError | DeliveryError:
        about_the_mail = isinstance(error, SMTPSenderRefused | SMTPRecipientRefused | SMTPDataError)
        if about_the_mail and _is_permanent(error.code):
            return RefusedError(f"the SMTP server refused the mail: {self._told(error)}")
        return DeliveryError(f"SMTP server {self._host}:{self._port}: {self._told(error)}")

    def _told(self, error: Exception) -> str:
        """The server's words as one printable line, without our password should it repeat that."""
        told = f"{error.code} {error.message}" if isinstance(error, SMTPResponseException) else str(error)
        for secret in self._secrets:
            told = told.replace(secret, "***")
        printable = UNPRINTABLE.sub(" ", told.encode(errors="replace").decode())
        return " ".join(printable.split())[:MAX_REPLY_CHARS]


async def _start_mail(smtp: SMTP, envelope: Envelope) -> SMTP:
    with _closed_on_error(smtp):
        if not smtp.is_connected:  # and so has forgotten what the server offers
            raise SMTPServerDisconnected("the idle connection was closed")
        options = [f"SIZE={len(envelope.content)}"] if smtp.supports_extension("size") else []
        if envelope.utf8:
            if not smtp.supports_extension("smtputf8"):
                raise RefusedError(
                    "an address has letters beyond ASCII before the @, and the SMTP server does not offer SMTPUTF8"
                )
            options += ["SMTPUTF8", "BODY=8BITMIME"]
        await _mail_from(smtp, envelope.sender, options)
    return smtp


async def _mail_from(smtp: SMTP, sender: str, options: list[str]) -> None:
    try:
        await smtp.mail(sender, options=options, encoding="utf-8")
    except SMTPSenderRefused as refusal:
        if refusal.code == _CLOSING:
            raise SMTPServerDisconnected(f"{refusal.code} {refusal.message}") from None
        raise


@contextmanager
def _closed_on_error(smtp: SMTP) -> Generator[None]:
    """Whatever goes wrong, a cancelled job too: what the server would make of the next command is unknown."""
    try:
        yield
    except BaseException:
        smtp.close()
        raise


async def _quit(smtp: SMTP) -> None:
    with suppress(SMTPException, OSError):
        await smtp.quit(timeout=QUIT_TIMEOUT_SECONDS)
    smtp.close()


def _forms_of(user: str, password: str) -> list[str]:
    """The password as AUTH puts it on the wire, LOGIN and PLAIN, and as it is."""
    plain, login = f"\0{user}\0{password}".encode(), password.encode()
    return [base64.b64encode(plain).decode(), base64.b64encode(login).decode(), password] if password else []


def _is_permanent(code: int) -> bool:
    return 500 <= code < 600 and code not in _LOGIN_CODES


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _split(url: str) -> SplitResult:
    """The error never quotes the URL, nor what Python says of it: either may hold the password."""
    with suppress(ValueError):
        parts = urlsplit(url)
        surplus = parts.path.strip("/") or parts.query or parts.fragment
        if parts.scheme in _DEFAULT_PORTS and parts.hostname and parts.port != 0 and not surplus:
            return parts
    raise ValueError("the SMTP URL must be smtp://user:password@host:port or smtps://..., percent-encoded")
