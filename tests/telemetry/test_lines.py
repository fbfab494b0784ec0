"""A log line holds no secret, is one line whatever is in it, and cannot drive a terminal."""

from __future__ import annotations

import pytest

from jobyard import telemetry
from jobyard.config import Settings
from jobyard.dev import Dev
from jobyard.telemetry import LogEvent
from jobyard.telemetry.lines import LONGEST_TRACEBACK, LONGEST_VALUE, MOST_ITEMS
from logged import logged

NASTY = {
    "a line break": "a\nlevel=error forged",
    "a carriage return": "a\rb",
    "ESC": "\x1b[2J\x1b]0;owned\x07",
    "C1": "\x9b31mred",
    "DEL": "a\x7fb",
    "U+2028": "a\u2028b",
    "NEL": "a\x85b",
    "turned writing": "user\u202etxt.exe",
    "a lone surrogate": "a\ud800b",
    "NUL": "a\0b",
}
nasty = pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
PASSWORD = "correct-horse/battery@staple"


@nasty
@pytest.mark.parametrize("style", ["json", "console"])
def test_a_value_is_one_line_of_visible_characters(style: str, text: str) -> None:
    with logged(style) as log:
        telemetry.warning(LogEvent.LOOP_FAILED, loop=text, error=[text, {text: text}])
    line = log.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@nasty
def test_json_gives_the_value_back(text: str) -> None:
    with logged() as log:
        telemetry.warning(LogEvent.LOOP_FAILED, loop="x", error=text)
    (facts,) = log.facts
    assert facts["error"] == text
    assert list(facts)[:3] == ["timestamp", "level", "event"]
    assert log.getvalue().isascii()


@nasty
def test_the_message_of_an_exception_drives_no_terminal(text: str) -> None:
    with logged("console") as log:
        telemetry.error(LogEvent.REQUEST_FAILED, code="x", exc_info=ValueError(text))
    lines = log.getvalue()[:-1].split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("    ") for line in lines[1:]), "only indented lines belong to the first"
    assert len(lines) > 1


def test_the_console_shows_time_level_event_and_facts() -> None:
    with logged("console") as log:
        telemetry.info(LogEvent.API_STARTED, host="a b", port=3000)
    time, level, event, *facts = log.getvalue().split(maxsplit=3)
    assert (level, event) == ("info", "api.started")
    assert facts == ['host="a b" port=3000\n']
    assert len(time) == len("10:15:30.123")


def test_colours_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with logged() as log:
        monkeypatch.setattr(type(log), "isatty", lambda _: True)
        telemetry.configure_logging("auto", stream=log)
        telemetry.warning(LogEvent.LOOP_FAILED, loop="x")
    assert "\x1b[33mwarning" in log.getvalue()


def test_long_values_lose_their_middle() -> None:
    with logged() as log:
        telemetry.warning(LogEvent.LOOP_FAILED, loop="x" * 10**6, error=["y"] * 10**5)
        telemetry.error(LogEvent.REQUEST_FAILED, exc_info=ValueError("z" * 10**6))
        telemetry.warning(LogEvent.LOOP_FAILED, loop="://a:" * 10**5)  # takes no longer than its length
    loop, failed, _ = log.facts
    assert loop["loop"].startswith("xxx")
    assert "[...]" in loop["loop"]
    assert len(loop["loop"]) <= LONGEST_VALUE + len("[...]")
    assert len(loop["error"]) == MOST_ITEMS
    assert len(failed["exception"]) <= LONGEST_TRACEBACK + len("[...]")


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_secret_is_hidden_wherever_it_stands(style: str) -> None:
    with logged(style, secrets=[PASSWORD]) as log:
        telemetry.warning(LogEvent.LOOP_FAILED, loop=f"<{PASSWORD}>", error=[{PASSWORD: {"a": PASSWORD}}])
        telemetry.error(LogEvent.REQUEST_FAILED, exc_info=ValueError(f"no {PASSWORD}!"))
    assert PASSWORD not in log.getvalue()
    assert "<***>" in log.getvalue()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:hunter2@db:5432/jobs",
        "tried postgresql://user:hun/ter2@hunter2@db, gave up",
        "postgresql://user@db/jobs?password=hunter2&x=1",
        "smtps://hunter:hunter2@mail",
    ],
)
def test_a_password_in_an_address_is_hidden_though_nobody_named_it(address: str) -> None:
    with logged() as log:
        telemetry.warning(LogEvent.LOOP_FAILED, loop="x", error=f"cannot reach {address}")
    assert "ter2" not in log.getvalue()
    assert "***" in log.getvalue()


def test_a_value_that_cannot_be_printed_ends_nobody() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    with logged() as log:
        telemetry.warning(LogEvent.LOOP_FAILED, loop=Broken(), error=float("nan"))
    assert log.named("loop.failed")[0]["loop"] == "(RuntimeError while printing it)"


@pytest.mark.parametrize(
    ("level", "told"), [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")]
)
def test_the_level_says_the_least_that_is_told(level: str, told: str) -> None:
    with logged(level=level) as log:
        for tell in (telemetry.debug, telemetry.info, telemetry.warning, telemetry.error):
            tell(LogEvent.LISTENER_BACK)
        assert telemetry.detailed() is (level == "debug")
    assert [facts["level"][0] for facts in log.facts] == list(told)


@pytest.mark.parametrize(("log", "of_its_processes"), [("auto", "console"), ("json", "json")])
def test_dev_is_for_people_unless_told_otherwise(log: str, of_its_processes: str) -> None:
    assert Dev(Settings(log=log))._environment("")["JOBYARD_LOG"] == of_its_processes
