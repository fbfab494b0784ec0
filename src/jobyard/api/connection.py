"""One connection of a client: what it may send, how much, and how slowly.

uvicorn's protocol bounds none of it. What is wrong below the application is answered as everything else is, with a
problem, and in its turn.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from jobyard.api.edge import refusing
from jobyard.api.problems import BadRequest, HeadersTooLarge, Refusal, TooSlow, UriTooLong
from jobyard.config import Settings
from jobyard.domain.errors import JobyardError, Overloaded

VERSIONS = ("1.1", "1.0")
FRAME_BYTES_A_HEADER = 4
"""Colon, blank and the end of the line."""

NO_SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "path": "",
    "query_string": b"",
    "http_version": "1.1",
    "headers": [],
}
"""Of what is refused unread."""


class Connection(HttpToolsProtocol):
    """`look` must be called now and then: it cuts whoever is too slow. No timer is set for each request."""

    def __init__(
        self,
        settings: Settings,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings = settings
        self._fruitless = 0
        """Bytes since the last that became a head or a body: of a head that goes on, of trailers, of blank lines."""
        self._head_since: float | None = None
        self._unread_since: float | None = None
        self._in_body = False
        self._declines = False
        self._refusal: JobyardError | None = None
        self._refused = False

    # What arrives

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._head_since = self.loop.time()
        if len(self.connections) > self._settings.max_connections:
            self._refuse(Overloaded("too many connections"), more=False)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._fruitless += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(self._refusal or BadRequest(_words_of(error)))
        else:
            if self._fruitless > self._settings.max_header_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._head_since = self.loop.time()
        if len(self.pipeline) >= self._settings.max_pipelined:
            self._stop(
                BadRequest(f"more than {self._settings.max_pipelined} requests ahead of their answers")
            )

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._settings.max_url_bytes:
            self._stop(UriTooLong(f"the address is longer than {self._settings.max_url_bytes} bytes"))

    def on_headers_complete(self) -> None:
        self._require_sane_head()
        self._declines = self.parser.should_upgrade()
        if not self._declines:
            super().on_headers_complete()
            self.headers = []  # for trailers: what comes behind the head must not add to it
        self._unset_keepalive_if_required()  # an answer may have set it since the head began
        self._fruitless = 0
        self._head_since = None
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._fruitless = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._fruitless = 0
        self._in_body = False
        if not self._declines:
            super().on_message_complete()

    def _require_sane_head(self) -> None:
        size, version = len(self.url), self.parser.get_http_version()
        for name, value in self.headers:
            size += len(name) + len(value) + FRAME_BYTES_A_HEADER
            if name == b"transfer-encoding" and not (value.lower() == b"chunked" and version == "1.1"):
                self._stop(BadRequest("the only transfer coding is chunked, over HTTP/1.1"))
        if size > self._settings.max_header_bytes or len(self.headers) > self._settings.max_headers:
            self._stop(self._too_large())
        if version not in VERSIONS:
            self._stop(BadRequest("HTTP/1.1 is spoken here"))
        if self.parser.get_method() == b"CONNECT":
            self._stop(BadRequest("this is no proxy"))

    def _too_large(self) -> Refusal:
        settings = self._settings
        return HeadersTooLarge(
            f"at most {settings.max_headers} headers, and {settings.max_header_bytes} bytes with the request line"
        )

    def _decline(self, rest: bytes) -> None:
        """An offer to speak another protocol (h2c, WebSocket) is declined as RFC 9110 has it: answer as if it had not been
        made. The parser will not go on behind such a head, so another reads it without the offer."""
        lines = [
            b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode()),
            *(b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"),
        ]
        self._in_body = self._declines = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    # What is refused

    def _stop(self, refusal: Refusal) -> None:
        """From within the parser, which stops at once."""
        self._refusal = refusal
        raise refusal

    def _refuse(self, error: JobyardError, *, more: bool = True) -> None:
        """Answer with the problem after all that was asked before, and close. `more`: the client may be sending still."""
        self._refused = True
        self._head_since = None
        self._unset_keepalive_if_required()
        if self._in_body and self.cycle.response_started:
            self.transport.close()  # it is answered already
            return
        waits = bool(self.pipeline) or not (self._in_body or self._is_idle())
        if self._in_body:
            self._abandon_request()
        self.cycle = self._new_cycle(more)
        app = cast("Any", refusing(error))
        if waits:
            self.pipeline.appendleft((self.cycle, app))
        else:
            self._start_asgi_task(self.cycle, app)

    def _is_idle(self) -> bool:
        return not self.cycle or self.cycle.response_complete

    def _abandon_request(self) -> None:
        """The request whose body went wrong, the last that came, has lost its client."""
        if self.pipeline:
            self.pipeline.popleft()
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def _new_cycle(self, more: bool) -> RequestResponseCycle:
        cycle = RequestResponseCycle(
            scope=cast("Any", NO_SCOPE),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        if not more:
            cycle.more_body = False
            cycle.message_event.set()
        return cycle

    # Who is slow

    def look(self, now: float) -> None:
        """Cut a client that does not read its answer, or does not end its head."""
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > self._settings.answer_timeout_seconds:
            self.transport.abort()
            return
        if self._head_since is None:
            return
        if self.flow.read_paused:
            self._head_since = now  # it is us who do not read on
        elif now - self._head_since > self._settings.head_timeout_seconds:
            self._end_slow_head()

    def _end_slow_head(self) -> None:
        if self.cycle or self._fruitless:
            self._refuse(TooSlow("request line and headers were not there in time"))
        else:
            # A browser that connected ahead of need is not told of a request that it never made.
            self.transport.close()


def _words_of(error: httptools.HttpParserError) -> str:
    if isinstance(error, httptools.HttpParserCallbackError):
        return "the address cannot be read"  # the one thing in a head that the parser leaves to us
    return str(error)
