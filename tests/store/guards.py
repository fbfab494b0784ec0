"""Takes single guards out of the statements, to see whether a test misses them."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

from jobyard.store import dead_letters, dispatch, intake, upkeep, verbs
from jobyard.store.statements import statement

CALLERS: tuple[ModuleType, ...] = (dead_letters, dispatch, intake, upkeep, verbs)


def cut_out(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], text: str, instead: str = "") -> None:
    """From now on these statements lack what the pattern finds."""

    def without(name: str) -> str:
        if name not in names:
            return statement(name)
        cut, found = re.subn(text, instead, statement(name))
        assert found, f"{name} has no {text!r}"
        return cut

    for module in CALLERS:
        monkeypatch.setattr(module, "statement", without)
