"""The built-in `email` handler: one job, one mail.

With an SMTP URL the mail goes to that server; without one it becomes an `.eml` file in the outbox. How an attempt ends:

- the payload is wrong, or the server refuses for good (5xx) the message or every recipient: `Fail`, no retry;
- a 4xx reply, a login refused, a connection lost, a timeout: `DeliveryError`, so the attempt is retried;
- at least one recipient accepted: the job succeeds, and `refused` lists the others with the server's words. That
  holds for temporary refusals too: a retry would send the mail once more to those who already have it.

Every attempt of a job carries the same Message-ID, so a repeat after a crash is recognised by mail systems.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from ipaddress import ip_address
from itertools import chain
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit
from uuid import UUID, uuid4

import idna
import msgspec
from aiosmtplib import (
    SMTP,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)

from jobyard.domain.lifecycle import Fail

MAX_RECIPIENTS = 100
"""Addresses in `to`, `cc` and `bcc` together: what RFC 5321 obliges every server to take in one mail."""
MAX_ATTACHMENTS = 50
"""Attachments of one mail."""
MAX_CONTENT_BYTES = 10 * 1024 * 1024
"""Text, HTML and decoded attachments together; common servers refuse mails over 10 to 25 MB."""
MAX_HEADERS = 50
"""Headers of the sender's own, beside those that this module writes."""
MAX_LINE_CHARS = 998
"""One header, address or file name: the longest line a mail may hold (RFC 5322)."""
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
NO_SUBJECT = "(no subject)"
"""The subject of a mail that was given none."""

_DEFAULT_PORTS = {"smtp": 587, "smtps": 465}
_LOGIN_CODES = {
    530,
    534,
    535,
    538,
}  # 5xx, but about our login: the operator can mend that, so the job is kept
_CLOSING = 421  # the server ends the connection
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_ENCODED_WORD = re.compile(r"=\?[^?\s]*\?[bq]\?", re.IGNORECASE)
_ATOM = r'[^\s"(),.:;<>@\[\\\]]+'
_ADDRESS = re.compile(
    rf'(?:(?P<name>"(?:[^"\\]|\\.)*"\s*|[^"<>@]*)<)?(?P<local>{_ATOM}(?:\.{_ATOM})*)@(?P<domain>[^\s<>@]+)(?(name)>)'
)
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,75}")
_OUR_HEADERS = re.compile(
    r"(?:bcc|cc|date|from|message-id|mime-version|received|reply-to|return-path|sender|subject|to"
    r"|content-.*|resent-.*)",
    re.IGNORECASE,
)
_CONTENT_TYPE = re.compile(
    r"(?!multipart/|message/)(?P<main>[\w.+-]{1,64})/(?P<sub>[\w.+-]{1,128})(?P<rest>(?:; ?[\w-]{1,32}=[\w.+-]{1,64}){0,5})",
    re.ASCII | re.IGNORECASE,
)


class Attachment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A file that goes with the mail; `content` is its bytes as base64."""

    filename: str
    content_type: str = "application/octet-stream"
    content: str


class Email(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The payload of an `email` job. Only `to` is required.

    An address is `user@example.com` or `Name <user@example.com>`, one in each string.
    """

    to: str | list[str]
    cc: str | list[str] = msgspec.field(default_factory=list[str])
    bcc: str | list[str] = msgspec.field(default_factory=list[str])
    sender: str | None = msgspec.field(name="from", default=None)
    reply_to: str | list[str] = msgspec.field(default_factory=list[str])
    subject: str = ""
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    attachments: list[Attachment] = msgspec.field(default_factory=list[Attachment])


class Job(Protocol):
    """What this handler needs to know about the attempt it runs in."""

    @property
    def job_id(self) -> UUID: ...


class DeliveryError(Exception):
    """The mail could not be handed over now; another attempt may succeed. The text holds no password."""


class _RefusedError(Exception):
    """No attempt can send this mail: `kind` says whether the payload is wrong or the server refused it."""

    def __init__(self, message: str, kind: str = "EmailRefused") -> None:
        super().__init__(message)
        self.kind = kind


class _MailPolicy(EmailPolicy):
    """How a mail becomes bytes: 7-bit, so that every server takes it.

    Python would break a long word, such as a link in List-Unsubscribe, into encoded words that mail readers do
    not understand there, so plain lines stay whole as far as the standard allows.
    """

    def fold_binary(self, name: str, value: str) -> bytes:
        line = f"{name}: {value}"
        if line.isascii() and len(line) <= MAX_LINE_CHARS:
            return f"{line}{self.linesep}".encode()
        return super().fold_binary(name, value)


_MAIL = _MailPolicy(linesep="\r\n", cte_type="7bit")
_UTF8_MAIL = _MAIL.clone(utf8=True)


@dataclass(frozen=True)
class _Envelope:
    """A finished mail: who sends it to whom, as the server will hear it, and its bytes."""

    message_id: str
    sender: str
    recipients: list[str]
    content: bytes
    utf8: bool  # a local part is not ASCII, so the server must speak SMTPUTF8


