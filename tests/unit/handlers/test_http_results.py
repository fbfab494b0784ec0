"""What is kept of an answer, and what is not."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from calls import MAX_RESULT_BYTES, call, result_of

from jobyard.domain.lifecycle import Fail, Retry, Succeeded
from jobyard.worker.attempt import outcome_of
from web_server import Received, always, answer, web_server

SECRET = "s3cret-w0rd/+="


async def test_a_result_is_the_answer_and_how_long_it_took() -> None:
    async with web_server(
        always(answer(201, b'{"id": 7}', "Content-Type: application/json", "X-A: 1"))
    ) as server:
        result = await result_of(server.url)
    assert isinstance(result.pop("durationMs"), int)
    assert result == {
        "status": 201,
        "headers": {"content-length": "9", "content-type": "application/json", "x-a": "1"},
        "body": '{"id": 7}',
        "encoding": "text",
        "truncated": False,
    }


async def test_the_duration_is_that_of_the_whole_call() -> None:
    async def slow(received: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        writer.write(answer())

    async with web_server(slow) as server:
        assert (await result_of(server.url))["durationMs"] >= 100


async def test_headers_that_come_more_than_once_are_joined_and_cookies_left_out() -> None:
    async with web_server(
        always(answer(200, b"", "X-A: 1", "x-a: 2", f"Set-Cookie: sid={SECRET}"))
    ) as server:
        result = await result_of(server.url)
    assert result["headers"] == {"content-length": "0", "x-a": "1, 2"}


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        ("gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n\t\r\n".encode(), "text"),
        (b"", "text"),
        (b"\xff\xfe", "base64"),
        (b"half of a letter \xc3", "base64"),
        (b"a\0b", "base64"),
        (b"\x1b[31m", "base64"),
        (b"\x0b", "base64"),
        (b"\xed\xa0\x80", "base64"),
    ],
)
async def test_a_body_that_is_not_text_is_kept_as_base64(body: bytes, encoding: str) -> None:
    async with web_server(always(answer(200, body))) as server:
        result = await result_of(server.url)
    assert result["encoding"] == encoding
    kept = result["body"].encode() if encoding == "text" else base64.b64decode(result["body"])
    assert kept == body


async def test_a_long_text_is_cut_between_two_letters_and_says_so() -> None:
    body = b"x" + "\N{SNOWMAN}".encode() * 100_000
    async with web_server(always(answer(200, body))) as server:
        result = await result_of(server.url)
    assert (result["encoding"], result["truncated"]) == ("text", True)
    assert 256 * 1024 - 3 < len(result["body"].encode()) <= 256 * 1024
    assert body.decode().startswith(result["body"])


async def test_many_headers_are_cut_and_say_so() -> None:
    many = [f"X-{n}: {'v' * 90}" for n in range(900)]
    async with web_server(always(answer(200, b"whole", *many))) as server:
        result = await result_of(server.url)
    assert (result["body"], result["truncated"]) == ("whole", True)
    assert 60_000 < sum(len(name) + len(value) for name, value in result["headers"].items()) <= 64 * 1024


WORST = {
    "quotes": b'"\\' * 200_000,
    "line ends": b"\r\n" * 200_000,
    "control characters": b"\x01\x1f\x00" * 200_000,
    "bytes": b"\xff" * 400_000,
    "letters": "\N{SNOWMAN}".encode() * 200_000,
}


@pytest.mark.parametrize("max_result_bytes", [1024, MAX_RESULT_BYTES])
@pytest.mark.parametrize("body", WORST.values(), ids=WORST)
async def test_no_answer_is_too_large_to_be_kept(body: bytes, max_result_bytes: int) -> None:
    controls = [f"X-{n}: {chr(1) * 90}" for n in range(900)]
    async with web_server(always(answer(200, body, *controls))) as server:
        result = await result_of(server.url, max_result_bytes=max_result_bytes)
    outcome = outcome_of(result, max_result_bytes)
    assert isinstance(outcome, Succeeded)
    assert outcome.result is not None
    assert len(outcome.result) <= max_result_bytes
    assert json.loads(outcome.result) == result


def echo(status: int):
    """Tells the request, the query decoded, and the last word of each header by itself."""

    async def reply(received: Received, writer: asyncio.StreamWriter) -> None:
        wanted = {"authorization", "x-api-key", "cookie", "x-plain"}
        told = [f"Echo-{name}: {value}" for name, value in received.headers if name.lower() in wanted]
        words = " and ".join(value.split(" ")[-1] for _, value in received.headers)
        body = received.raw + f"{unquote(received.target)}\n{words}".encode()
        writer.write(answer(status, body, *told))

    return reply


CREDENTIALS: list[dict[str, Any]] = [
    {"headers": {"Authorization": SECRET}},
    {"headers": {"authorization": f"Bearer {SECRET}"}},
    {"headers": {"X-Api-Key": SECRET}},
    {"headers": {"X-Webhook-Signature": SECRET}},
    {"headers": {"X_AUTH_TOKEN": SECRET}},
    {"headers": {"Cookie": SECRET}},
    {"query": "token=" + SECRET},
    {"query": "a=b&api_key=" + SECRET + "#top"},
    {"query": "sig=s3cret-w0rd%2F%2B%3D"},
]


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("given", CREDENTIALS)
async def test_a_credential_that_the_server_repeats_stands_in_no_result_and_no_error(
    given: dict[str, Any], status: int
) -> None:
    async with web_server(echo(status)) as server:
        ended = await call(f"{server.url}/?{given.get('query', '')}", headers=given.get("headers", {}))
    assert "s3cret-w0rd" in server.requests[0].raw.decode()
    assert isinstance(ended, dict if status == 200 else Fail if status == 404 else Retry)
    kept = msgspec.json.encode(ended).decode()
    assert "***" in kept
    assert "s3cret" not in kept


async def test_what_is_no_credential_is_kept_as_it_came() -> None:
    async with web_server(echo(200)) as server:
        url = f"{server.url}/?keyword=monkey&design=token&page=2&key=abc"
        result = await result_of(url, headers={"X-Plain": "abcdef", "Idempotency-Key": "my-own-key"})
    for kept in ("keyword=monkey", "design=token", "page=2", "key=abc", "abcdef", "my-own-key"):
        assert kept in result["body"]
