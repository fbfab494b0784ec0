"""What goes over the wire, what comes back, and what is said when nothing whole does."""

from __future__ import annotations

import asyncio
import random
import ssl
import traceback
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import trustme

from jobyard.outgoing import Answer, Client, InvalidAddress, OutgoingError, Request, Unanswered
from jobyard.outgoing import client as outgoing_client
from jobyard.outgoing.guard import Address
from web_server import Received, always, answer, silence, web_server
from worker.yard import until

LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]
SECRET = "s3cret-w0rd"


def looking_up(*addresses: str):
    async def look_up(host: str) -> list[Address]:
        return [ip_address(address) for address in addresses]

    return look_up


async def call(
    url: str, client: Client | None = None, *, seconds: float = 5, max_body_bytes: int = 1000
) -> Answer:
    client = client or Client(LOOPBACK)
    return await client.send(Request("GET", url), seconds=seconds, max_body_bytes=max_body_bytes)


# A request and its answer


async def test_the_request_is_sent_as_it_was_given() -> None:
    async with web_server(always(answer(201, b"made", "X-One: 1", "X-one: 2"))) as server:
        request = Request("PUT", f"{server.url}/\N{SNOWMAN} a?b=c d#e", {"X-Own": "v"}, b"\0\xff")
        answered = await Client(LOOPBACK).send(request, seconds=5, max_body_bytes=1000)
    [received] = server.requests
    assert (received.method, received.target, received.body) == (
        "PUT",
        "/%E2%98%83%20a?b=c%20d",
        b"\0\xff",
    )
    assert received.headers == [
        ("Host", f"127.0.0.1:{server.port}"),
        ("X-Own", "v"),
        ("Connection", "close"),
        ("Content-Length", "2"),
    ]
    headers = [("content-length", "4"), ("x-one", "1"), ("x-one", "2")]
    assert answered == Answer(server.url, 201, headers, b"made", truncated=False)


async def test_ipv6_literals_are_called_with_brackets_in_the_host() -> None:
    try:
        async with web_server(always(answer(200, b"six")), host="::1") as server:
            assert (await call(f"http://[::1]:{server.port}/")).body == b"six"
    except OSError:
        assert not Path("/proc/net/if_inet6").exists(), "this machine has IPv6"
        return
    assert server.requests[0].header("Host") == f"[::1]:{server.port}"


async def test_each_request_has_a_connection_of_its_own_even_if_the_server_keeps_it() -> None:
    async def kept_open(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, b"again", "Connection: keep-alive"))
        await asyncio.Event().wait()

    async with web_server(kept_open) as server:
        client = Client(LOOPBACK)
        for _ in range(3):
            assert (await call(server.url, client)).body == b"again"
    assert server.connections == 3


async def test_a_compressed_body_is_given_as_it_came() -> None:
    async with web_server(always(answer(200, b"\x1f\x8b not really", "Content-Encoding: gzip"))) as server:
        assert (await call(server.url)).body == b"\x1f\x8b not really"


async def test_chunks_are_put_together_and_interim_answers_passed_over() -> None:
    raw = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    async with web_server(always(raw)) as server:
        assert (await call(server.url)).body == b"abcde"


async def test_the_next_address_is_tried_when_one_cannot_be_connected() -> None:
    async with web_server(always(answer(200, b"second")), host="127.0.0.3") as server:
        client = Client(LOOPBACK, looking_up("127.0.0.2", "127.0.0.3"))
        assert (await call(f"http://two.example:{server.port}", client)).body == b"second"


async def test_the_next_address_is_tried_when_one_keeps_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing_client, "CONNECT_SECONDS", 0.2)
    # Both listen without TLS: a handshake is a connection that does not come about.
    async with (
        web_server(silence, host="127.0.0.2") as first,
        web_server(silence, host="127.0.0.3", port=first.port) as second,
    ):
        client = Client(LOOPBACK, looking_up("127.0.0.2", "127.0.0.3"))
        with pytest.raises(Unanswered, match=r"no connection \(127\.0\.0\.3 took longer than 0\.2 s\)"):
            await call(f"https://two.example:{first.port}", client)
    assert (first.connections, second.connections) == (1, 1)


# Bounds


