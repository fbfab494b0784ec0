"""The checks of a body, each before the next: type, size, time, UTF-8, JSON, depth, numbers, strings."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from api.site import JSON, MAIL, Raw, Site, head, problem, serving
from jobyard.api.parts import ENVELOPE_BYTES
from jobyard.store.database import Pool

LIMIT = 20_000


def with_payload(payload: bytes) -> bytes:
    return b'{"type":"email","payload":%b}' % payload


async def still_serves(site: Site) -> None:
    assert (await site.post()).status_code == 202
    assert (await site.get("/api/jobs")).status_code == 200


# Content type


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-8",
        "APPLICATION/JSON;charset=UTF-8",
        'application/json; charset="utf-8"',
    ],
)
async def test_json_by_its_other_names_is_taken(site: Site, kind: str):
    assert (
        await site.client.post("/api/jobs", content=MAIL, headers={"Content-Type": kind})
    ).status_code == 202


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/json"},
        {"Content-Type": "application/json; charset=latin-1"},
        JSON | {"Content-Encoding": "gzip"},
    ],
)
async def test_what_is_not_said_to_be_json_is_refused_unread(site: Site, headers: dict[str, str]):
    problem(await site.client.post("/api/jobs", content=MAIL, headers=headers), 415, "unsupported_media_type")


# Size


async def test_a_length_over_the_limit_is_refused_before_any_of_the_body_is_there(pool: Pool):
    async with serving(pool, max_payload_bytes=LIMIT) as site:
        declared = head(
            "POST",
            "/api/jobs",
            Content_Type="application/json",
            Content_Length=str(LIMIT + ENVELOPE_BYTES + 1),
        )
        async with site.raw(declared) as client:
            status, headers, body = await client.answer()
        assert (status, headers["connection"], json.loads(body)["code"]) == (413, "close", "too_large")
        await still_serves(site)


async def test_a_body_without_a_length_is_refused_the_moment_it_crosses_the_limit(pool: Pool):
    async with serving(pool, max_payload_bytes=LIMIT) as site:
        start = head("POST", "/api/jobs", Content_Type="application/json", Transfer_Encoding="chunked")
        async with site.raw(start) as client:
            chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
            enough = (LIMIT + ENVELOPE_BYTES) // 4096 + 1
            for _ in range(enough):
                client.writer.write(chunk)
            await client.writer.drain()
            status, _, body = await client.answer()
        assert (status, json.loads(body)["code"]) == (413, "too_large")
        await still_serves(site)


async def test_a_client_that_is_still_sending_can_read_why_it_is_refused(pool: Pool):
    async with serving(pool, max_payload_bytes=LIMIT) as site:
        problem(await site.post(with_payload(b'"%b"' % (b"x" * 8_000_000))), 413, "too_large")


@pytest.mark.parametrize("size", [9_000, 15_000, LIMIT])
async def test_a_payload_up_to_the_limit_is_taken_whole(pool: Pool, size: int):
    payload = b'"%b"' % (b"x" * (size - 2))
    async with serving(pool, max_payload_bytes=LIMIT) as site:
        created = await site.post(with_payload(payload))
        assert created.status_code == 202
        assert payload in (await site.get(created.headers["location"])).content


async def test_a_payload_of_one_byte_too_many_is_refused(pool: Pool):
    async with serving(pool, max_payload_bytes=LIMIT) as site:
        problem(await site.post(with_payload(b'"%b"' % (b"x" * (LIMIT - 1)))), 413, "too_large")


async def test_the_limit_of_a_megabyte_is_the_default(site: Site):
    payload = b'"%b"' % (b"x" * ((1 << 20) - 2))
    assert (await site.post(with_payload(payload))).status_code == 202
    problem(await site.post(with_payload(payload[:-1] + b'x"')), 413, "too_large")


# Time


async def test_a_slow_client_is_cut_and_the_others_do_not_notice(pool: Pool):
    async with serving(pool, body_timeout_seconds=0.5) as site:
        start = head("POST", "/api/jobs", Content_Type="application/json", Content_Length="1000")
        async with site.raw(start) as client:
            drip = asyncio.create_task(_drip(client))
            await still_serves(site)
            status, headers, body = await client.answer()
            drip.cancel()
        assert (status, headers["connection"], json.loads(body)["code"]) == (408, "close", "request_timeout")


async def _drip(client: Raw) -> None:
    while True:
        client.writer.write(b"{")
        await asyncio.sleep(0.05)


# JSON


NOT_JSON = [
    b"",
    b"{",
    b'{"type":"email"',
    b'{"type":"email",}',
    b"{'type':'email'}",
    b'{"type":"email"} {}',
    with_payload(b"NaN"),
    with_payload(b"Infinity"),
    with_payload(b"[-Infinity]"),
    with_payload(b"01"),
    with_payload(b"1."),
    with_payload(b'"\x01"'),
    with_payload(b'"\xff"'),
    with_payload(b'"\xed\xa0\x80"'),
    b"\xef\xbb\xbf" + MAIL,
    MAIL.decode().encode("utf-16"),
]


async def test_what_is_not_json_is_refused(site: Site):
    for body in NOT_JSON:
        problem(await site.post(body), 400, "malformed_json")
        problem(
            await site.post(b'{"jobs":[{"type":"email"},%b]}' % body, "/api/jobs/bulk"), 400, "malformed_json"
        )


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 20_000,
        b"[" * 20_000 + b"]" * 20_000,
        b'{"a":' * 1_001,
        b'{"a":' * 1_001 + b"1" + b"}" * 1_001,
        with_payload(b"[" * 64 + b"]" * 64),
        with_payload(b'{"a":' * 64 + b"1" + b"}" * 64),
        with_payload(rb'["\\",' * 64 + b"1" + b"]" * 64),
    ],
)
async def test_nesting_has_our_own_limit(site: Site, body: bytes):
    faults = problem(await site.post(body), 422, "validation_failed")
    assert faults == {"": "arrays and objects are nested deeper than 64 levels"}
    await still_serves(site)


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 63 + b"]" * 63,
        b"[" + b"[]," * 500 + b"[]]",
        b'"%b"' % (b"[" * 1000),
        rb'{"\"[[[":"%b\\","b":["[{\\\""]}' % (b"{" * 1000),
    ],
)
async def test_what_only_looks_nested_is_taken(site: Site, payload: bytes):
    created = await site.post(with_payload(payload))
    assert created.status_code == 202
    assert payload in (await site.get(created.headers["location"])).content


# What cannot be kept


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" * 4301, b"-" + b"9" * 100_000])
async def test_a_number_beyond_all_ranges_is_refused_with_its_place(site: Site, number: bytes):
    faults = problem(await site.post(with_payload(b'{"a":[1,%b]}' % number)), 422, "validation_failed")
    assert list(faults) == ["/payload/a/1"]


NUL, HALF = "\\u0000", "\\ud800"


UNKEEPABLE = [
    ('{"type":"email","payload":"x%sy"}', "/payload"),
    ('{"type":"email","payload":{"a":[{"b":[0,{"c":"%s"}]}]}}', "/payload/a/0/b/1/c"),
    ('{"type":"e%s"}', "/type"),
    ('{"type":"email","queue":"%s"}', "/queue"),
    ('{"type":"email","tags":["a","%s"]}', "/tags/1"),
    ('{"type":"email","metadata":{"k":"%s"}}', "/metadata/k"),
    ('{"type":"email","runAt":"%s"}', "/runAt"),
]


@pytest.mark.parametrize("bad", [NUL, HALF, "\\udfff", "\\uDbff\\uDbff", "\\udc00\\ud800"])
async def test_a_character_the_database_cannot_keep_is_refused_with_its_place(site: Site, bad: str):
    for body, pointer in UNKEEPABLE:
        faults = problem(await site.post((body % bad).encode()), 422, "validation_failed")
        assert faults == {pointer: "contains U+0000 or half of a surrogate pair, which cannot be kept"}


@pytest.mark.parametrize("bad", [NUL, HALF])
async def test_the_same_in_a_key(site: Site, bad: str):
    for place in ("payload", "metadata"):
        body = f'{{"type":"email","{place}":{{"a{bad}b":"c"}}}}'
        assert list(problem(await site.post(body.encode()), 422, "validation_failed")) == [
            f"/{place}/a{bad}b"
        ]
    body = f'{{"type":"email","a{bad}b":1}}'
    assert list(problem(await site.post(body.encode()), 422, "validation_failed")) == [f"/a{bad}b"]
    await still_serves(site)


async def test_a_body_of_a_million_faults_has_an_answer_of_a_hundred(site: Site):
    unknown: dict[str, Any] = {f"x{number}": 1 for number in range(2000)}
    assert len(problem(await site.post({"type": "email"} | unknown), 422, "validation_failed")) == 100
