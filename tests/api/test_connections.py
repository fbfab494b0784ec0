"""What arrives on a connection before it is a request: too much, too slowly, twice, or something else altogether."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from api.site import MAIL, Raw, Site, head, serving, until
from jobyard.store.database import Pool
from store.scene import Scene

HEALTH = head("GET", "/healthz")
CREATE = head("POST", "/api/jobs", Content_Type="application/json", Content_Length=str(len(MAIL))) + MAIL
CHUNKED = head("POST", "/api/jobs", Content_Type="application/json", Transfer_Encoding="chunked")
IN_CHUNKS = b"%x\r\n%b\r\n" % (len(MAIL), MAIL)
LATE = 0.5
"""How much later than its bound a client may be cut."""


async def refused(client: Raw, status: int, code: str, *, quits: bool = True) -> dict[str, Any]:
    """The problem that is answered next, behind which the connection ends: at once when the client `quits` too, else when
    the server has heard it out for a moment."""
    answered, headers, body = await client.answer()
    assert (answered, headers["content-type"]) == (status, "application/problem+json"), body
    assert headers["connection"] == "close"
    assert headers["x-content-type-options"] == "nosniff"
    told = json.loads(body)
    assert (told["code"], told["status"]) == (code, status)
    assert told["requestId"] == headers["x-request-id"]
    if quits:
        client.writer.write_eof()
    assert await end(client) == b""
    return told


async def end(client: Raw) -> bytes:
    """What still comes until the server closes."""
    async with asyncio.timeout(10):
        try:
            return await client.reader.read()
        except ConnectionResetError:
            return b""


async def statuses(client: Raw, count: int) -> list[int]:
    return [(await client.answer())[0] for _ in range(count)]


# Too much


async def test_a_head_may_be_as_large_as_its_bound_and_no_larger(pool: Pool):
    async with serving(pool, max_header_bytes=1024, max_url_bytes=256, max_headers=8) as site:
        frame = len("/healthz") + len("host") + len("localhost") + 4 + len("x") + 4
        for surplus in (0, 1):
            async with site.raw(head("GET", "/healthz", X="y" * (1024 - frame + surplus))) as client:
                if surplus:
                    await refused(client, 431, "headers_too_large")
                else:
                    assert await statuses(client, 1) == [200]
            async with site.raw(
                head("GET", "/healthz?" + "y" * (256 - len("/healthz?") + surplus))
            ) as client:
                if surplus:
                    await refused(client, 414, "uri_too_long")
                else:
                    assert await statuses(client, 1) == [200]
            many = {f"X{number}": "y" for number in range(7 + surplus)}
            async with site.raw(head("GET", "/healthz", **many)) as client:
                if surplus:
                    await refused(client, 431, "headers_too_large")
                else:
                    assert await statuses(client, 1) == [200]


ENDLESS = {
    "a header": (b"GET /healthz HTTP/1.1\r\nX: ", b"y"),
    "the name of one": (b"GET /healthz HTTP/1.1\r\nX", b"y"),
    "blanks": (b"GET /healthz HTTP/1.1\r\nX:", b" "),
    "blank lines": (b"\r\n", b"\r\n"),
    "headers": (b"GET /healthz HTTP/1.1\r\n", b"X: y\r\n"),
    "a trailer": (CHUNKED + IN_CHUNKS + b"0\r\nX: ", b"y"),
    "the extension of a chunk": (CHUNKED + b"1;", b"y"),
}


async def test_what_never_ends_is_refused_at_most_one_read_behind_its_bound(site: Site):
    for what, (start, more) in ENDLESS.items():
        async with site.raw(start, more * (400_000 // len(more))) as client:
            told = await refused(client, 431, "headers_too_large")
            assert "32768 bytes" in told["detail"], what


async def test_an_endless_address_is_refused_before_its_end(site: Site):
    async with site.raw(b"GET /" + b"y" * 20_000) as client:
        await refused(client, 414, "uri_too_long")


async def test_no_more_connections_are_served_than_there_may_be(pool: Pool):
    async with serving(pool, max_connections=3) as site, AsyncExitStack() as opened:
        # One is the client that fetched the document.
        first, second = [await opened.enter_async_context(site.raw(HEALTH)) for _ in range(2)]
        assert [await statuses(each, 1) for each in (first, second)] == [[200], [200]]
        for _ in range(2):
            async with site.raw() as surplus:
                assert (await refused(surplus, 503, "overloaded"))["detail"]
        first.writer.write(HEALTH)
        assert await statuses(first, 1) == [200]
        second.writer.close()
        await until(lambda: has_room(site))


async def has_room(site: Site) -> bool:
    async with site.raw(HEALTH) as client:
        return await statuses(client, 1) == [200]


async def test_requests_ahead_of_their_answers_are_answered_in_order_up_to_a_bound(pool: Pool, scene: Scene):
    async with serving(pool, max_pipelined=4) as site:
        async with site.raw(CREATE + HEALTH * 4) as client:
            assert await statuses(client, 5) == [202, 200, 200, 200, 200]
        async with site.raw(CREATE + HEALTH * 50) as client:
            assert await statuses(client, 5) == [202, 200, 200, 200, 200]
            await refused(client, 400, "bad_request")
    assert await scene.count("job") == 2


# Too slowly


@asynccontextmanager
async def cut_within(seconds: float) -> AsyncIterator[None]:
    """With twice the bound, as every promise in seconds is tested, and room for a busy machine."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 2 * (seconds + LATE) + 5


