"""How the answers of a server, and its silences, end an attempt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from calls import Job, call, result_of
from hypothesis import given, settings
from hypothesis import strategies as st

from jobyard.domain.job import MAX_DELAY_SECONDS
from jobyard.domain.lifecycle import Fail, Retry
from jobyard.handlers.http import _date
from web_server import always, answer, silence, web_server

TRY_AGAIN = [408, 425, 429, 500, 501, 502, 503, 504, 599]
FOR_GOOD = [
    300,
    301,
    302,
    303,
    304,
    307,
    308,
    400,
    401,
    403,
    404,
    405,
    409,
    410,
    413,
    422,
    424,
    426,
    451,
    499,
]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
async def test_any_2xx_is_what_is_expected_unless_the_payload_says_otherwise(status: int) -> None:
    async with web_server(always(answer(status))) as server:
        assert (await result_of(server.url))["status"] == status


@pytest.mark.parametrize("status", TRY_AGAIN)
async def test_a_status_that_may_change_is_tried_again(status: int) -> None:
    async with web_server(always(answer(status, b"not\nnow"))) as server:
        ended = await call(f"{server.url}/path?query")
    assert ended == Retry(None, f"{server.url} answered {status}, expected was 2xx: not now")


@pytest.mark.parametrize("status", FOR_GOOD)
async def test_any_other_status_ends_the_job_with_the_beginning_of_the_answer(status: int) -> None:
    async with web_server(
        always(answer(status, b"" if status == 304 else b"no\x1b[31m\xff such\r\nthing"))
    ) as server:
        ended = await call(server.url)
    assert isinstance(ended, Fail)
    assert ended.type == "UnexpectedStatus"
    said = "(no body)" if status == 304 else "no [31m\N{REPLACEMENT CHARACTER} such thing"
    assert ended.message.startswith(f"{server.url} answered {status}, expected was 2xx: {said}")
    assert ("redirects are not followed" in ended.message) == (status < 400)


async def test_an_error_quotes_no_more_than_the_beginning_of_a_long_body() -> None:
    async with web_server(always(answer(404, b"word " * 40_000))) as server:
        ended = await call(server.url)
    assert 500 < len(ended.message) < 600


@pytest.mark.parametrize(
    ("expect", "status", "is_expected"),
    [
        (404, 404, True),
        (404, 200, False),
        ("4xx", 404, True),
        ("4xx", 500, False),
        ([200, 404], 404, True),
        (["2xx", 503], 503, True),
        (["2xx", 503], 201, True),
        (["2xx", 503], 500, False),
        ("3xx", 302, True),
        (429, 429, True),
    ],
)
async def test_what_is_expected_succeeds_and_nothing_else(
    expect: object, status: int, is_expected: bool
) -> None:
    async with web_server(always(answer(status, b"x"))) as server:
        ended = await call(server.url, expect=expect)
    assert isinstance(ended, dict) == is_expected
    if not is_expected:
        assert (
            "expected was " + " or ".join(map(str, expect if isinstance(expect, list) else [expect]))
        ) in ended.message


# Retry-After


async def retried(status: int, *headers: str) -> float | None:
    async with web_server(always(answer(status, b"", *headers))) as server:
        ended = await call(server.url)
    assert isinstance(ended, Retry)
    return ended.after


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("said", "seconds"),
    [("0", 0), ("7", 7), ("120", 120), ("9" * 30, MAX_DELAY_SECONDS), ("9" * 5000, MAX_DELAY_SECONDS)],
)  # fmt: skip
async def test_retry_after_in_seconds_is_obeyed_within_what_a_job_can_wait(
    status: int, said: str, seconds: float
) -> None:
    assert await retried(status, f"Retry-After: {said}") == seconds


@pytest.mark.parametrize(
    ("then", "seconds"),
    [
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", 30),
        ("Wed Oct 21 07:28:30 2026", 30),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_DELAY_SECONDS),
    ],
)
async def test_retry_after_as_a_date_is_obeyed_by_the_clock_of_the_server(then: str, seconds: float) -> None:
    assert await retried(503, f"Retry-After: {then}", "Date: Wed, 21 Oct 2026 07:28:00 GMT") == seconds


async def test_retry_after_as_a_date_is_taken_by_our_clock_when_the_server_tells_no_time() -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    after = await retried(429, f"Retry-After: {then}")
    assert after is not None
    assert 3500 < after <= 3600


@pytest.mark.parametrize(
    "said",
    [
        "",
        "soon",
        "-5",
        "1.5",
        "1e3",
        "\u0663",
        "Wed, 99 Oct 2026 07:28:30 GMT",
        "0x10",
        "9" * 40 + " Jan 2026",
    ],
)
async def test_a_retry_after_that_is_neither_leaves_it_to_the_jobs_backoff(said: str) -> None:
    assert await retried(503, "Retry-After: " + said.encode().decode("latin-1")) is None


@pytest.mark.parametrize("status", [500, 502, 504, 408])
async def test_retry_after_counts_only_where_it_has_a_meaning(status: int) -> None:
    assert await retried(status, "Retry-After: 7") is None


@settings(deadline=None, max_examples=50)
@given(
    st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,12} [A-Z][a-z]{2} \d{1,9} \d\d:\d\d:\d\d [+-]?\w{1,12}")
)
def test_no_date_of_a_server_raises(text: str) -> None:
    date = _date(text)
    assert date is None or date.tzinfo


# Nothing whole came back


@pytest.mark.parametrize("raw", [b"", b"220 ready\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_an_answer_that_breaks_off_or_is_not_http_is_tried_again(raw: bytes) -> None:
    async with web_server(always(raw)) as server:
        ended = await call(server.url)
    assert ended == Retry(None, f"{server.url}: the answer broke off, or what came was not HTTP")


async def test_a_server_that_is_not_there_is_tried_again() -> None:
    async with web_server(silence) as server:
        pass
    ended = await call(server.url)
    assert isinstance(ended, Retry)
    assert ended.message.startswith(f"{server.url}: no connection (127.0.0.1: ")


async def test_a_server_that_is_too_slow_is_tried_again() -> None:
    async with web_server(silence) as server:
        ended = await call(server.url, timeoutSeconds=0.2)
    assert ended == Retry(None, f"{server.url}: no whole answer within 0.2 s")


# What may not be called


async def test_a_refused_address_ends_the_job_and_says_which_setting_would_let_it_through() -> None:
    ended = await call("http://10.1.2.3/path?q")
    assert ended == Fail(
        "http://10.1.2.3 is refused: 10.1.2.3 is not a public address (private); "
        "JOBYARD_OUTBOUND_ALLOW=10.1.2.3 would let it through",
        "AddressRefused",
    )


async def test_an_address_that_is_none_ends_the_job_and_points_at_it() -> None:
    ended = await call("ftp://example.com/", Job())
    assert ended == Fail("/url: only http:// and https:// addresses can be called", "InvalidCall")
