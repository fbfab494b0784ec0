"""What a check found, and how findings are told."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobyard.printable import escaped


class Level(StrEnum):
    """How bad it is. A warning works today and will hurt some day."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


class Finding(msgspec.Struct, frozen=True):
    """One fact. `check` is what was looked at; `fix` is what to do, with a finding that is not ok."""

    check: str
    level: Level
    says: str
    fix: str | None = None


COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILURE: "bold red"}
WIDTH_WITHOUT_TERMINAL = 100


def ok(check: str, says: str) -> Finding:
    return Finding(check, Level.OK, says)


def warning(check: str, says: str, fix: str) -> Finding:
    return Finding(check, Level.WARNING, says, fix)


def failure(check: str, says: str, fix: str) -> Finding:
    return Finding(check, Level.FAILURE, says, fix)


def is_failure(findings: Sequence[Finding]) -> bool:
    return any(finding.level is Level.FAILURE for finding in findings)


def tell(findings: Sequence[Finding], *, as_json: bool) -> None:
    """On standard output: a table for people, or one JSON document. Names of sessions and indexes are anybody's."""
    if as_json:
        sys.stdout.write(json.dumps({"findings": msgspec.to_builtins(list(findings))}) + "\n")
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
    console.print(_table(findings))
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    console.print(
        f"{counts[Level.FAILURE]} wrong, {counts[Level.WARNING]} to look at, {counts[Level.OK]} in order"
    )


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        table.add_row(
            Text(finding.level, COLOURS[finding.level]),
            Text(finding.check),
            Text(escaped(_said(finding), keep="\n")),
        )
    return table


def _said(finding: Finding) -> str:
    return f"{finding.says}\n-> {finding.fix}" if finding.fix else finding.says