@pytest.mark.parametrize("start", [b"GET /", b"GET /healthz HTTP/1.1\r\nX: ", b"\r\n"])
async def test_a_head_that_comes_byte_by_byte_has_one_deadline(pool: Pool, start: bytes):
    async with serving(pool, head_timeout_seconds=0.3) as site, site.raw(start) as client, cut_within(0.3):
        dripping = asyncio.create_task(drip(client, b"\r\n" if start == b"\r\n" else b"y"))
        await refused(client, 408, "request_timeout", quits=False)
        dripping.cancel()


async def drip(client: Raw, byte: bytes) -> None:
    while True:
        client.writer.write(byte)
        await asyncio.sleep(0.05)


async def test_who_connects_and_says_nothing_is_left_without_a_word(pool: Pool):
    async with serving(pool, head_timeout_seconds=0.3) as site, site.raw() as client, cut_within(0.3):
        assert await end(client) == b""


async def test_the_next_head_has_a_deadline_of_its_own(pool: Pool):
    async with serving(pool, head_timeout_seconds=0.3) as site, site.raw(HEALTH) as client, cut_within(0.3):
        assert await statuses(client, 1) == [200]
        client.writer.write(HEALTH[:-2])
        await refused(client, 408, "request_timeout")


async def test_a_head_cut_short_behind_a_request_that_waits_is_refused_in_its_turn(pool: Pool):
    async with serving(pool, head_timeout_seconds=0.3) as site:
        waits = head("GET", f"/api/jobs/{await site.add()}", Prefer="wait=2")
        async with site.raw(waits + HEALTH[:-2]) as client:
            assert await statuses(client, 1) == [200]
            await refused(client, 408, "request_timeout")


async def test_a_client_that_we_do_not_read_is_not_called_slow(pool: Pool, scene: Scene):
    """While the database holds up one request and another waits behind it, what follows is left in the socket."""
    async with serving(pool, head_timeout_seconds=0.3) as site:
        job = head("GET", f"/api/jobs/{await site.add()}")
        async with site.raw() as client:
            async with scene.locked("job"):
                client.writer.write(job + HEALTH + HEALTH[:-2])
                await asyncio.sleep(2 * 0.3 + LATE)
            assert await statuses(client, 2) == [200, 200]
            client.writer.write(HEALTH[-2:])
            assert await statuses(client, 1) == [200]


