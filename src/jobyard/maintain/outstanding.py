"""What was announced and is not claimed yet: what to announce next, and what again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jobyard.domain.announcement import Announcement

FIRST_REPEAT_SECONDS = 10.0
LONGEST_REPEAT_SECONDS = 3600.0
"""What was announced and still is ready after so long is announced again, each time after twice as long."""

RECENT_SECONDS = 1.0
"""For one to two of these a look goes back behind what was seen: a row that is committed late stands there."""

BEGINNING_SECONDS = 7.0
"""One look in this time goes back to the beginning of each lane."""


class Due(NamedTuple):
    """To be announced now, for the so-manieth time."""

    announcement: Announcement
    times: int

    @property
    def id(self) -> str:
        """The same when it has to be published twice, another when it is announced again."""
        return f"{self.announcement.lane}.{self.announcement.seq}.{self.times}"


@dataclass(slots=True)
class _Lane:
    waiting: dict[int, tuple[int, float]] = field(default_factory=dict[int, tuple[int, float]])
    """By place: how often it was announced, and when it is to be again."""
    highest: int = 0
    recent: int = 0
    older: int = 0

    @property
    def floor(self) -> int:
        """Nothing below it is known to be ready."""
        return min(self.waiting) - 1 if self.waiting else self.highest


@dataclass(slots=True)
class Outstanding:
    """At most `ahead` jobs a lane. It is one announcer's memory: who takes over announces them once more."""

    ahead: int
    _lanes: dict[int, _Lane] = field(default_factory=dict[int, _Lane])
    _shifted_at: float = 0.0
    _began_at: float = float("-inf")

    def behind(self, lanes: Iterable[int], now: float) -> list[int]:
        """From where to look at each."""
        if now - self._began_at >= BEGINNING_SECONDS:
            self._began_at = now
            return [0 for _ in lanes]
        if now - self._shifted_at >= RECENT_SECONDS:
            self._shifted_at = now
            for known in self._lanes.values():
                known.older, known.recent = min(known.recent, known.floor), known.floor
        return [self._lanes[lane].older if lane in self._lanes else 0 for lane in lanes]

    def due(self, lane: int, behind: int, head: Sequence[Announcement], now: float) -> Iterator[Due]:
        """The ready jobs of this lane behind that place are these, the first `ahead`. What was announced and is not among
        them is claimed."""
        known = self._lanes.setdefault(lane, _Lane())
        there = {announcement.seq for announcement in head}
        last = head[-1].seq if len(head) == self.ahead else None
        for seq in [seq for seq in known.waiting if seq > behind and (last is None or seq <= last)]:
            if seq not in there:
                del known.waiting[seq]
        for announcement in head:
            times, again_at = known.waiting.get(announcement.seq, (0, now))
            if again_at <= now:
                yield Due(announcement, times)

    def announced(self, due: Due, now: float) -> None:
        known = self._lanes[due.announcement.lane]
        pause = min(FIRST_REPEAT_SECONDS * 2.0 ** min(due.times, 20), LONGEST_REPEAT_SECONDS)
        known.waiting[due.announcement.seq] = (due.times + 1, now + pause)
        known.highest = max(known.highest, due.announcement.seq)

    @property
    def full(self) -> set[int]:
        """Lanes of which more may be ready than is announced."""
        return {lane for lane, known in self._lanes.items() if len(known.waiting) >= self.ahead}

    def forget(self) -> None:
        """Somebody else announces."""
        self._lanes.clear()
        self._began_at = float("-inf")