def _invalid(pointer: str, problem: str) -> _RefusedError:
    return _RefusedError(f"{pointer}: {problem}", kind="InvalidEmail")


def _line(text: str, pointer: str) -> str:
    """A text that may stand in a header, where a line break or what decodes to one would forge another header."""
    if _UNPRINTABLE.search(text):
        raise _invalid(pointer, "line breaks and control characters are not allowed here")
    if _ENCODED_WORD.search(text):
        raise _invalid(pointer, "write Unicode as it is, not as encoded words (=?utf-8?...)")
    if len(text) > MAX_LINE_CHARS:
        raise _invalid(pointer, f"longer than {MAX_LINE_CHARS} characters")
    return text.strip()


def _address(text: str, pointer: str) -> Address:
    match = _ADDRESS.fullmatch(_line(text, pointer))
    if match is None or len(match["local"].encode()) > 64:
        raise _invalid(pointer, "expected one address, as user@example.com or Name <user@example.com>")
    name = (match["name"] or "").strip()
    if name.startswith('"'):
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return Address(name, match["local"], _domain(match["domain"], pointer))


def _domain(text: str, pointer: str) -> str:
    """The domain in ASCII: every server understands it so, whatever script it is written in."""
    with suppress(idna.IDNAError):
        domain = text if text.isascii() else idna.encode(text, uts46=True).decode()
        if _DOMAIN.fullmatch(domain):
            return domain
    raise _invalid(pointer, "the part after @ is not a domain name")


def _addresses(given: str | list[str], pointer: str) -> list[Address]:
    if isinstance(given, str):
        return [_address(given, pointer)]
    if len(given) > MAX_RECIPIENTS:
        raise _invalid(pointer, f"more than {MAX_RECIPIENTS} addresses")
    return [_address(text, f"{pointer}/{index}") for index, text in enumerate(given)]


def _compose(mail: Email, default_sender: Address, job_id: UUID) -> _Envelope:
    sender = default_sender if mail.sender is None else _address(mail.sender, "/from")
    to, cc, bcc = (_addresses(mail.to, "/to"), _addresses(mail.cc, "/cc"), _addresses(mail.bcc, "/bcc"))
    shown = {"From": [sender], "To": to, "Cc": cc, "Reply-To": _addresses(mail.reply_to, "/replyTo")}
    message = EmailMessage(policy=_MAIL)
    message["Message-ID"] = message_id = f"<{job_id}@{sender.domain}>"
    message["Date"] = datetime.now(UTC)
    message["Subject"] = _line(mail.subject, "/subject") or NO_SUBJECT
    for name, addresses in shown.items():
        if addresses:
            message[name] = addresses
    _add_headers(message, mail.headers)
    _add_content(message, mail)
    utf8 = any(not address.username.isascii() for address in chain(bcc, *shown.values()))
    content = message.as_bytes(policy=_UTF8_MAIL if utf8 else _MAIL)
    return _Envelope(message_id, sender.addr_spec, _recipients(to, cc, bcc), content, utf8)


def _recipients(to: list[Address], cc: list[Address], bcc: list[Address]) -> list[str]:
    """Each address once: who is named twice still gets one mail."""
    if not to:
        raise _invalid("/to", "at least one address is needed")
    recipients = list(dict.fromkeys(address.addr_spec for address in chain(to, cc, bcc)))
    if len(recipients) > MAX_RECIPIENTS:
        raise _invalid("/to", f"more than {MAX_RECIPIENTS} recipients in to, cc and bcc")
    return recipients


def _add_headers(message: EmailMessage, headers: dict[str, str]) -> None:
    if len(headers) > MAX_HEADERS:
        raise _invalid("/headers", f"more than {MAX_HEADERS} headers")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or _OUR_HEADERS.fullmatch(name):
            raise _invalid("/headers", f"{name[:80]!r} is not a header that can be set here")
        message[name] = _line(value, f"/headers/{name}")


def _add_content(message: EmailMessage, mail: Email) -> None:
    if len(mail.attachments) > MAX_ATTACHMENTS:
        raise _invalid("/attachments", f"more than {MAX_ATTACHMENTS} attachments")
    files = [_decoded(file, f"/attachments/{index}") for index, file in enumerate(mail.attachments)]
    texts = [text.encode() for text in (mail.text, mail.html) if text is not None]
    if sum(map(len, [*texts, *files])) > MAX_CONTENT_BYTES:
        raise _invalid("", f"text, html and attachments together exceed {MAX_CONTENT_BYTES} bytes")
    if mail.html is None:
        message.set_content(mail.text or "")
    elif mail.text is None:
        message.set_content(mail.html, subtype="html")
    else:
        message.set_content(mail.text)
        message.add_alternative(mail.html, subtype="html")
    for index, file in enumerate(mail.attachments):
        _attach(message, file, files[index], f"/attachments/{index}")