@pytest.mark.parametrize("more", [b"", b"y"], ids=["nothing", "a body that nobody asked for"])
async def test_a_connection_without_a_request_ends(pool: Pool, more: bytes):
    ask = head("GET", "/healthz", Content_Length="1000000" if more else "0")
    async with serving(pool, idle_timeout_seconds=0.3) as site, site.raw(ask) as client, cut_within(0.3):
        assert await statuses(client, 1) == [200]
        dripping = asyncio.create_task(drip(client, more))
        assert await end(client) == b""
        dripping.cancel()


async def test_an_idle_connection_is_used_again_while_it_may_be(pool: Pool):
    async with serving(pool, idle_timeout_seconds=0.5) as site, site.raw() as client:
        for _ in range(5):
            client.writer.write(HEALTH)
            assert await statuses(client, 1) == [200]
            await asyncio.sleep(0.2)


async def test_a_head_may_begin_just_before_the_connection_would_have_ended(pool: Pool):
    async with serving(pool, idle_timeout_seconds=1) as site, site.raw(HEALTH) as client:
        assert await statuses(client, 1) == [200]
        await asyncio.sleep(0.4)
        client.writer.write(HEALTH[:-2])
        await asyncio.sleep(0.8)
        client.writer.write(HEALTH[-2:])
        assert await statuses(client, 1) == [200]


async def test_a_request_may_take_longer_than_an_idle_connection(pool: Pool):
    async with serving(pool, idle_timeout_seconds=0.3, head_timeout_seconds=0.3) as site:
        # Not by the site's client, whose own connection ends as idle too.
        async with site.raw(CREATE) as client:
            job = json.loads((await client.answer())[2])["id"]
        waits = head("GET", f"/api/jobs/{job}", Prefer="wait=2")
        async with site.raw(HEALTH + waits[:-2]) as client:
            assert await statuses(client, 1) == [200]
            client.writer.write(waits[-2:])
            assert await statuses(client, 1) == [200]


@pytest.mark.parametrize("after", ["keep-alive", "close"])
async def test_a_client_that_does_not_read_its_answer_is_cut(pool: Pool, after: str):
    """More than the kernels hold of it stays with the server, which lets go of it and of the connection."""
    size = 12 << 20
    bounds = {"answer_timeout_seconds": 0.5, "max_payload_bytes": size + 10, "max_connections": 2}
    async with serving(pool, **bounds) as site:
        job = await site.add(payload="y" * size)
        async with site.raw(head("GET", f"/api/jobs/{job}", Connection=after)) as client, cut_within(3 * 0.5):
            await until(lambda: has_room(site))
            assert 0 < len(await end(client)) < size


# Twice, or in two ways


AMBIGUOUS = [
    "Content-Length: 4\r\nContent-Length: 4",
    "Content-Length: 4\r\nContent-Length: 5",
    "Content-Length: 4, 4",
    "Content-Length: +4",
    "Content-Length: -4",
    "Content-Length: 0x4",
    "Content-Length: ",
    "Content-Length: 99999999999999999999",
    "Content-Length : 4",
    "Content-Length: 4\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 4",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "Transfer-Encoding: chunked\r\n\r\n1\r\nyy\r\n",
    "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 4\r\n",
    "X: a\r\n folded",
    "X: a\0b",
    "X Y: b",
    ": b",
    "X",
]


async def test_what_two_readers_would_read_differently_is_refused_and_so_is_all_behind_it(
    site: Site, scene: Scene
):
    async def is_refused(lines: str) -> None:
        start = f"POST /api/jobs HTTP/1.1\r\nContent-Type: application/json\r\n{lines}\r\n\r\n"
        async with site.raw(start.encode(), CREATE) as client:
            await refused(client, 400, "bad_request")

    await asyncio.gather(*map(is_refused, AMBIGUOUS))
    assert await scene.count("job") == 0


