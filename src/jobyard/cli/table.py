"""Tables that fit the width they are given: what is long loses its middle, what is copied (an id) stays whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from textwrap import indent, wrap

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from jobyard.printable import escaped

STATUS_STYLES = {"pending": "yellow", "processing": "cyan", "completed": "green", "failed": "red"}
DEFAULT_COLUMNS = 80
GAP = 2
NARROWEST = 4
MEASURED_ROWS = 1_000
"""So many rows say how wide the columns are; a longer table is printed as it comes."""
INDENT = "  "
NOTE_LINES = 5


@dataclass(frozen=True, slots=True)
class Column:
    """`optional`: left out where all its cells are empty, or others would have to be shortened for it."""

    title: str
    whole: bool = False
    right: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """`styles` by column title; `note` stands beneath, on a few lines at most, `block` the same with all its lines whole."""

    cells: Sequence[str]
    styles: dict[str, str]
    note: str = ""
    block: str = ""


def console() -> Console:
    """For stdout: its width if that is a terminal, COLUMNS if that is set, else 80; colours only on a terminal."""
    is_known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if is_known else DEFAULT_COLUMNS)


def print_table(columns: Sequence[Column], rows: Iterable[Row]) -> int:
    """The number of rows; without any nothing is printed."""
    out, count = console(), 0
    for line in lines(columns, rows, out.width):
        out.print(line, no_wrap=True, overflow="ignore", crop=False)
        count += 1
    return count


def lines(columns: Sequence[Column], rows: Iterable[Row], width: int) -> Iterator[Text]:
    """The header and the rows, one Text each, notes included."""
    rows = iter(rows)
    measured = [_escaped(row) for row in islice(rows, MEASURED_ROWS)]
    if not measured:
        return
    kept = _kept(columns, measured, width)
    columns, measured = [columns[at] for at in kept], [_only(kept, row) for row in measured]
    widths = _widths(columns, measured, width)
    yield _line(columns, [column.title for column in columns], widths, {c.title: "bold" for c in columns})
    for row in chain(measured, (_only(kept, _escaped(row)) for row in rows)):
        line = _line(columns, row.cells, widths, row.styles)
        if row.note:
            line.append("\n" + indent(_wrapped(row.note, width - len(INDENT)), INDENT), "dim")
        if row.block:
            line.append("\n" + indent(row.block, INDENT) + "\n", "dim")
        yield line


def _wrapped(note: str, width: int) -> str:
    """On as many lines as it needs, within a bound: its end is often where it says what to do."""
    return "\n".join(wrap(shortened(note, (NOTE_LINES - 1) * width), width))


def shortened(text: str, width: int) -> str:
    """The text without its middle, if it is wider than so many columns."""
    if cell_len(text) <= width:
        return text
    room = max(0, width - 1)
    head, tail = text[:room], text[-width:]
    while cell_len(head) > room - room // 2:
        head = head[:-1]
    while cell_len(tail) > room // 2:
        tail = tail[1:]
    return f"{head}…{tail}"


def _escaped(row: Row) -> Row:
    return Row(
        [escaped(cell) for cell in row.cells], row.styles, escaped(row.note), escaped(row.block, keep="\n")
    )


def _only(kept: Sequence[int], row: Row) -> Row:
    return Row([row.cells[at] for at in kept], row.styles, row.note, row.block)


def _kept(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[int]:
    """Where the columns that are shown stand; of the optional ones the last go first."""
    widths = _full_widths(columns, rows)
    optional = [at for at, column in enumerate(columns) if column.optional]
    empty = [at for at in optional if not any(row.cells[at] for row in rows)]
    kept = [at for at in range(len(columns)) if at not in empty]
    for at in reversed([at for at in optional if at in kept]):
        if sum(widths[each] for each in kept) + GAP * (len(kept) - 1) > width:
            kept.remove(at)
    return kept


def _full_widths(columns: Sequence[Column], rows: Sequence[Row]) -> list[int]:
    return [
        max(cell_len(text) for text in (column.title, *(row.cells[at] for row in rows)))
        for at, column in enumerate(columns)
    ]


def _widths(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[int]:
    """As wide as the content; then the widest that may be shortened give, one after the other."""
    widths = _full_widths(columns, rows)
    giving = [at for at, column in enumerate(columns) if not column.whole]
    for at in giving:
        widths[at] = min(widths[at], width)
    over = sum(widths) + GAP * (len(columns) - 1) - width
    while over > 0 and giving:
        widest = max(giving, key=lambda at: widths[at])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
        over -= 1
    return widths


def _line(
    columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], styles: dict[str, str]
) -> Text:
    line = Text()
    for column, cell, width in zip(columns, cells, widths, strict=True):
        text = cell if column.whole else shortened(cell, width)
        padding = " " * (width - cell_len(text))
        style = styles.get(column.title, "")
        line.append(padding if column.right else "").append(text, style)
        line.append(("" if column.right else padding) + " " * GAP)
    line.rstrip()
    return line
