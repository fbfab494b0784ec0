"""What can be read from a request's head."""

from __future__ import annotations

from typing import Any

import pytest

from jobyard.api.exchange import Request


def request(**headers: str) -> Request:
    async def receive() -> dict[str, Any]:
        raise AssertionError("the head is enough")

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {"type": "http", "method": "GET", "path": "/", "headers": pairs, "query_string": b""}, receive
    )


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=5", 5),
        ("WAIT = 5", 5),
        ('wait="5"', 5),
        ("respond-async, wait=10; foo=bar", 10),
        ("wait=60", 60),
        ("wait=61", 60),
        ("wait=999999999", 60),
        ("wait=9999999999", 0),
        ("wait=0", 0),
        ("wait=-5", 0),
        ("wait=1.5", 0),
        ("wait=5x", 0),
        ("await=5", 0),
        ("x-wait=5", 0),
        ("", 0),
    ],
)
def test_the_seconds_to_wait(prefer: str, seconds: int):
    assert request(prefer=prefer).wait_seconds() == seconds


def test_no_preference_is_no_wait():
    assert request().wait_seconds() == 0
