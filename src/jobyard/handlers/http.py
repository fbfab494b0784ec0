"""The built-in `http` handler: one job, one request through the guarded client. How an attempt ends:

- the answer's status is one that `expect` names (2xx unless it is given): the job succeeds with the answer as result;
- 408, 425, 429 or 5xx: tried again, with 429 and 503 not before their `Retry-After`;
- any other status: `Fail`, with the beginning of the answer; redirects too, as they are not followed;
- the payload is wrong, or the address is one that no request may go to: `Fail`, with nothing sent;
- no connection, an answer that breaks off or is not HTTP, or none within `timeoutSeconds`: tried again.

Every attempt of a job carries the job's id as Idempotency-Key, so a server can tell a repeat from a new request. What a
server repeats of the request's credentials stands as `***` in results and errors.
"""

import asyncio
import base64
import codecs
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Literal, Protocol
from urllib.parse import unquote_plus
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jobyard.domain.job import MAX_DELAY_SECONDS
from jobyard.domain.lifecycle import Fail, Retry
from jobyard.outgoing import AddressRefused, Answer, Client, InvalidAddress, Request, Unanswered

DEFAULT_TIMEOUT_SECONDS = 30.0
MAX_TIMEOUT_SECONDS = 600.0
MAX_URL_CHARS = 8192
MAX_HEADERS = 50
"""Headers of the caller's own, beside those that this module and the client write."""
MAX_HEADER_CHARS = 8192
"""One header's value: more than common servers take for all of them together."""
MAX_BODY_BYTES = 256 * 1024
"""Of an answer's body, what is read and kept; the rest is left unread."""
MAX_TOLD_CHARS = 500
"""Of an answer's body, what an error quotes."""
MIN_CREDENTIAL_CHARS = 4
"""Shorter values hide nothing, and would be found everywhere."""

USER_AGENT = f"jobyard/{version('jobyard')}"

_TRY_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
_SAYS_WHEN = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?")
_CLIENTS_OWN = re.compile(
    r"host|content-length|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|proxy-.*",
    re.IGNORECASE,
)
_CREDENTIAL = re.compile(
    r"key|.*(?:auth|authorization|cookie|apikey|accesskey|secret|password|sig|signature|token)"
)
# What JSON writes as six characters is not text here: it would make a result six times as long as the body it keeps.
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")

