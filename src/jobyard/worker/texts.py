"""What handlers say, write and return, as text that can be kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import msgspec

_encode = msgspec.json.Encoder().encode


def bounded(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, keeping both ends; no NUL and no lone surrogate, which could not be stored."""
    clean = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace")
    if len(clean) > limit:
        half = limit // 2 - 8
        clean = clean[:half] + b"\n[...]\n" + clean[-half:]
    return clean.decode(errors="ignore")


def printed(said: object) -> str:
    """As `str` has it, whatever a class of the user's own does there."""
    try:
        return str(said)
    except Exception as unprintable:
        return f"(its message cannot be printed: {type(unprintable).__name__})"


def json_text(value: Any, what: str, limit: int) -> str:
    """The value as JSON text of at most `limit` bytes. Raises ValueError: a sentence about `what`."""
    try:
        text = _encode(value)
        # The encoder writes NaN as null, which would be another value than the one that was given.
        changed = b"null" in text and any(map(_is_not_finite, leaves(msgspec.to_builtins(value))))
    except Exception as error:  # a property or a hook of the user's own class may raise anything
        raise ValueError(f"{what} cannot be kept as JSON: {printed(error)}") from error
    if len(text) > limit:
        raise ValueError(f"{what} is {len(text)} bytes long; at most {limit} are kept")
    if changed:
        raise ValueError(f"{what} cannot be kept as JSON: it holds NaN or Infinity")
    return text.decode()


def leaves(value: Any) -> Iterator[Any]:
    """Every key and every scalar of what consists of Python's own types."""
    left: list[Any] = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            members = cast("dict[Any, Any]", item)
            yield from members
            left.extend(members.values())
        elif isinstance(item, list | tuple):
            left.extend(cast("list[Any]", item))
        else:
            yield item


def _is_not_finite(leaf: Any) -> bool:
    return isinstance(leaf, float) and not math.isfinite(leaf)