def _decoded(file: Attachment, pointer: str) -> bytes:
    try:
        return base64.b64decode("".join(file.content.split()), validate=True)
    except ValueError:
        raise _invalid(f"{pointer}/content", "not base64") from None


def _attach(message: EmailMessage, file: Attachment, content: bytes, pointer: str) -> None:
    match = _CONTENT_TYPE.fullmatch(file.content_type)
    if match is None:
        raise _invalid(f"{pointer}/contentType", "expected a type such as text/csv; charset=utf-8")
    params = dict(param.strip().split("=") for param in match["rest"].split(";")[1:])
    name = _line(file.filename, f"{pointer}/filename")
    main, subtype = match["main"], match["sub"]
    message.add_attachment(content, maintype=main, subtype=subtype, params=params, filename=name)


class Mailer:
    """Sends the mails of one worker, over a few connections that are kept open between jobs.

    `smtp_url` is `smtp://user:password@host:587` (STARTTLS where the server offers it, insisted on where a
    password would leave this machine) or `smtps://...:465`; user and password percent-encoded. Certificates are
    verified against the system's authorities (`SSL_CERT_FILE` names others). Without a URL each mail becomes
    `{job id}.eml` in `outbox`. Raises ValueError for a URL or a sender that cannot be.
    """

    def __init__(self, smtp_url: str | None, sender: str, outbox: Path) -> None:
        self._server = None if smtp_url is None else _Server(smtp_url)
        self._outbox = outbox
        try:
            self._sender = _address(sender, "sender")
        except _RefusedError as refused:
            raise ValueError(str(refused)) from None

    async def send(self, payload: Email, ctx: Job) -> dict[str, object] | Fail:
        """Hand the mail over: `{"messageId", "accepted": [...]}`, with `"refused": {address: reason}` from a
        server or `"outbox": path` without one. Raises DeliveryError where another attempt may succeed."""
        try:
            envelope = await asyncio.to_thread(_compose, payload, self._sender, ctx.job_id)
            if self._server is None:
                return await asyncio.to_thread(self._file, envelope, ctx.job_id)
            refused = await self._server.deliver(envelope)
        except _RefusedError as error:
            return Fail(str(error), type=error.kind)
        accepted = [recipient for recipient in envelope.recipients if recipient not in refused]
        return {"messageId": envelope.message_id, "accepted": accepted, "refused": refused}

    async def close(self) -> None:
        """Say goodbye on the idle connections; sends still under way close theirs themselves."""
        if self._server is not None:
            await self._server.close()

    def _file(self, envelope: _Envelope, job_id: UUID) -> dict[str, object]:
        self._outbox.mkdir(parents=True, exist_ok=True)
        mail, draft = self._outbox / f"{job_id}.eml", self._outbox / f".{job_id}.{uuid4().hex}.tmp"
        try:
            draft.write_bytes(envelope.content)
            draft.replace(mail)
        finally:
            draft.unlink(missing_ok=True)
        return {"messageId": envelope.message_id, "accepted": envelope.recipients, "outbox": str(mail)}


class _Server:
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

    async def deliver(self, envelope: _Envelope) -> dict[str, str]:
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

    async def _transfer(self, envelope: _Envelope) -> dict[str, str]:
        smtp = await self._begin(envelope)
        with _closed_on_error(smtp):
            refused = await self._name_recipients(smtp, envelope)
            await smtp.data(envelope.content, timeout=DATA_TIMEOUT_SECONDS)
        self._keep(smtp)
        return refused

    async def _begin(self, envelope: _Envelope) -> SMTP:
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

    async def _name_recipients(self, smtp: SMTP, envelope: _Envelope) -> dict[str, str]:
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

    def _ending(self, error: Exception) -> _RefusedError | DeliveryError:
        about_the_mail = isinstance(error, SMTPSenderRefused | SMTPRecipientRefused | SMTPDataError)
        if about_the_mail and _is_permanent(error.code):
            return _RefusedError(f"the SMTP server refused the mail: {self._told(error)}")
        return DeliveryError(f"SMTP server {self._host}:{self._port}: {self._told(error)}")

    def _told(self, error: Exception) -> str:
        """The server's words as one printable line, without our password should it repeat that."""
        told = f"{error.code} {error.message}" if isinstance(error, SMTPResponseException) else str(error)
        for secret in self._secrets:
            told = told.replace(secret, "***")
        printable = _UNPRINTABLE.sub(" ", told.encode(errors="replace").decode())
        return " ".join(printable.split())[:MAX_REPLY_CHARS]


async def _start_mail(smtp: SMTP, envelope: _Envelope) -> SMTP:
    with _closed_on_error(smtp):
        if not smtp.is_connected:  # and so has forgotten what the server offers
            raise SMTPServerDisconnected("the idle connection was closed")
        options = [f"SIZE={len(envelope.content)}"] if smtp.supports_extension("size") else []
        if envelope.utf8:
            if not smtp.supports_extension("smtputf8"):
                raise _RefusedError(
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
