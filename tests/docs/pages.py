"""The pages of the documentation, and the blocks of code on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*)(?P<options>[^`]*)$")
TITLE = re.compile(r'title="([^"]+)"')
NAMED = re.compile(r"# ([\w./-]+\.\w+)$")
NOT_RUN = re.compile(r"^ *<!-- not run: (.+) -->$")


@dataclass(slots=True)
class Block:
    """`title`: the file that it is, by `title="jobs.py"` or by a comment on its first line, `# jobs.py`. `begin` and `end` are the lines of its fences, counted from 0. `not_run`: why no test runs it."""

    language: str
    title: str | None
    text: str
    begin: int
    end: int
    indent: str
    not_run: str | None


def name_of(page: Path) -> str:
    return str(page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT))


def blocks_of(text: str) -> list[Block]:
    return list(_blocks(text.splitlines()))


def _blocks(lines: Sequence[str]) -> Iterator[Block]:
    at = 0
    while at < len(lines):
        opened = FENCE.match(lines[at])
        if opened is None:
            at += 1
            continue
        indent = opened["indent"]
        end = lines.index(indent + opened["fence"], at + 1)
        title = TITLE.search(opened["options"]) or NAMED.match(lines[at + 1].strip())
        yield Block(
            opened["language"],
            title and title[1],
            "".join(line.removeprefix(indent) + "\n" for line in lines[at + 1 : end]),
            at,
            end,
            indent,
            _reason_before(lines, at),
        )
        at = end + 1


def _reason_before(lines: Sequence[str], at: int) -> str | None:
    """What the comment says that stands on the last line before it that is not empty."""
    before = next((line for line in reversed(lines[:at]) if line.strip()), "")
    said = NOT_RUN.match(before)
    return said[1] if said else None


def renewed(text: str, contents: Sequence[tuple[Block, str]]) -> str:
    """The page with these contents of its blocks."""
    lines = text.splitlines()
    for block, content in sorted(contents, key=lambda pair: pair[0].begin, reverse=True):
        lines[block.begin + 1 : block.end] = [
            f"{block.indent}{line}".rstrip() for line in content.splitlines()
        ]
    return "\n".join(lines) + "\n"
