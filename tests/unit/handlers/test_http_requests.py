"""What a payload makes the handler send, and what makes it send nothing."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec
import pytest
from calls import Job, call, parsed, result_of
from hypothesis import given, settings
from hypothesis import strategies as st

from jobyard.domain.lifecycle import Fail
from jobyard.handlers.http import _CLIENTS_OWN, Call, _InvalidCall, _request
from web_server import Received, always, answer, web_server

SECRET = "s3cret-w0rd"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def received(job: Job | None = None, **payload: Any) -> Received:
    async with web_server(always(answer())) as server:
        await result_of(f"{server.url}/path?q=1", job=job, **payload)
    [request] = server.requests
    return request


async def test_an_address_alone_is_a_get() -> None:
    job = Job(traceparent=TRACE)
    request = await received(job)
    assert (request.method, request.target, request.body) == ("GET", "/path?q=1", b"")
    sent = {name: value for name, value in request.headers if name != "Host"}
    assert sent == {
        "User-Agent": f"jobyard/{version('jobyard')}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Idempotency-Key": str(job.job_id),
        "traceparent": TRACE,
        "Connection": "close",
    }


async def test_a_job_without_a_trace_sends_none() -> None:
    assert (await received()).header("traceparent") is None


async def test_a_body_is_posted_as_text() -> None:
    request = await received(body="sch\N{LATIN SMALL LETTER O WITH DIAERESIS}n")
    assert (request.method, request.body) == ("POST", "sch\N{LATIN SMALL LETTER O WITH DIAERESIS}n".encode())
    assert request.header("Content-Type") == "text/plain; charset=utf-8"


async def test_an_empty_body_is_a_body() -> None:
    request = await received(body="")
    assert (request.method, request.header("Content-Length")) == ("POST", "0")


@pytest.mark.parametrize("text", ['{"b": 1.10,  "a": 12345678901234567890}', "null", "[]", '"x"', "0"])
async def test_json_is_posted_in_the_very_bytes_of_the_payload(text: str) -> None:
    request = await received(json=msgspec.Raw(text.encode()))
    assert (request.method, request.body.decode()) == ("POST", text)
    assert request.header("Content-Type") == "application/json"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_the_method_can_be_chosen_with_and_without_a_body(method: str) -> None:
    assert (await received(method=method)).method == method
    assert (await received(method=method, body="x")).body == b"x"


async def test_headers_of_the_payload_are_sent_and_come_before_ours() -> None:
    own = {
        "X-Own": "a, b",
        "idempotency-key": "mine",
        "USER-AGENT": "me",
        "content-type": "text/csv",
        "Empty": "",
    }
    request = await received(headers=own, body="a;b")
    for name, value in own.items():
        assert request.header(name) == value


# Payloads that are none


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        ({"url": None}, r"\$\.url"),
        ({"url": 5}, r"\$\.url"),
        ({"url": "http://h/" + "x" * 8192}, r"\$\.url"),
        ({"method": "get"}, r"\$\.method"),
        ({"method": "CONNECT"}, r"\$\.method"),
        ({"method": "TRACE"}, r"\$\.method"),
        ({"method": "GET / HTTP/1.1\r\nX: y"}, r"\$\.method"),
        ({"headers": {"A": 1}}, r"\$\.headers"),
        ({"headers": ["A: b"]}, r"\$\.headers"),
        ({"body": {"a": 1}}, r"\$\.body"),
        ({"expect": 100}, r"\$\.expect"),
        ({"expect": 600}, r"\$\.expect"),
        ({"expect": "200"}, r"\$\.expect"),
        ({"expect": "1xx"}, r"\$\.expect"),
        ({"expect": "2XX"}, r"\$\.expect"),
        ({"expect": []}, r"\$\.expect"),
        ({"expect": [200, "no"]}, r"\$\.expect"),
        ({"expect": True}, r"\$\.expect"),
        ({"timeoutSeconds": 0}, r"\$\.timeoutSeconds"),
        ({"timeoutSeconds": -1}, r"\$\.timeoutSeconds"),
        ({"timeoutSeconds": 601}, r"\$\.timeoutSeconds"),
        ({"timeoutSeconds": "5"}, r"\$\.timeoutSeconds"),
        ({"timeout_seconds": 5}, "timeout_seconds"),
        ({"uri": "x"}, "uri"),
    ],
)
def test_a_payload_of_another_shape_is_not_a_call(payload: dict[str, Any], pointer: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=pointer):
        parsed({"url": "http://h/"} | payload)


def test_the_address_is_the_one_thing_that_must_be_given() -> None:
    with pytest.raises(msgspec.ValidationError, match="missing required field `url`"):
        parsed({})
    assert parsed({"url": "http://h/"}).timeout_seconds == 30


BAD_HEADERS = [
    ({"X": "a\r\nY: b"}, "/headers/X"),
    ({"X": "a\nY: b"}, "/headers/X"),
    ({"X": "a\rb"}, "/headers/X"),
    ({"Authorization": f"Bearer {SECRET}\n"}, "/headers/Authorization"),
    ({"X": "a\0b"}, "/headers/X"),
    ({"X": "a\x7f"}, "/headers/X"),
    ({"X": "\N{SNOWMAN}"}, "/headers/X"),
    ({"X": "\x85"}, "/headers/X"),
    ({"X": " a"}, "/headers/X"),
    ({"X": "a\t"}, "/headers/X"),
    ({"X": "a" * 8193}, "/headers/X"),
    ({"X\r\nY": "b"}, "/headers"),
    ({"X: a\r\nY": "b"}, "/headers"),
    ({"X Y": "b"}, "/headers"),
    ({"X:": "b"}, "/headers"),
    ({"": "b"}, "/headers"),
    ({"\N{SNOWMAN}": "b"}, "/headers"),
    ({"x" * 101: "b"}, "/headers"),
    ({"Host": "example.com"}, "/headers/Host"),
    ({"hOST": "example.com"}, "/headers/hOST"),
    ({"Content-Length": "5"}, "/headers/Content-Length"),
    ({"Transfer-Encoding": "chunked"}, "/headers/Transfer-Encoding"),
    ({"Connection": "keep-alive"}, "/headers/Connection"),
    ({"Keep-Alive": "5"}, "/headers/Keep-Alive"),
    ({"TE": "trailers"}, "/headers/TE"),
    ({"Trailer": "X"}, "/headers/Trailer"),
    ({"Upgrade": "h2c"}, "/headers/Upgrade"),
    ({"Expect": "100-continue"}, "/headers/Expect"),
    ({"Proxy-Authorization": "Basic x"}, "/headers/Proxy-Authorization"),
    ({"X": "1", "x": "2"}, "/headers"),
    ({f"X-{n}": "" for n in range(51)}, "/headers"),
]


@pytest.mark.parametrize(("headers", "pointer"), BAD_HEADERS)
async def test_a_header_that_cannot_be_sent_ends_the_job_with_nothing_sent(
    headers: dict[str, str], pointer: str
) -> None:
    async with web_server(always(answer())) as server:
        ended = await call(server.url, headers=headers)
    assert isinstance(ended, Fail)
    assert ended.type == "InvalidCall"
    assert ended.message.startswith(f"{pointer}: ")
    assert SECRET not in ended.message
    assert server.connections == 0


async def test_a_body_beside_json_ends_the_job_with_nothing_sent() -> None:
    async with web_server(always(answer())) as server:
        ended = await call(server.url, body="x", json=None)
    assert ended == Fail("/json: stands beside /body; give one of them", "InvalidCall")
    assert server.connections == 0


NASTY = st.text(st.sampled_from("ab-:\r\n\t\0 \x85\u2028\xff\u0100\"'"), max_size=20)


@settings(deadline=None)
@given(NASTY, NASTY)
def test_no_header_of_a_payload_is_more_than_one_line_of_the_request(name: str, value: str) -> None:
    try:
        request = _request(Call(url="http://h/", headers={name: value}), Job())
    except _InvalidCall:
        return
    assert not _CLIENTS_OWN.fullmatch(name)
    for held in (name, request.headers[name]):
        assert held.isascii()
        assert not set(held) & set("\r\n\0")
    assert name.strip() == name
    assert ":" not in name
