"""Texts of handlers as they can be kept."""

from __future__ import annotations


def bounded(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, keeping both ends; no NUL and no lone surrogate, which could not be stored."""
    clean = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace")
    if len(clean) > limit:
        half = limit // 2 - 8
        clean = clean[:half] + b"\n[...]\n" + clean[-half:]
    return clean.decode(errors="ignore")