async def test_a_body_is_never_unpacked(site: Site):
    packed = CHUNKED.replace(b"chunked", b"gzip, chunked")
    async with site.raw(packed, IN_CHUNKS + b"0\r\n\r\n") as client:
        await refused(client, 400, "bad_request")


async def test_chunks_are_for_http_1_1(site: Site):
    async with site.raw(CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0"), IN_CHUNKS + b"0\r\n\r\n") as client:
        await refused(client, 400, "bad_request")


async def test_a_trailer_is_no_header(pool: Pool, scene: Scene):
    """It comes with the body, before the endpoint has looked at the headers."""
    async with serving(pool, key="k") as site:
        trailer = b"0\r\nAuthorization: Bearer k\r\nIdempotency-Key: later\r\n\r\n"
        async with site.raw(CHUNKED + IN_CHUNKS + trailer) as client:
            assert await statuses(client, 1) == [401]
        opened = CHUNKED[:-2] + b"Authorization: Bearer k\r\n\r\n"
        async with site.raw(opened + IN_CHUNKS + trailer) as client:
            assert await statuses(client, 1) == [202]
    assert await scene.count("idempotency") == 0


async def test_a_body_that_breaks_off_in_nonsense_is_refused_at_once_and_makes_no_job(
    site: Site, scene: Scene
):
    async with site.raw(CHUNKED + IN_CHUNKS) as client:
        await asyncio.sleep(0.05)  # the endpoint is waiting for the rest by now; either way must end the same
        client.writer.write(b"nonsense\r\n")
        await refused(client, 400, "bad_request")
    async with site.raw(HEALTH + CHUNKED + IN_CHUNKS + b"nonsense\r\n") as client:
        assert await statuses(client, 1) == [200]
        await refused(client, 400, "bad_request")
    assert await scene.count("job") == 0


async def test_a_request_is_not_answered_twice_when_its_body_turns_out_to_be_nonsense(site: Site):
    async with site.raw(head("GET", "/healthz", Transfer_Encoding="chunked")) as client:
        assert await statuses(client, 1) == [200]
        client.writer.write(b"nonsense\r\n")
        assert await end(client) == b""


async def test_what_was_asked_before_the_nonsense_is_answered_first(site: Site, scene: Scene):
    async with site.raw(CREATE + b"nonsense\r\n\r\n") as client:
        assert await statuses(client, 1) == [202]
        await refused(client, 400, "bad_request")
    assert await scene.count("job") == 1


# Something else altogether


FOREIGN = [
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    b"GET /healthz\r\n\r\n",
    b"GET /healthz HTTP/2.0\r\n\r\n",
    b"GET /healthz HTTP/1.2\r\n\r\n",
    b"GET /healthz HTTP/1.1\n\n",
    b"BREW /healthz HTTP/1.1\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\n\r\n",
    b"GET http://[/ HTTP/1.1\r\n\r\n",
    "GET /é HTTP/1.1\r\n\r\n".encode(),
    b"\0" * 10,
]


async def test_what_is_no_request_of_ours_is_a_400_and_the_end(site: Site):
    for said in FOREIGN:
        async with site.raw(said) as client:
            assert await refused(client, 400, "bad_request"), said
    assert (await site.get("/healthz")).status_code == 200


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
async def test_an_offer_to_speak_otherwise_is_declined_by_an_ordinary_answer(
    site: Site, scene: Scene, protocol: str
):
    """Java's HttpClient and `curl --http2` make such offers, also with a body."""
    offer = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    with_offer = CREATE.replace(b"\r\n\r\n", b"\r\n" + offer.encode(), 1)
    for pieces in (1, 2):
        async with site.raw(with_offer[: -7 * (pieces - 1) or None]) as client:
            await asyncio.sleep(0.02 * (pieces - 1))
            client.writer.write(with_offer[-7:] if pieces == 2 else b"")
            client.writer.write(HEALTH)
            assert await statuses(client, 2) == [202, 200]
    assert await scene.count("job") == 2
