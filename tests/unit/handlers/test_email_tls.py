"""TLS and login: no password leaves this machine in the clear, or reaches a log."""

import base64
import binascii
from pathlib import Path

import pytest
from mail_server import PASSWORD, SENDER, URL_PASSWORD, Job, holds_password, mailer_for, said, smtp_server

from jobyard.handlers import smtp
from jobyard.handlers.email import Email, Mailer
from jobyard.handlers.smtp import DeliveryError


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
