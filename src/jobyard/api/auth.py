"""Who may call: whoever shows the one static key, when one is set."""

from __future__ import annotations

import hmac

from jobyard.api.problems import Unauthenticated

SCHEME = b"bearer"


class Guard:
    """Without a key everybody passes; the settings see to it that this is so on loopback only."""

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else key.encode()

    def check(self, authorization: bytes | None) -> None:
        """Raises Unauthenticated. Takes the same time for every wrong key."""
        if self._key is None:
            return
        scheme, _, shown = (authorization or b"").partition(b" ")
        if scheme.lower() != SCHEME or not hmac.compare_digest(shown.strip(), self._key):
            raise Unauthenticated("send it as Authorization: Bearer <key>")
