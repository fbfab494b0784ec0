"""The pages of docs/reference that are made from the code as a whole: HTTP, errors, Python."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"`[^`]*\|[^`]*`", _code_with_a_bar, " ".join(text.split()))


def _code_with_a_bar(code: re.Match[str]) -> str:
    """GitHub and the site agree on no way to write a bar in a code span of a table."""
    return f"<code>{escape(code[0][1:-1], quote=False).replace('|', '&#124;')}</code>"
