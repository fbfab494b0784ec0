"""The list of log events is complete and true: each is emitted somewhere, as the list says, and nothing else is logged."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from jobyard.telemetry import LogEvent

SOURCE = Path(__file__).parents[2] / "src" / "jobyard"
LEVELS = {"debug", "info", "warning", "error"}
OF_AN_ATTEMPT = {"job", "attempt", "type", "queue", "trace_id"}
SPREAD = {
    "facts_of": OF_AN_ATTEMPT,
    "about": OF_AN_ATTEMPT,
    "trace_facts": {"trace_id"},
    "facts": OF_AN_ATTEMPT | {"method", "request_id", "code"},
}


def sources() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if path.parent.name != "telemetry"]


@cache
def told() -> list[tuple[str, str, set[str]]]:
    """Level, name of the event and fields of every call that logs."""
    return list(calls())


def calls() -> Iterator[tuple[str, str, set[str]]]:
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("telemetry."):
                level = ast.unparse(node.func).removeprefix("telemetry.")
                if level in LEVELS:
                    event = ast.unparse(node.args[0])
                    assert event.startswith("LogEvent."), f"{path}:{node.lineno} logs {event}"
                    yield level, event.removeprefix("LogEvent."), set().union(*map(fields_of, node.keywords))


def fields_of(keyword: ast.keyword) -> set[str]:
    if keyword.arg == "exc_info":
        return {"exception"}
    if keyword.arg:
        return {keyword.arg}
    spread = keyword.value.func if isinstance(keyword.value, ast.Call) else keyword.value
    return SPREAD[ast.unparse(spread).rpartition(".")[2]]


def test_every_event_is_emitted_and_at_its_level() -> None:
    emitted = {(event, level) for level, event, _ in told()}
    listed = {(event.name, event.level) for event in LogEvent if event is not LogEvent.APP_LOG}
    assert emitted == listed


@pytest.mark.parametrize("event", [event for event in LogEvent if event is not LogEvent.APP_LOG])
def test_an_event_has_the_fields_that_are_listed(event: LogEvent) -> None:
    emitted = set().union(*(fields for _, name, fields in told() if name == event.name))
    if event in (LogEvent.REQUEST_FAILED, LogEvent.REQUEST_UNAVAILABLE, LogEvent.ATTEMPT_COMPLETED):
        emitted &= set(event.fields)  # what is spread there stands in a variable called `facts`
    assert emitted == set(event.fields)


def test_every_event_says_what_it_means_in_a_sentence() -> None:
    assert [event for event in LogEvent if not event.about.endswith(".") or len(event.about) > 250] == []
    assert len({event.value for event in LogEvent}) == len(LogEvent)


def test_nothing_but_telemetry_logs() -> None:
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert names.isdisjoint({"logging", "structlog"}), f"{path}:{node.lineno}"
