"""A fact becomes one line that holds no secret, has an end, and cannot drive the terminal it is shown on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, cast

from jobyard.printable import escaped

LONGEST_VALUE = 2_000
LONGEST_TRACEBACK = 16_000
MOST_ITEMS = 50
"""Of a value that is a list or a table."""

SHORTEST_SECRET = 8
"""A shorter one is likely to be a word that stands for other things as well; in addresses it is hidden all the same."""

HIDDEN = "***"
TRACEBACK = "exception"

# Bounded: a value is anybody's, and looking through it must not take longer than its length.
_PASSWORD_IN_ADDRESS = re.compile(r"(?<=://)([^\s:/@]{0,256}):\S{1,256}@")
_PASSWORD_OPTION = re.compile(r"(password=)[^&\s'\"]+", re.IGNORECASE)

Facts = MutableMapping[str, Any]


class Clean:
    """A structlog processor: every value bounded, and without these secrets or any password in an address."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted((it for it in secrets if len(it) >= SHORTEST_SECRET), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, logger: Any, method: str, facts: Facts) -> Facts:
        first = {name: facts.pop(name) for name in ("timestamp", "level", "event") if name in facts}
        return {
            self._text(str(name), LONGEST_VALUE): self._value(name, value)
            for name, value in {**first, **facts}.items()
        }

    def _value(self, name: str, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            items = list(cast("Mapping[Any, Any]", value).items())[:MOST_ITEMS]
            return {self._text(str(key), LONGEST_VALUE): self._value("", item) for key, item in items}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value("", item) for item in list(cast("Sequence[Any]", value))[:MOST_ITEMS]]
        return self._text(_said(value), LONGEST_TRACEBACK if name == TRACEBACK else LONGEST_VALUE)

    def _text(self, text: str, limit: int) -> str:
        if self._secrets:
            text = self._secrets.sub(HIDDEN, text)
        text = _PASSWORD_OPTION.sub(rf"\1{HIDDEN}", _PASSWORD_IN_ADDRESS.sub(rf"\1:{HIDDEN}@", text))
        if len(text) > limit:
            half = limit // 2
            text = f"{text[:half]}[...]{text[-half:]}"
        return text


def _said(value: Any) -> str:
    try:
        return str(value)
    except Exception as unprintable:  # the value is anybody's, and so is its code
        return f"({type(unprintable).__name__} while printing it)"


def as_json(logger: Any, method: str, facts: Facts) -> str:
    """ASCII alone: whatever breaks a line or turns the direction of writing is escaped."""
    return json.dumps(facts, ensure_ascii=True)


class Console:
    """For people: time, level, event, facts; a traceback below. Colours only on a terminal."""

    COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31"}  # noqa: RUF012 - never changed

    def __init__(self, *, coloured: bool) -> None:
        self._coloured = coloured

    def __call__(self, logger: Any, method: str, facts: Facts) -> str:
        time, level, event = (facts.pop(name, "") for name in ("timestamp", "level", "event"))
        traceback = facts.pop(TRACEBACK, "")
        if self._coloured:
            level = f"\x1b[{self.COLOURS.get(level, '0')}m{level:<8}\x1b[0m"
        said = " ".join(f"{escaped(name)}={_shown(value)}" for name, value in facts.items())
        line = f"{time[11:23]} {level:<8} {escaped(event):<18} {said}".rstrip()
        return "\n    ".join([line, *map(escaped, traceback.split("\n"))]) if traceback else line


def _shown(value: Any) -> str:
    text = escaped(value if isinstance(value, str) else json.dumps(value))
    return json.dumps(text, ensure_ascii=False) if isinstance(value, str) and " " in text else text
