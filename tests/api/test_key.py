"""The static key: what it guards, in which spellings it opens, and what a browser is told."""

from __future__ import annotations

import asyncio
import base64
import re

from api.site import MAIL, Site, head, serving
from jobyard.api.app import ROUTES
from jobyard.store.database import Pool
from store.scene import Scene

KEY = "a-secret-key:with-a-colon"
ID = "01a210f7-d16a-75cb-ae71-932ef940bb06"
OPEN = ("/healthz", "/readyz")
DOCUMENTS = ("/", "/docs", "/openapi.json")


def basic(key: str, user: str = "me") -> str:
    return "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()


async def ask(site: Site, method: str, path: str, *shown: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and head of the answer to a request with these Authorization headers, whatever they hold."""
    lines = [f"{method} {path} HTTP/1.1", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"Authorization: {value}" for value in shown]
    request = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
    async with site.raw(request, body) as client, asyncio.timeout(10):
        answer = await client.reader.read()
    return int(answer.split()[1]), answer


async def status(site: Site, method: str, path: str, *shown: str, body: bytes = b"") -> int:
    return (await ask(site, method, path, *shown, body=body))[0]


async def test_it_guards_every_route_but_health(pool: Pool):
    async with serving(pool, key=KEY) as site:
        for route in ROUTES:
            path = route.path.replace("{id}", ID)
            answered = await status(site, route.method, path)
            assert (path, answered != 401) == (path, path in OPEN)


async def test_a_stranger_cannot_tell_what_there_is_from_what_there_is_not(pool: Pool):
    async with serving(pool, key=KEY) as site:
        for asked in (
            ("GET", "/nope"),
            ("GET", "/api/"),
            ("DELETE", "/api/jobs"),
            ("TRACE", "/docs"),
            ("OPTIONS", "/api/jobs"),
            ("GET", "/%00"),
        ):
            assert (asked, await status(site, *asked)) == (asked, 401)
            assert await status(site, *asked, f"Bearer {KEY}") in (404, 405)


WRONG = [
    "", " ", "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Bearer {KEY} {KEY}", f"Bearer,{KEY}",
    f"Bearer {KEY.upper()}", f"Bearer={KEY}", f'Bearer "{KEY}"', KEY, f"Basic {KEY}", basic(KEY), f"Token {KEY}",
    "Bearer \xff\xfe", "Bearer " + "k" * 10_000,
]  # fmt: skip


async def test_a_wrong_key_opens_nothing(pool: Pool, scene: Scene):
    async with serving(pool, key=KEY) as site:
        for shown in WRONG:
            answered, told = await ask(site, "POST", "/api/jobs", shown, body=MAIL)
            assert (shown, answered) == (shown, 401)
            assert b"application/problem+json" in told
            assert re.findall(rb"www-authenticate: (.*)\r\n", told) == [b"Bearer"]
            assert KEY.encode() not in told
    assert await scene.count("job") == 0


async def test_two_keys_are_none_even_if_both_are_right(pool: Pool):
    async with serving(pool, key=KEY) as site:
        right = f"Bearer {KEY}"
        for shown in ((right, right), ("Bearer no", right), (right, "Bearer no"), (right, "")):
            assert await status(site, "GET", "/api/jobs", *shown) == 401


async def test_the_right_key_opens_all_in_every_case_of_its_scheme(pool: Pool):
    async with serving(pool, key=KEY) as site:
        for shown in (f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY}"):
            assert await status(site, "POST", "/api/jobs", shown, body=MAIL) == 202
            assert [await status(site, "GET", path, shown) for path in DOCUMENTS] == [307, 200, 200]


# Browsers


async def test_a_browser_can_ask_a_person_for_the_key_and_read_the_documents(pool: Pool):
    async with serving(pool, key=KEY) as site:
        for path in DOCUMENTS:
            _, told = await ask(site, "GET", path)
            assert re.findall(rb"www-authenticate: (\w+)", told) == [b"Bearer", b"Basic"]
            for user in ("me", "", "näme"):
                assert await status(site, "GET", path, basic(KEY, user)) in (200, 307)


async def test_a_wrong_password_in_a_browser_opens_nothing(pool: Pool):
    async with serving(pool, key=KEY) as site:
        for shown in (
            basic(KEY + "x"),
            basic(""),
            "Basic",
            "Basic ",
            "Basic !!",
            f"Basic {KEY}",
            "Basic bWU=",
        ):
            assert [await status(site, "GET", path, shown) for path in DOCUMENTS] == [401, 401, 401]


async def test_what_a_browser_sends_unasked_opens_nothing_else(pool: Pool, scene: Scene):
    """Another site's page can make a browser send the password again, so it must not create, cancel or show a job."""
    async with serving(pool, key=KEY) as site:
        for route in ROUTES:
            path = route.path.replace("{id}", ID)
            if path not in (*OPEN, *DOCUMENTS):
                assert (path, await status(site, route.method, path, basic(KEY), body=MAIL)) == (path, 401)
        assert await status(site, "POST", "/docs", basic(KEY)) == 401
    assert await scene.count("job") == 0


# Without a key


async def named(site: Site, path: str, host: str, method: str = "GET") -> int:
    async with site.raw(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) as client:
        return (await client.answer())[0]


async def test_without_a_key_only_this_machines_own_names_are_answered(site: Site):
    """A page elsewhere can give its own name our address (DNS rebinding): to a browser we would be that page's server."""
    for host in (
        "localhost",
        "localhost:3000",
        "LOCALHOST",
        "127.0.0.1:1",
        "127.9.9.9",
        "[::1]:3000",
        "[::1]",
    ):
        assert (host, await named(site, "/api/jobs", host)) == (host, 200)
    for host in (
        "evil.example",
        "evil.example:3000",
        "localhost.evil.example",
        "192.168.1.5",
        "localhost@evil.example",
        "",
    ):
        assert (host, await named(site, "/api/jobs", host)) == (host, 421)
        assert await named(site, "/nowhere", host) == 421
        assert await named(site, "/healthz", host) == 200
    async with site.raw(b"GET /api/jobs HTTP/1.0\r\n\r\n") as nameless:
        assert (await nameless.answer())[0] == 200


async def test_with_a_key_every_name_is_answered(pool: Pool):
    async with serving(pool, key=KEY) as site:
        sent = head("GET", "/api/jobs", Authorization=f"Bearer {KEY}").replace(b"localhost", b"jobs.example")
        async with site.raw(sent) as client:
            assert (await client.answer())[0] == 200


async def test_without_a_key_nobody_is_asked_for_one(site: Site):
    assert await status(site, "GET", "/api/jobs") == 200
    assert await status(site, "GET", "/api/jobs", "Bearer anything") == 200
