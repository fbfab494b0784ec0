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
from contextlib import suppress
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from itertools import chain
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import idna
import msgspec

from jobyard.domain.lifecycle import Fail
from jobyard.handlers.smtp import UNPRINTABLE, Envelope, RefusedError, Server

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
NO_SUBJECT = "(no subject)"
"""The subject of a mail that was given none."""

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


def _invalid(pointer: str, problem: str) -> RefusedError:
    return RefusedError(f"{pointer}: {problem}", kind="InvalidEmail")


def _line(text: str, pointer: str) -> str:
    """A text that may stand in a header, where a line break or what decodes to one would forge another header."""
    if UNPRINTABLE.search(text):
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


def _compose(mail: Email, default_sender: Address, job_id: UUID) -> Envelope:
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
    return Envelope(message_id, sender.addr_spec, _recipients(to, cc, bcc), content, utf8)


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
        self._server = None if smtp_url is None else Server(smtp_url)
        self._outbox = outbox
        try:
            self._sender = _address(sender, "sender")
        except RefusedError as refused:
            raise ValueError(str(refused)) from None

    async def send(self, payload: Email, ctx: Job) -> dict[str, object] | Fail:
        """Hand the mail over: `{"messageId", "accepted": [...]}`, with `"refused": {address: reason}` from a
        server or `"outbox": path` without one. Raises DeliveryError where another attempt may succeed."""
        try:
            envelope = await asyncio.to_thread(_compose, payload, self._sender, ctx.job_id)
            if self._server is None:
                return await asyncio.to_thread(self._file, envelope, ctx.job_id)
            refused = await self._server.deliver(envelope)
        except RefusedError as error:
            return Fail(str(error), type=error.kind)
        accepted = [recipient for recipient in envelope.recipients if recipient not in refused]
        return {"messageId": envelope.message_id, "accepted": accepted, "refused": refused}

    async def close(self) -> None:
        """Say goodbye on the idle connections; sends still under way close theirs themselves."""
        if self._server is not None:
            await self._server.close()

    def _file(self, envelope: Envelope, job_id: UUID) -> dict[str, object]:
        self._outbox.mkdir(parents=True, exist_ok=True)
        mail, draft = self._outbox / f"{job_id}.eml", self._outbox / f".{job_id}.{uuid4().hex}.tmp"
        try:
            draft.write_bytes(envelope.content)
            draft.replace(mail)
        finally:
            draft.unlink(missing_ok=True)
        return {"messageId": envelope.message_id, "accepted": envelope.recipients, "outbox": str(mail)}
