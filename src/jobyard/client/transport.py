"""One request: send it, again where that is safe, and turn what came back into a value or an error."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from jobyard.client.errors import ApiError, ClientError, NotJobyard, ServerUnreachable
from jobyard.client.shapes import Problem

T = TypeVar("T")

NOT_MODIFIED = 304
PASSING_STATUSES = frozenset({429, 502, 503, 504})
SHORTEST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
ANSWER_SECONDS = 30.0
CONNECT_SECONDS = 5.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")

OnRetry = Callable[[ClientError, float], None]
OnRecovery = Callable[[], None]


class Transport:
    """A server's address, its key, and the patience to try again for `retry_seconds` what is safe to repeat."""

    def __init__(
        self,
        url: str,
        key: str | None,
        retry_seconds: float,
        on_retry: OnRetry | None,
        on_recovery: OnRecovery | None,
        answer_seconds: float,
    ) -> None:
        self.url = _without_password(url)
        self._answer_seconds = answer_seconds
        self._retry_seconds = retry_seconds
        self._on_retry = on_retry
        self._on_recovery = on_recovery
        self._http = _connect(url, key)

    def close(self) -> None:
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        wait: int = 0,
    ) -> httpx.Response:
        """The successful answer, or 304 to who asked for what is newer. Raises ApiError, NotJobyard or ServerUnreachable when patience is at its end."""
        request = self._http.build_request(
            method, path, content=content, headers=headers, params=params, timeout=self._timeout(wait)
        )
        until = time.monotonic() + (self._retry_seconds if repeatable else 0)
        for tries, pause in enumerate(_growing_pauses()):
            try:
                response = self._once(request)
            except (ApiError, ServerUnreachable) as failure:
                self._wait_or_raise(failure, pause, until)
            else:
                if tries and self._on_recovery is not None:
                    self._on_recovery()
                return response
        raise AssertionError("pauses never end")

    def _once(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self._http.send(request)
        except httpx.RequestError as error:
            raise _unreachable(self.url, error) from None
        if response.is_success or response.status_code == NOT_MODIFIED:
            return response
        raise self._refusal(response)

    def _wait_or_raise(self, failure: ApiError | ServerUnreachable, pause: float, until: float) -> None:
        """Waits as long as the server asked, or as the pauses grow; raises what will not pass, or not in time."""
        if isinstance(failure, ApiError):
            pause = pause if failure.retry_after is None else max(failure.retry_after, SHORTEST_PAUSE_SECONDS)
        passes = not isinstance(failure, ApiError) or failure.status in PASSING_STATUSES
        if not passes or time.monotonic() + pause > until:
            raise failure
        if self._on_retry is not None:
            self._on_retry(failure, pause)
        time.sleep(pause)

    def _refusal(self, response: httpx.Response) -> ClientError:
        try:
            problem = msgspec.json.decode(response.content, type=Problem)
        except (ValueError, RecursionError):
            if response.status_code < 500 and response.status_code not in (413, 429):
                return NotJobyard(self.url, _description(response))
            # A gateway's own page: no contract, but the status tells enough.
            problem = Problem(code=f"http_{response.status_code}", title=response.reason_phrase)
        return ApiError(response.status_code, problem, _retry_after(response))

    def read(self, response: httpx.Response, shape: type[T]) -> T:
        """The body as `shape`; raises NotJobyard where it is something else."""
        try:
            return msgspec.json.decode(response.content, type=shape)
        except (ValueError, RecursionError):
            raise NotJobyard(self.url, _description(response)) from None

    def decode(self, body: bytes, shape: type[T]) -> T:
        """A part of an answer as `shape`; raises NotJobyard where it is something else."""
        try:
            return msgspec.json.decode(body, type=shape)
        except (ValueError, RecursionError) as error:
            raise NotJobyard(self.url, f"no {shape.__name__}: {error}") from None

    def _timeout(self, wait: int) -> httpx.Timeout:
        return httpx.Timeout(
            self._answer_seconds,
            read=self._answer_seconds + wait,
            connect=min(CONNECT_SECONDS, self._answer_seconds),
        )


def _connect(url: str, key: str | None) -> httpx.Client:
    """Raises ValueError, without the value: both may hold a secret."""
    if key is not None and not is_header_text(key):
        raise ValueError("the key may hold printable ASCII characters only")
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
        # No proxy stands between a machine and itself, whatever the environment says.
        return httpx.Client(
            base_url=url,
            auth=_bearer(key),
            headers={"Accept": "application/json"},
            trust_env=parts.hostname not in LOOPBACK,
        )
    except (ValueError, httpx.InvalidURL):
        raise ValueError("the address of the server must be one like http://localhost:3000") from None


def is_header_text(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _bearer(key: str | None) -> Any:
    """As httpx's `auth`, because a plain header would lose against a password in the address."""
    if key is None:
        return None

    def sign(request: httpx.Request) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {key}"
        return request

    return sign


def _growing_pauses() -> Iterator[float]:
    longest = 2 * SHORTEST_PAUSE_SECONDS
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(2 * longest, LONGEST_PAUSE_SECONDS)


def _retry_after(response: httpx.Response) -> float | None:
    """In seconds. Its other form, a date, would have us trust two clocks; it counts as not given."""
    given = response.headers.get("Retry-After", "")
    return float(given) if given.isascii() and given.isdigit() else None


def _unreachable(url: str, error: httpx.RequestError) -> ServerUnreachable:
    never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    because = (
        "no answer in time"
        if isinstance(error, httpx.TimeoutException)
        else str(error) or type(error).__name__
    )
    return ServerUnreachable(url, because, in_doubt=not never_sent)


def _description(response: httpx.Response) -> str:
    kind = response.headers.get("Content-Type", "no content type")
    return f"status {response.status_code}, {kind}"


def _without_password(url: str) -> str:
    """For messages."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the address given"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
