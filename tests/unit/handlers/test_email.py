"""The email handler against real SMTP servers on this machine: plain, STARTTLS, TLS from the start, with login."""

import asyncio
import base64
import binascii
import email.policy
import socket
import ssl
import tempfile
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
import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from hypothesis import given, settings
from hypothesis import strategies as st

from jobyard.domain.lifecycle import Fail
from jobyard.handlers import smtp
from jobyard.handlers.email import Attachment, Email, Mailer
from jobyard.handlers.smtp import DeliveryError

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


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def port(inbox: Inbox) -> Iterator[int]:
    with smtp_server(inbox) as port:
        yield port


@pytest.fixture
async def mailer(port: int) -> AsyncIterator[Mailer]:
    async with mailer_for(f"smtp://127.0.0.1:{port}") as mailer:
        yield mailer


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


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


# What is sent


async def test_a_payload_with_only_to_is_sent_with_a_subject_an_empty_text_and_a_date(mailer, inbox):
    job = Job()
    result = await mailer.send(parsed('{"to": "user@example.com"}'), job)
    (mail,) = inbox.mails
    assert (mail.sender, mail.recipients) == ("jobs@yard.example", ["user@example.com"])
    assert mail.message["Subject"] == "(no subject)"
    assert mail.message["From"] == "Jobyard <jobs@yard.example>"
    assert mail.message["To"] == "user@example.com"
    assert mail.message["Date"].datetime.tzinfo is not None
    assert mail.message.get_content().strip() == ""
    message_id = f"<{job.job_id}@yard.example>"
    assert result == {"messageId": message_id, "accepted": ["user@example.com"], "refused": {}}


async def test_every_attempt_of_a_job_carries_the_same_message_id(mailer, inbox):
    job = Job()
    for _ in range(2):
        await mailer.send(Email(to="a@example.com", sender="Shop <mail@shop.example>"), job)
    assert [mail.message["Message-ID"] for mail in inbox.mails] == [f"<{job.job_id}@shop.example>"] * 2


async def test_unicode_and_attachments_arrive_intact(mailer, inbox):
    picture = bytes(range(256)) * 40
    mail = {
        "to": ["Zoë, Ann <zoe@example.com>", '"O\\"Hara (Jo)" <jo@example.com>'],
        "from": "Büro <buero@example.com>",
        "replyTo": "Antwort <answer@example.com>",
        "subject": "Grüße: 日本語のテスト 🎉 " + "ein langer Betreff " * 10,
        "text": "Zeile 1\n.\n..Punkte\nFrom hier\n" + "ü" * 2000 + "\n",
        "attachments": [
            {"filename": "Übersicht 2026.png", "contentType": "image/png", "content": base64.b64encode(picture).decode()},
            {"filename": "notes.csv", "contentType": "text/csv; charset=utf-8", "content": base64.encodebytes("ä;ö\r\n".encode()).decode()},
            {"filename": "raw", "content": ""},
        ],
    }  # fmt: skip
    await mailer.send(msgspec.convert(mail, Email), Job())
    message = inbox.mails[0].message
    assert message["Subject"] == mail["subject"].strip()
    people = [(person.display_name, person.addr_spec) for person in message["To"].addresses]
    assert people == [("Zoë, Ann", "zoe@example.com"), ('O"Hara (Jo)', "jo@example.com")]
    assert message["From"].addresses[0].display_name == "Büro"
    assert message["Reply-To"] == "Antwort <answer@example.com>"
    assert message.get_body().get_content().replace("\r\n", "\n") == mail["text"]
    files = list(message.iter_attachments())
    assert [file.get_filename() for file in files] == ["Übersicht 2026.png", "notes.csv", "raw"]
    assert [file.get_content_type() for file in files] == [
        "image/png",
        "text/csv",
        "application/octet-stream",
    ]
    assert files[0].get_content() == picture
    assert files[1].get_payload(decode=True) == "ä;ö\r\n".encode()
    assert files[1].get_param("charset") == "utf-8"
    assert inbox.mails[0].content.isascii()