async def test_a_body_is_read_up_to_the_cap_and_the_connection_closed() -> None:
    async def endless(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 10_000)
            await writer.drain()

    async with web_server(endless) as server:
        answered = await call(server.url, max_body_bytes=12_345)
        assert (answered.body, answered.truncated) == (b"x" * 12_345, True)
        await asyncio.wait_for(server.closed.wait(), 10)


@pytest.mark.parametrize(("length", "truncated"), [(9, False), (10, False), (11, True)])
async def test_a_body_of_just_the_cap_is_whole(length: int, truncated: bool) -> None:
    async with web_server(always(answer(200, b"x" * length))) as server:
        answered = await call(server.url, max_body_bytes=10)
    assert (len(answered.body), answered.truncated) == (min(length, 10), truncated)


def dripping(start: bytes, drop: bytes):
    async def drip(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.02)

    return drip


HANGS = {
    "says nothing": silence,
    "drips a body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    "drips chunks": dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "drips a header": dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "drips headers": dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "drips interim answers": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


async def test_one_deadline_bounds_whatever_a_server_does() -> None:
    """All at once: each waits for its deadline."""

    async def hang(reply) -> None:
        async with web_server(reply) as server:
            with pytest.raises(Unanswered, match=rf"^{server.url}: no whole answer within 1 s$"):
                await call(f"{server.url}/p?q", seconds=1, max_body_bytes=1_000_000)
            await server.closed.wait()

    async with asyncio.timeout(20):
        await asyncio.gather(*map(hang, HANGS.values()))


async def test_the_deadline_bounds_the_look_up_the_handshake_and_the_sending() -> None:
    async def look_up_for_ever(host: str) -> list[Address]:
        await asyncio.Event().wait()
        return []

    async def look_up() -> None:
        with pytest.raises(Unanswered, match="no whole answer"):
            await call("http://slow.example/", Client(LOOPBACK, look_up_for_ever), seconds=0.1)

    async def shake_hands() -> None:
        async with web_server(silence) as server:
            with pytest.raises(Unanswered, match="no whole answer"):
                await call(f"https://127.0.0.1:{server.port}/", seconds=1)
            await server.closed.wait()

    async def send() -> None:
        async with web_server(silence, deaf=True) as server:
            upload = Request("POST", server.url, {}, bytes(50_000_000))
            with pytest.raises(Unanswered, match="no whole answer"):
                await Client(LOOPBACK).send(upload, seconds=1, max_body_bytes=1)

    async with asyncio.timeout(20):
        await asyncio.gather(look_up(), shake_hands(), send())


async def test_others_are_answered_while_some_servers_hang() -> None:
    async with web_server(silence) as hung, web_server(always(answer(200, b"here"))) as server:
        client = Client(LOOPBACK)
        waiting = [asyncio.create_task(call(hung.url, client, seconds=60)) for _ in range(50)]
        async with asyncio.timeout(20):
            await until(lambda: hung.connections == len(waiting))
            assert (await call(server.url, client)).body == b"here"
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_cancelled_request_leaves_no_connection() -> None:
    async with web_server(silence) as server, asyncio.timeout(10):
        sending = asyncio.create_task(call(server.url, seconds=60))
        await until(lambda: server.requests)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await server.closed.wait()


# Failures


BROKEN = {
    "closes at once": b"",
    "no HTTP": b"220 smtp.example ESMTP\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x28",
    "half a status line": b"HTTP/1.1 20",
    "half the headers": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half the body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "a chunk without a length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhalf\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "a length below nothing": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a length of 5000 digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a chunk of 5000 digits": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"9" * 5000
    + b"\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
    "a header without a name": b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000,
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
async def test_what_is_not_a_whole_answer_is_none(raw: bytes) -> None:
    async with web_server(always(raw)) as server:
        with pytest.raises(
            Unanswered, match=rf"^{server.url}: (the answer broke off|the connection was lost)"
        ):
            await call(server.url)


async def test_no_bytes_of_a_server_raise_anything_else() -> None:
    dice = random.Random(3)
    whole = answer(200, b"hello", "Transfer-Encoding: chunked", "Date: x") + b"5\r\nhello\r\n0\r\n\r\n"

    async def garbled(received: Received, writer: asyncio.StreamWriter) -> None:
        raw = bytearray(whole)
        for _ in range(dice.randint(1, 6)):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        writer.write(raw[: dice.randint(0, len(raw))])

    async with web_server(garbled) as server:
        client = Client(LOOPBACK)
        ends = [await _end_of(client, server.url) for _ in range(100)]
    assert set(ends) == {Answer, Unanswered}


async def _end_of(client: Client, url: str) -> type:
    try:
        return type(await call(url, client))
    except OutgoingError as error:
        return type(error)


async def test_a_connection_that_is_refused_or_reset_says_so() -> None:
    async def reset(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with web_server(reset) as server:
        with pytest.raises(Unanswered, match=r"the connection was lost|broke off"):
            await call(server.url)
    with pytest.raises(Unanswered, match=r"no connection \(127\.0\.0\.1: .*(refused|Connect call failed)"):
        await call(server.url)


async def test_a_name_that_is_not_known_says_so() -> None:
    async def unknown(host: str) -> list[Address]:
        raise OSError(-2, "Name or service not known")

    with pytest.raises(
        Unanswered, match=r"http://no\.example: the name cannot be resolved \(Name or service"
    ):
        await call("http://no.example", Client(look_up=unknown))
    with pytest.raises(Unanswered, match="the name has no address"):
        await call("http://no.example", Client(look_up=looking_up()))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{echo}\r\n\r\n",
        b"HTTP/1.1 {echo}\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n{echo}\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: {echo}\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{echo}\r\n",
    ],
)  # fmt: skip
async def test_no_failure_tells_a_credential_even_if_the_server_repeats_it(raw: bytes) -> None:
    async def echo(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(raw.replace(b"{echo}", received.raw.replace(b"\r\n", b" ")))

    headers = {"Authorization": f"Bearer {SECRET}"}
    async with web_server(echo) as server:
        request = Request("POST", f"{server.url}/{SECRET}?token={SECRET}", headers, SECRET.encode())
        with pytest.raises(Unanswered) as failed:
            await Client(LOOPBACK).send(request, seconds=5, max_body_bytes=1000)
    assert SECRET in server.requests[0].raw.decode()
    assert SECRET not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@h/",
        f"http://{SECRET}@h/",
        f"http://u:{SECRET}@h:x/",
        f"ftp://u:{SECRET}@h/",
        f"http://h:{SECRET}/",
        f"http://h\\?token={SECRET}",
        f"http://[/?{SECRET}",
        f"http:// {SECRET}",
    ],
)
async def test_no_refusal_of_an_address_quotes_it(url: str) -> None:
    with pytest.raises(InvalidAddress) as refused:
        await call(url)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


