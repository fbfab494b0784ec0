"""The checks of a body, in the order of the contract: content type, size, UTF-8, JSON and its depth, numbers and
strings that can be kept, schema.

What is fine, and that is nearly everything, passes one quick look and two decodes in C. Only what is not, or may
not be, is taken apart by `faults`, which names every fault and its place.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from jobyard.api import faults
from jobyard.api.exchange import Request
from jobyard.api.patience import Patience
from jobyard.api.problems import (
    Fault,
    MalformedJson,
    TooLarge,
    TooSlow,
    UnsupportedMediaType,
    ValidationFailed,
)

DEEPEST = 64
"""Levels of arrays and objects in a body; in a bulk, in each job. Our own limit, not the interpreter's."""

ENVELOPE_LEVELS = 2
"""The object and the array around the jobs of a bulk."""

TOO_DEEP = Fault("", f"arrays and objects are nested deeper than {DEEPEST} levels")

S = TypeVar("S", bound=msgspec.Struct)

_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_STRUCTURE = bytes(code for code in range(256) if code not in b'[]{}"')
_decode_anything = msgspec.json.Decoder[Any](Any).decode


class ClientGone(Exception):
    """The client left before its request was whole: there is nobody to answer."""


async def read_json(request: Request, limit: int, patience: Patience) -> bytes:
    """The body, of at most `limit` bytes, if it arrives in time. Raises a Refusal, or ClientGone."""
    _require_json(request)
    if int(request.headers.get(b"content-length", b"0")) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes")
    try:
        with patience():
            body = await _receive(request, limit)
    except TimeoutError:
        raise TooSlow("the body was not there in time") from None
    _require_utf8(body)
    return body


def _require_json(request: Request) -> None:
    kind = request.headers.get(b"content-type", b"")
    if kind != b"application/json":
        media, _, parameters = kind.lower().partition(b";")
        if media.strip() != b"application/json" or parameters.strip(b" ;") not in (
            b"",
            b"charset=utf-8",
            b'charset="utf-8"',
        ):
            raise UnsupportedMediaType("send it with Content-Type: application/json")
    if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("send it without Content-Encoding")


async def _receive(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body is larger than {limit} bytes")
        chunks.append(chunk)
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _require_utf8(body: bytes) -> None:
    try:
        if not body.isascii():
            body.decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(f"byte {error.start} is not UTF-8") from None


def decode(decoder: msgspec.json.Decoder[S], body: bytes | memoryview) -> S:
    """The body as the decoder's shape. Raises MalformedJson or ValidationFailed, with every fault.

    A `payload` of the shape must be msgspec.Raw: it is checked, and kept as it came."""
    raw = bytes(body)
    require_shallow(raw)
    # The one thing that msgspec accepts and PostgreSQL cannot keep.
    if rb"\u0000" not in raw:
        try:
            value = decoder.decode(raw)
            _decode_anything(getattr(value, "payload", b"0"))
            return value
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    return _decode_with_care(decoder, raw)


def decode_envelope(decoder: msgspec.json.Decoder[S], body: bytes) -> S:
    """Only the outside of a body. What its Raw parts hold is for `decode` to look at, one by one: a fault of one
    must not harm the others. Raises MalformedJson or ValidationFailed."""
    try:
        return _envelope(decoder, body)
    except RecursionError:
        raise ValidationFailed([TOO_DEEP]) from None
    except msgspec.DecodeError:
        require_shallow(body, DEEPEST + ENVELOPE_LEVELS)
        return _decode_with_care(decoder, body)


def _envelope(decoder: msgspec.json.Decoder[S], body: bytes) -> S:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # msgspec stops at half of a surrogate pair, also where it is told to leave the text as it is.
        return decoder.decode(faults.without_halves(body))


def _decode_with_care(decoder: msgspec.json.Decoder[S], raw: bytes) -> S:
    found = faults.of_text(raw, decoder.type)
    if found:
        raise ValidationFailed(found)
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise ValidationFailed([Fault("", str(error))]) from None
    except msgspec.DecodeError as error:
        raise MalformedJson(str(error)) from None


def require_shallow(raw: bytes, deepest: int = DEEPEST) -> None:
    """Raises ValidationFailed for more levels than that, without any recursion."""
    if raw.count(b"[") + raw.count(b"{") > deepest and _depth_exceeds(raw, deepest):
        raise ValidationFailed([TOO_DEEP])


def _depth_exceeds(raw: bytes, limit: int) -> bool:
    """Each pass takes away the innermost pairs, so what is left after `limit` passes is deeper; no step is Python's own
    for a bracket. What never pairs is malformed, and too much of it counts as too deep."""
    brackets = _structure(raw).translate(_ONE_KIND)
    for _ in range(limit):
        rest = brackets.replace(b"[]", b"")
        if len(rest) == len(brackets):
            break
        brackets = rest
    return b"[]" in brackets or brackets.count(b"[") > limit


def _structure(raw: bytes) -> bytes:
    """The brackets that stand outside of strings."""
    if b"\\" in raw:
        raw = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    return b"".join(raw.translate(None, _ALL_BUT_STRUCTURE).split(b'"')[::2])
