"""How far a long command has come: a bar on a terminal, a line now and then where there is none. On stderr."""

from __future__ import annotations

import sys
import time
from typing import Protocol, Self

from jobyard.cli.terminal import complain
from jobyard.printable import escaped

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_DRAWINGS = 0.1


class Progress(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def at(self, done: int, said: str) -> None:
        """So much of the total, and what that means in words."""
        ...

    def note(self, text: str) -> None:
        """A line that stays."""
        ...


def progress(total: int | None) -> Progress:
    return Bar(total) if sys.stderr.isatty() else Lines(total)


class Lines:
    def __init__(self, total: int | None, every: float = SECONDS_BETWEEN_LINES) -> None:
        self._total = total
        self._every = every
        self._started = self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def at(self, done: int, said: str) -> None:
        now = time.monotonic()
        if now - self._told < self._every:
            return
        self._told = now
        share = f", {done / self._total:.0%}" if self._total else ""
        complain(f"{said} after {now - self._started:.0f} s{share}")

    def note(self, text: str) -> None:
        complain(text)


class Bar:
    def __init__(self, total: int | None) -> None:
        # Imported here: only a terminal draws, and drawing takes long to import.
        from rich import progress as rich
        from rich.console import Console

        self._bar = rich.Progress(
            rich.BarColumn(bar_width=None),
            rich.TaskProgressColumn(),
            rich.TextColumn("{task.fields[said]}"),
            rich.TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, said="")
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def at(self, done: int, said: str) -> None:
        if time.monotonic() - self._drawn < SECONDS_BETWEEN_DRAWINGS:
            return
        self._drawn = time.monotonic()
        self._bar.update(self._task, completed=done, said=said)

    def note(self, text: str) -> None:
        self._bar.console.print(escaped(text), markup=False, highlight=False)