def certified(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.mark.usefixtures("trusted")
async def test_tls_is_spoken_to_the_name_at_the_address_that_was_judged(authority: trustme.CA) -> None:
    told: list[str | None] = []
    tls = certified(authority, "named.example")
    tls.sni_callback = lambda connection, name, context: told.append(name)
    async with web_server(always(answer(200, b"safe")), tls=tls) as server:
        client = Client(LOOPBACK, looking_up("127.0.0.1"))
        assert (await call(f"https://named.example:{server.port}/", client)).body == b"safe"
    assert told == ["named.example"]
    assert server.requests[0].header("Host") == f"named.example:{server.port}"


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_for_another_name_is_no_connection(authority: trustme.CA) -> None:
    async with web_server(always(answer()), tls=certified(authority, "other.example", "127.0.0.1")) as server:
        client = Client(LOOPBACK, looking_up("127.0.0.1"))
        with pytest.raises(Unanswered, match=r"no connection \(127\.0\.0\.1: .*certificate"):
            await call(f"https://named.example:{server.port}/", client)
        assert (await call(f"https://127.0.0.1:{server.port}/", client)).status == 200
    assert len(server.requests) == 1


async def test_a_certificate_of_an_unknown_authority_is_no_connection(authority: trustme.CA) -> None:
    async with web_server(always(answer()), tls=certified(authority, "localhost")) as server:
        with pytest.raises(Unanswered, match="certificate"):
            await call(f"https://localhost:{server.port}/")
    assert server.requests == []
