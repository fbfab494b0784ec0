"""Times and durations in few letters."""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil

MINUTE, HOUR, DAY = 60, 3600, 86400


def age(then: datetime) -> str:
    """How long ago by this machine's clock: `3 s`. A server whose clock is ahead makes no negative ages."""
    return _roughly(max(0, int((datetime.now(UTC) - then).total_seconds())))


def until(then: datetime | None) -> str:
    """How long from now: `in 3 s`; nothing where that is no longer to come."""
    seconds = 0 if then is None else ceil((then - datetime.now(UTC)).total_seconds())
    return f"in {_roughly(seconds)}" if seconds > 0 else ""


def _roughly(seconds: int) -> str:
    if seconds < MINUTE:
        return f"{seconds} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE} min"
    return f"{seconds // HOUR} h" if seconds < 2 * DAY else f"{seconds // DAY} d"


def ago(then: datetime | None) -> str:
    return "" if then is None else f"{age(then)} ago"


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * max(0, seconds):.0f} ms"
    if seconds < MINUTE:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), MINUTE)
    return f"{minutes} min {rest} s" if minutes < MINUTE else f"{minutes // MINUTE} h {minutes % MINUTE} min"


def moment(time: datetime | None) -> str:
    """To the second, in UTC, as the logs have it."""
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
