"""A job drawn for people, within the width of the terminal (80 columns where there is none)."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from jobyard.cli import failure
from jobyard.cli.sentence import how_far
from jobyard.cli.table import STATUS_STYLES, console
from jobyard.printable import escaped

IN_THE_TITLE = ("id", "type")
BLOCKS = ("payload", "result", "error")
NOTHING: tuple[Any, ...] = (None, False, "", [], {})
LONGEST_BLOCK_LINES = 40
LONGEST_BLOCK_CHARACTERS = 4_000


def draw(body: bytes) -> None:
    """Prints the job. Text, never markup: a payload cannot style itself."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    title = Text(f" {_plain(fields.get('type'))} {_plain(fields.get('id'))} ")
    blocks = [block for name in BLOCKS for block in _block(name, fields.get(name))]
    console().print(Panel(Group(_facts(fields), *blocks), title=title, title_align="left"))


def _facts(fields: dict[str, msgspec.Raw]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, raw in fields.items():
        if name not in (*IN_THE_TITLE, *BLOCKS) and _value(raw) not in NOTHING:
            table.add_row(Text(escaped(name)), Text(_fact(name, raw), style=_style(name, raw)))
    return table


def _fact(name: str, raw: msgspec.Raw) -> str:
    return escaped(how_far(_value(raw))) if name == "progress" else _plain(raw)


def _style(name: str, raw: msgspec.Raw) -> str:
    return STATUS_STYLES.get(_plain(raw), "") if name == "status" else ""


def _block(name: str, raw: msgspec.Raw | None) -> list[RenderableType]:
    if raw is None or bytes(raw) == b"null":
        return []
    return [Text(f"\n{name}", style="bold"), Text(_shortened(_shown(name, raw)), overflow="fold")]


def _shown(name: str, raw: msgspec.Raw) -> str:
    if name == "error":
        return failure.in_full(_value(raw))
    return escaped(msgspec.json.format(bytes(raw), indent=2).decode("utf-8", "replace"), keep="\n")


def _shortened(text: str) -> str:
    text = text.rstrip()
    lines = text[:LONGEST_BLOCK_CHARACTERS].splitlines()[:LONGEST_BLOCK_LINES]
    short = "\n".join(lines)
    return text if len(short) >= len(text) else f"{short}\n... (--json shows all of it)"


def _value(raw: msgspec.Raw) -> Any:
    return msgspec.json.decode(raw)


def _plain(raw: msgspec.Raw | None) -> str:
    """A string without its quotes, anything else as JSON."""
    value = None if raw is None else _value(raw)
    return escaped(value if isinstance(value, str) else bytes(raw or b"").decode("utf-8", "replace"))