async def test_text_and_html_are_two_forms_of_one_mail(mailer, inbox):
    await mailer.send(Email(to="a@example.com", text="plain ü", html="<p>rich ü</p>"), Job())
    message = inbox.mails[0].message
    assert message.get_content_type() == "multipart/alternative"
    kinds = [(part.get_content_type(), part.get_content().strip()) for part in message.iter_parts()]
    assert kinds == [("text/plain", "plain ü"), ("text/html", "<p>rich ü</p>")]
    assert inbox.mails[0].content.isascii()


async def test_html_alone_is_sent_as_html(mailer, inbox):
    await mailer.send(Email(to="a@example.com", html="<p>only</p>"), Job())
    message = inbox.mails[0].message
    assert (message.get_content_type(), message.get_content().strip()) == ("text/html", "<p>only</p>")


async def test_bcc_is_delivered_and_not_shown_and_nobody_is_named_twice(mailer, inbox):
    mail = Email(to="a@example.com", cc=["b@example.com", "a@example.com"], bcc="hidden@example.com")
    result = await mailer.send(mail, Job())
    (received,) = inbox.mails
    assert received.recipients == ["a@example.com", "b@example.com", "hidden@example.com"]
    assert result["accepted"] == received.recipients
    assert received.message["Cc"] == "b@example.com, a@example.com"
    assert b"hidden" not in received.content
    assert "Bcc" not in received.message


async def test_own_headers_are_sent_and_a_long_link_stays_one_word(mailer, inbox):
    link = f"<https://example.com/leave?token={'x' * 300}>"
    headers = {"List-Unsubscribe": link, "X-Campaign": "Frühling"}
    await mailer.send(Email(to="a@example.com", headers=headers), Job())
    assert f"List-Unsubscribe: {link}\r\n".encode() in inbox.mails[0].content
    assert inbox.mails[0].message["X-Campaign"] == "Frühling"


async def test_a_domain_in_any_script_is_sent_in_its_ascii_form(mailer, inbox):
    await mailer.send(Email(to="zoe@bücher.example", sender="x@straße.example"), Job())
    (mail,) = inbox.mails
    assert mail.recipients == ["zoe@xn--bcher-kva.example"]
    assert mail.sender == "x@xn--strae-oqa.example"
    assert mail.message["Message-ID"].endswith("@xn--strae-oqa.example>")


@pytest.mark.parametrize("place", ["to", "bcc"])
async def test_letters_beyond_ascii_before_the_at_use_smtputf8(mailer, inbox, place):
    mail = {"to": "a@example.com", "subject": "für dich"} | {place: "用户@example.com"}
    await mailer.send(msgspec.convert(mail, Email), Job())
    (received,) = inbox.mails
    assert received.recipients[-1] == "用户@example.com"
    assert "SMTPUTF8" in received.options
    assert received.message["Subject"] == "für dich"


async def test_a_server_without_smtputf8_ends_such_a_mail_and_says_so(inbox):
    with smtp_server(inbox, enable_SMTPUTF8=False) as port:
        async with mailer_for(f"smtp://127.0.0.1:{port}") as mailer:
            ended = await mailer.send(Email(to="用户@example.com"), Job())
    assert isinstance(ended, Fail)
    assert "SMTPUTF8" in ended.message
    assert inbox.mails == []


# What is refused before it is sent


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


# How an attempt ends


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


# Connections


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


# TLS and login


async def test_starttls_is_used_where_offered_and_the_login_is_decoded_from_the_url(inbox, tls, trusted):
    with smtp_server(inbox, tls_context=tls, authenticator=inbox.authenticate, auth_required=True) as port:
        async with mailer_for(f"smtp://us%40er:{URL_PASSWORD}@127.0.0.1:{port}") as mailer:
            await mailer.send(Email(to="a@example.com"), Job())
            await mailer.send(Email(to="b@example.com"), Job())
    assert inbox.logins == [(b"us@er", PASSWORD.encode())]
    assert inbox.servers[0].session.ssl is not None
    assert len(inbox.mails) == 2


async def test_smtps_speaks_tls_from_the_start(inbox, tls, trusted):
    options = {"ssl_context": tls, "authenticator": inbox.authenticate, "auth_require_tls": False}
    with smtp_server(inbox, **options) as port:
        async with mailer_for(f"smtps://user:{URL_PASSWORD}@localhost:{port}") as mailer:
            await mailer.send(Email(to="a@example.com"), Job())
    assert inbox.logins == [(b"user", PASSWORD.encode())]
    assert len(inbox.mails) == 1


