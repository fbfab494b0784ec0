"""One request out, one answer back, within one deadline, to an address that the guard has judged.

A name is looked up once, all its addresses are judged, and the connection goes to one of these very addresses; the
name itself is only the Host header and the name that TLS verifies. So a name that turns private after the check has
nothing left to turn. Every request has a connection of its own, so none reaches a server by an older judgement.
Redirects, cookies and the proxies of the environment do not exist at this level.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx

from jobyard.outgoing.address import host_of, literal, read_url, shown
from jobyard.outgoing.errors import AddressRefused, Unanswered
from jobyard.outgoing.guard import METADATA, Address, Guard, Network
from jobyard.outgoing.lookup import Resolver

CONNECT_SECONDS = 5.0
"""Until TCP and TLS are up, for each address of a name: one that is silent leaves time for the next."""

Trace = Callable[[str, Mapping[str, Any]], Awaitable[None]]
LookUp = Callable[[str], Awaitable[Sequence[Address]]]


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. Host, Content-Length and Connection are the client's to say."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from `origin` (scheme, host and port): header names in lower case, the body as it was sent,
    `truncated` where more would have come."""

    origin: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    truncated: bool

    def header(self, name: str) -> str | None:
        return next((value for held, value in self.headers if held == name), None)


class Client:
    """Sends requests to public addresses, and to the ranges in `allow`.

    Certificates are verified against the system's authorities (`SSL_CERT_FILE` names others).
    """

    def __init__(self, allow: Sequence[Network] = (), look_up: LookUp | None = None) -> None:
        self._guard = Guard(allow)
        self._look_up = look_up or Resolver().look_up

    async def send(self, request: Request, *, seconds: float, max_body_bytes: int) -> Answer:
        """The answer, whatever its status, with at most so many bytes of its body. `seconds` bound everything: look-up,
        connection, sending and reading. Raises OutgoingError."""
        url = read_url(request.url)
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._judged(url)
                return await self._exchange(url, addresses, request, max_body_bytes)
        except TimeoutError:
            raise Unanswered(f"{shown(url)}: no whole answer within {seconds:g} s") from None

    async def _judged(self, url: httpx.URL) -> Sequence[Address]:
        """The addresses behind the host. One that is refused refuses them all: which would be taken is chance."""
        host = host_of(url)
        literally = literal(host)
        try:
            addresses = [literally] if literally else await self._look_up(host)
        except OSError as trouble:
            raise Unanswered(f"{shown(url)}: the name cannot be resolved ({_root(trouble)})") from None
        for address in addresses:
            if kind := self._guard.refusal(address):
                raise AddressRefused(
                    f"{shown(url)} is refused: {address} is not a public address ({kind}){_way_through(address, kind)}"
                )
        return addresses

    async def _exchange(
        self, url: httpx.URL, addresses: Sequence[Address], request: Request, max_body_bytes: int
    ) -> Answer:
        trouble = "the name has no address"
        for address in addresses:
            try:
                return await self._ask(url, address, request, max_body_bytes)
            except httpx.ConnectTimeout:
                trouble = f"{address} took longer than {CONNECT_SECONDS:g} s"
            except httpx.ConnectError as failed:
                trouble = f"{address}: {_root(failed)}"
            except httpx.ProtocolError:  # its own words quote what was sent or received
                raise Unanswered(f"{shown(url)}: the answer broke off, or what came was not HTTP") from None
            except (httpx.TransportError, OSError) as lost:
                raise Unanswered(f"{shown(url)}: the connection was lost ({_root(lost)})") from None
        raise Unanswered(f"{shown(url)}: no connection ({trouble})")

    async def _ask(self, url: httpx.URL, address: Address, request: Request, max_body_bytes: int) -> Answer:
        async with (
            _closing_streams() as note_stream,
            httpx.AsyncHTTPTransport(verify=self._tls) as connection,
            aclosing(
                await connection.handle_async_request(_addressed(request, url, address, note_stream))
            ) as answer,
        ):
            return await _read(shown(url), answer, max_body_bytes)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()


def _addressed(request: Request, url: httpx.URL, address: Address, trace: Trace) -> httpx.Request:
    """The request as it goes to this very address, with the name where a server looks for it."""
    return httpx.Request(
        request.method,
        url.copy_with(host=str(address)),
        headers={**request.headers, "Host": url.netloc.decode("ascii"), "Connection": "close"},
        content=request.content,
        extensions={
            "sni_hostname": host_of(url),
            "timeout": {"connect": CONNECT_SECONDS},
            "trace": trace,
        },
    )


@asynccontextmanager
async def _closing_streams() -> AsyncGenerator[Trace]:
    """Closes at the end what was connected: httpcore forgets a connection whose TLS handshake is cancelled."""
    streams: list[Any] = []

    async def note_stream(event: str, facts: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            streams.append(facts["return_value"])

    try:
        yield note_stream
    finally:
        for stream in streams:
            await stream.aclose()


def _way_through(address: Address, kind: str) -> str:
    """How the operator would allow it; nobody is advised to open the keys of the machine to jobs."""
    return "" if kind == METADATA else f"; JOBYARD_OUTBOUND_ALLOW={address} would let it through"


async def _read(origin: str, answer: httpx.Response, max_body_bytes: int) -> Answer:
    body = bytearray()
    async for piece in answer.aiter_raw():
        body += piece
        if len(body) > max_body_bytes:
            break
    headers = [(name.decode("ascii").lower(), value.decode("latin-1")) for name, value in answer.headers.raw]
    return Answer(
        origin, answer.status_code, headers, bytes(body[:max_body_bytes]), len(body) > max_body_bytes
    )


def _root(error: BaseException) -> str:
    """What the system said, below the words of the libraries above it."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
