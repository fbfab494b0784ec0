"""Page tokens: a position and a fingerprint of the list it belongs to.

A token has no authority: whoever forges one reads what the filters would have shown anyway. The fingerprint only
catches a token that is used with other filters, or is mangled.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from jobyard.domain.errors import BadPageToken

_FINGERPRINT_BYTES = 8


def make_token(position: bytes, list_name: str) -> str:
    """`list_name`: all that decides what the list holds, e.g. its path and filters."""
    return base64.urlsafe_b64encode(position + _fingerprint(position, list_name)).decode().rstrip("=")


def read_token(token: str, list_name: str, size: int | None = None) -> bytes:
    """The position, of `size` bytes if that is known. Raises BadPageToken."""
    try:
        known = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadPageToken("it is not a page token") from None
    end = max(0, len(known) - _FINGERPRINT_BYTES) if size is None else size
    position, fingerprint = known[:end], known[end:]
    if fingerprint != _fingerprint(position, list_name):
        raise BadPageToken("it belongs to another list")
    return position


def _fingerprint(position: bytes, list_name: str) -> bytes:
    return hashlib.sha256(position + list_name.encode()).digest()[:_FINGERPRINT_BYTES]