@pytest.mark.parametrize(("scheme", "option"), [("smtp", "tls_context"), ("smtps", "ssl_context")])
async def test_a_certificate_of_an_unknown_authority_is_not_accepted(inbox, tls, scheme, option):
    with smtp_server(inbox, **{option: tls}) as port:
        async with mailer_for(f"{scheme}://user:{URL_PASSWORD}@127.0.0.1:{port}") as mailer:
            with pytest.raises(DeliveryError, match="CERTIFICATE_VERIFY_FAILED") as raised:
                await mailer.send(Email(to="a@example.com"), Job())
    assert inbox.mails == []
    assert not holds_password(said(raised.value))


async def test_a_password_leaves_this_machine_only_over_tls(inbox):
    # 127.1 reaches this machine as well, but is not spelt like a loopback address, so it counts as elsewhere.
    with smtp_server(inbox, authenticator=inbox.authenticate, auth_require_tls=False) as port:
        async with mailer_for(f"smtp://user:{URL_PASSWORD}@127.1:{port}") as mailer:
            with pytest.raises(DeliveryError, match="STARTTLS"):
                await mailer.send(Email(to="a@example.com"), Job())
        assert inbox.logins == []
        async with mailer_for(f"smtp://user:{URL_PASSWORD}@127.0.0.1:{port}") as mailer:
            await mailer.send(Email(to="a@example.com"), Job())
    assert len(inbox.logins) == 1


PLAIN_LOGIN = base64.b64encode(f"\0user\0{PASSWORD}x".encode()).decode()


@pytest.mark.parametrize("reply", ["535 5.7.8 wrong", f"550 what is {PASSWORD}x?", f"454 {PLAIN_LOGIN}", f"535 {binascii.b2a_base64(f'{PASSWORD}x'.encode()).decode().strip()}"])  # fmt: skip
async def test_a_refused_login_raises_and_never_tells_the_password(inbox, reply):
    inbox.replies["AUTH"] = reply
    with smtp_server(inbox, authenticator=inbox.authenticate, auth_require_tls=False) as port:
        async with mailer_for(f"smtp://user:{URL_PASSWORD}x@127.0.0.1:{port}") as mailer:
            with pytest.raises(DeliveryError, match=reply[:3]) as raised:
                await mailer.send(Email(to="a@example.com"), Job())
    told = said(raised.value)
    assert not holds_password(told)
    assert PLAIN_LOGIN not in told


async def test_a_server_that_asks_for_a_login_we_were_not_given_is_the_operators_to_mend(mailer, inbox):
    inbox.replies["MAIL"] = "530 5.7.0 Authentication required"
    with pytest.raises(DeliveryError, match="530"):
        await mailer.send(Email(to="a@example.com"), Job())


@pytest.mark.parametrize(
    "url",
    [
        f"smtp://user:{PASSWORD}@mail.example:587",
        f"smtp://user:{URL_PASSWORD}@mail.example:port",
        f"smtp://user:{URL_PASSWORD}#@mail.example",
        f"smtp://user:{URL_PASSWORD}@mail.example/inbox",
        f"smtp://user:{URL_PASSWORD}@mail.example:0",
        f"smtp://user:{URL_PASSWORD}@[mail.example",
        f"http://user:{URL_PASSWORD}@mail.example",
        f"smtp://user:{URL_PASSWORD}@",
        "mail.example",
    ],
)
def test_a_url_that_is_none_is_refused_without_being_quoted(url):
    with pytest.raises(ValueError, match="SMTP URL must be") as raised:
        Mailer(url, SENDER, Path("unused"))
    assert not holds_password(str(raised.value))
    assert "s3cr" not in str(raised.value) + str(raised.value.__context__)


def test_a_sender_that_is_no_address_is_refused():
    with pytest.raises(ValueError, match="sender: expected one address"):
        Mailer(None, "Jobyard", Path("unused"))


@pytest.mark.parametrize(("host", "loopback"), [("localhost", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False), ("mail.example", False), ("localhost.example", False)])  # fmt: skip
def test_only_this_machine_is_loopback(host, loopback):
    assert smtp._is_loopback(host) is loopback


# The outbox


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
