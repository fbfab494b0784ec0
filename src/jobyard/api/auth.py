"""Who may call: whoever shows the one static key, when one is set."""

from __future__ import annotations

import re
from collections.abc import Iterable

from jobyard.api.problems import Misdirected, Unauthenticated
from jobyard.config import is_loopback
from jobyard.key import Key

BEARER_CHALLENGE = b"Bearer"
BASIC_CHALLENGE = b'Basic realm="Jobyard: any name, and the key as the password"'

OWN_NAMES = {b"localhost", b"127.0.0.1", b"[::1]"}
"""Those that need no closer look."""

_PORT = re.compile(rb":\d*$")


class Guard:
    """Without a key everybody on this machine passes; the settings see to it that nobody else gets here. Nobody but the
    browser of somebody here, led by a page whose name was made to lead to this machine (DNS rebinding): so what is
    asked of another name than this machine's own is refused."""

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else Key(key)

    def check(self, headers: Iterable[tuple[bytes, bytes]], *, from_browser: bool = False) -> None:
        """Raises Unauthenticated, or Misdirected. `from_browser`: a browser's own prompt (Basic, the key as the password) will do. Browsers send that again
        unasked, also when another site's page makes them, so it must open nothing that changes anything."""
        if self._key is None:
            _require_own_name(headers)
            return
        shown = [value for name, value in headers if name == b"authorization"]
        if not self._key.is_shown(shown, from_browser=from_browser):
            how = "send it as Authorization: Bearer <key>, once"
            raise Unauthenticated(how, (BEARER_CHALLENGE, BASIC_CHALLENGE)[: 1 + from_browser])


def _require_own_name(headers: Iterable[tuple[bytes, bytes]]) -> None:
    if not all(_is_own(value) for name, value in headers if name == b"host"):
        raise Misdirected("without a key only localhost is answered; set JOBYARD_KEY to be called otherwise")


def _is_own(host: bytes) -> bool:
    name = _PORT.sub(b"", host)
    return name in OWN_NAMES or is_loopback(name.strip(b"[]").decode("latin-1"))