Code = Annotated[int, Meta(ge=200, le=599)]
CodeClass = Annotated[str, Meta(pattern="^[2-5]xx$")]


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The payload of an `http` job. Only `url` is required.

    `method` is GET, or POST when there is a body: `body` is sent as it is, `json` as JSON.
    """

    url: Annotated[str, Meta(max_length=MAX_URL_CHARS)]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    body: str | None = None
    json: msgspec.Raw | UnsetType = UNSET
    expect: Code | CodeClass | Annotated[list[Code | CodeClass], Meta(min_length=1, max_length=50)] = "2xx"
    timeout_seconds: Annotated[float, Meta(gt=0, le=MAX_TIMEOUT_SECONDS)] = DEFAULT_TIMEOUT_SECONDS


class Job(Protocol):
    """What this handler needs to know about the attempt it runs in."""

    @property
    def job_id(self) -> UUID: ...

    @property
    def traceparent(self) -> str | None: ...


class _InvalidCall(Exception):
    """The payload cannot be a request. The text begins with a pointer to the fault, and quotes no value."""


class Caller:
    """Makes the calls of one worker. What it keeps of an answer stays below `max_result_bytes` in any spelling."""

    def __init__(self, client: Client, max_result_bytes: int) -> None:
        self._client = client
        self._max_body_bytes = min(MAX_BODY_BYTES, max_result_bytes // 4)
        self._max_header_chars = max_result_bytes // 16

    async def call(self, payload: Call, ctx: Job) -> dict[str, object] | Retry | Fail:
        """Send the request: `{"status", "headers", "body", "encoding", "truncated", "durationMs"}` when the answer is
        an expected one."""
        clock = asyncio.get_running_loop()
        began = clock.time()
        try:
            answer = await self._client.send(
                _request(payload, ctx), seconds=payload.timeout_seconds, max_body_bytes=self._max_body_bytes
            )
        except _InvalidCall as fault:
            return Fail(str(fault), "InvalidCall")
        except InvalidAddress as fault:
            return Fail(f"/url: {fault}", "InvalidCall")
        except AddressRefused as refused:
            return Fail(str(refused), "AddressRefused")
        except Unanswered as nothing:
            return Retry(message=str(nothing))
        answer = _without(_credentials(payload), answer)
        if not _is_expected(answer.status, payload.expect):
            return _unexpected(payload, answer)
        return self._result(answer) | {"durationMs": round((clock.time() - began) * 1000)}

    def _result(self, answer: Answer) -> dict[str, object]:
        headers, all_kept = _joined(answer.headers, self._max_header_chars)
        text = _text(answer)
        body = base64.b64encode(answer.body).decode() if text is None else text
        return {
            "status": answer.status,
            "headers": headers,
            "body": body,
            "encoding": "base64" if text is None else "text",
            "truncated": answer.truncated or not all_kept,
        }


def _request(call: Call, job: Job) -> Request:
    given = {name.lower() for name in call.headers}
    if len(given) < len(call.headers):
        raise _InvalidCall("/headers: one name stands there twice, in upper and lower case")
    content, content_type = _content(call)
    ours = {
        "User-Agent": USER_AGENT,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Idempotency-Key": str(job.job_id),
        "traceparent": job.traceparent,
        "Content-Type": content_type,
    }
    headers = {name: value for name, value in ours.items() if value is not None and name.lower() not in given}
    method = call.method or ("GET" if content is None else "POST")
    return Request(method, call.url, headers | _checked(call.headers), content)


def _content(call: Call) -> tuple[bytes | None, str | None]:
    if not isinstance(call.json, UnsetType):
        if call.body is not None:
            raise _InvalidCall("/json: stands beside /body; give one of them")
        return bytes(call.json), "application/json"
    if call.body is not None:
        return call.body.encode(), "text/plain; charset=utf-8"
    return None, None


def _checked(headers: dict[str, str]) -> dict[str, str]:
    """A line break in a header would be another header, and some headers would be another request."""
    if len(headers) > MAX_HEADERS:
        raise _InvalidCall(f"/headers: more than {MAX_HEADERS} headers")
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise _InvalidCall(f"/headers: {name[:100]!r} is not the name of a header")
        if _CLIENTS_OWN.fullmatch(name):
            raise _InvalidCall(f"/headers/{name}: is not a header that can be set here")
        if len(value) > MAX_HEADER_CHARS or not _VALUE.fullmatch(value):
            raise _InvalidCall(
                f"/headers/{name}: expected at most {MAX_HEADER_CHARS} printable ASCII characters, no blank at either end"
            )
    return headers


def _is_expected(status: int, expect: int | str | Sequence[int | str]) -> bool:
    expected = _listed(expect)
    return str(status) in expected or f"{status // 100}xx" in expected


def _listed(expect: int | str | Sequence[int | str]) -> list[str]:
    return [str(expect)] if isinstance(expect, int | str) else list(map(str, expect))


def _unexpected(call: Call, answer: Answer) -> Retry | Fail:
    expected = " or ".join(_listed(call.expect))
    message = f"{answer.origin} answered {answer.status}, expected was {expected}: {_beginning(answer)}"
    if answer.status in _TRY_AGAIN or answer.status >= 500:
        return Retry(_retry_after(answer), message)
    if 300 <= answer.status < 400:
        message += " (redirects are not followed)"
    return Fail(message, "UnexpectedStatus")


def _beginning(answer: Answer) -> str:
    """The start of the body as one printable line."""
    text = answer.body[: 4 * MAX_TOLD_CHARS].decode(errors="replace")
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())[:MAX_TOLD_CHARS] or "(no body)"


def _retry_after(answer: Answer) -> float | None:
    """Seconds until the server wants to be asked again, if it says so in one of the two forms of the standard."""
    said = answer.header("retry-after")
    if said is None or answer.status not in _SAYS_WHEN:
        return None
    if re.fullmatch("[0-9]+", said):
        return min(float(said), MAX_DELAY_SECONDS)
    if (then := _date(said)) is None:
        return None
    # By the server's own clock where it tells the time: ours may differ.
    now = _date(answer.header("date") or "") or datetime.now(UTC)
    return min(max(0.0, (then - now).total_seconds()), MAX_DELAY_SECONDS)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _joined(headers: list[tuple[str, str]], limit: int) -> tuple[dict[str, str], bool]:
    """Header values by name, as far as they fit, and whether all did. Cookies are not kept: they are credentials."""
    joined: dict[str, str] = {}
    for name, value in headers:
        limit -= len(name) + len(value)
        if limit < 0:
            return joined, False
        if name != "set-cookie":
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined, True


def _text(answer: Answer) -> str | None:
    """The body as text, or None where it is not. The cut may have gone through a character, which is then left out."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(answer.body, final=not answer.truncated)
    except UnicodeDecodeError:
        return None
    return None if _NOT_TEXT.search(text) else text


def _credentials(call: Call) -> list[str]:
    """What the request says in secret, longest first, so that none is left in part."""
    query = [pair.partition("=")[::2] for pair in re.split("[&#]", call.url.partition("?")[2])]
    named = [*call.headers.items(), *query, *((name, unquote_plus(value)) for name, value in query)]
    values = [value for name, value in named if _CREDENTIAL.fullmatch(re.sub("[-_.]", "", name.lower()))]
    bare = [value.rpartition(" ")[2] for value in values]  # "Bearer ..." without its first word
    return sorted({v for v in values + bare if len(v) >= MIN_CREDENTIAL_CHARS}, key=len, reverse=True)


def _without(credentials: list[str], answer: Answer) -> Answer:
    if not credentials:
        return answer
    secret = re.compile("|".join(map(re.escape, credentials)))
    headers = [(name, secret.sub("***", value)) for name, value in answer.headers]
    body = re.sub(secret.pattern.encode(), b"***", answer.body)
    return replace(answer, headers=headers, body=body)
