"""The one static key, and whether a request shows it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence


class Key:
    """Takes the same time for every wrong key, of whatever length."""

    def __init__(self, key: str) -> None:
        self._digest = _digest(key.encode())

    def is_shown(self, authorizations: Sequence[bytes], *, from_browser: bool = False) -> bool:
        """Whether these values of the header Authorization, of which there must be one, show it as Bearer. With
        `from_browser` as the password of Basic, too."""
        shown = _shown(authorizations[0], from_browser) if len(authorizations) == 1 else b""
        return hmac.compare_digest(_digest(shown), self._digest)


def _digest(key: bytes) -> bytes:
    """Of one length for all, so that a comparison does not tell the key's."""
    return hashlib.sha256(key).digest()


def _shown(authorization: bytes, from_browser: bool) -> bytes:
    """The key that is shown, or nothing, which is no key."""
    scheme, _, shown = authorization.partition(b" ")
    match scheme.lower():
        case b"bearer":
            return shown.strip()
        case b"basic" if from_browser:
            try:
                return base64.b64decode(shown.strip(), validate=True).partition(b":")[2]
            except binascii.Error:
                return b""
        case _:
            return b""
