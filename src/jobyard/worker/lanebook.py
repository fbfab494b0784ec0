"""Which lanes a claim asks for, in which order, and from where in each.

A claim gets slower with the lanes it passes, so it names at most LANES_A_CLAIM: those known to hold work, and a few
of the others in turn. Larger priorities come first; lanes of one priority rotate, so that a flooded queue does not
starve a quiet one; every tenth claim takes the oldest head first, whatever its priority, so that nothing waits for
ever behind a stream of urgent jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from jobyard.domain.lifecycle import SOLITARY
from jobyard.store.dispatch import Claimed, Lane

LANES_A_CLAIM = 30
PROBES_A_CLAIM = 6
"""How many lanes without known work a claim under load looks at."""

OLDEST_FIRST_EVERY = 10
RECENT_SECONDS = 1.0
"""Under load, one claim in this time starts at the hints of twice as long ago: a row that was committed late, or
given back by a claim that rolled back, stands behind the newest hint."""

BEGINNING_SECONDS = 7.0
"""Under load, one claim in this time starts at the beginning."""


@dataclass(slots=True)
class _Known:
    lane: Lane
    holds_work: bool = True
    hint: int = 0
    recent: int = 0
    older: int = 0
    turn: int = 0


@dataclass(slots=True)
class LaneBook:
    """What one worker remembers of the lanes it may claim from. A hint is the highest seq claimed in a lane: it
    saves the scan over what is gone, and losing it loses nothing."""

    now: Callable[[], float] = time.monotonic
    _lanes: dict[int, _Known] = field(default_factory=dict[int, _Known])
    _claims: int = 0
    _probed: int = 0
    _recent_at: float = 0.0
    _beginning_at: float = 0.0

    def learn(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            self._lanes.setdefault(lane.id, _Known(lane))

    def lane(self, lane_id: int) -> Lane:
        return self._lanes[lane_id].lane

    def find(self, lane_id: int) -> Lane | None:
        known = self._lanes.get(lane_id)
        return known and known.lane

    def woken(self, lane_ids: Iterable[int]) -> bool:
        """Work has come to these lanes. False: some are unknown, and the lanes have to be read again."""
        all_known = True
        for lane_id in lane_ids:
            known = self._lanes.get(lane_id)
            if known is None:
                all_known = False
            else:
                known.holds_work = True
        return all_known

    def solitary(self, *, everywhere: bool) -> tuple[list[int], list[int]]:
        """Lanes and hints of the jobs of which a worker runs one at a time, those that may hold work. They are rare, so
        always from the beginning."""
        ids = [
            known.lane.id
            for known in self._lanes.values()
            if known.lane.suspect == SOLITARY and (everywhere or known.holds_work)
        ]
        return ids, [0] * len(ids)

    def groups(self, *, everywhere: bool, careful: bool = False) -> Iterator[tuple[list[int], list[int]]]:
        """Lanes and hints for the statements of one claim, until it has enough.

        `everywhere`: every lane from its beginning, as before going idle; else those with work from their hints.
        `careful`: from the hints of a while ago, for a worker that waits for wake-ups: the one it got may be of a row
        that was committed after a row with a higher seq.
        """
        ordered = self._in_order()
        if not everywhere:
            ordered = self._with_probes(ordered)
        start = self._start(everywhere, careful)
        for at in range(0, len(ordered), LANES_A_CLAIM):
            group = ordered[at : at + LANES_A_CLAIM]
            yield [known.lane.id for known in group], [start(known) for known in group]

    def saw(self, asked: Iterable[int], claimed: Iterable[Claimed], *, short: bool) -> None:
        """A claim over these lanes brought these attempts; `short`: fewer than it wanted, so all are empty now."""
        for attempt in claimed:
            known = self._lanes[attempt.lane]
            known.holds_work = True
            known.hint = max(known.hint, attempt.lease)
            known.turn = self._claims
        if short:
            for lane_id in asked:
                self._lanes[lane_id].holds_work = False

    def _in_order(self) -> list[_Known]:
        self._claims += 1
        usual = [known for known in self._lanes.values() if known.lane.suspect != SOLITARY]
        if self._claims % OLDEST_FIRST_EVERY == 0:
            # seq counts over all lanes, so the lane claimed from least recently has the oldest head.
            return sorted(usual, key=lambda known: known.hint)
        return sorted(usual, key=lambda known: (-known.lane.priority, known.turn))

    def _with_probes(self, ordered: list[_Known]) -> list[_Known]:
        if len(ordered) <= LANES_A_CLAIM:
            return ordered
        busy = [known for known in ordered if known.holds_work][: LANES_A_CLAIM - PROBES_A_CLAIM]
        asked = {known.lane.id for known in busy}
        quiet = [known for known in ordered if known.lane.id not in asked]
        first = self._probed % len(quiet)
        self._probed += PROBES_A_CLAIM
        probes = {known.lane.id for known in (quiet + quiet)[first : first + PROBES_A_CLAIM]}
        return [known for known in ordered if known.lane.id in asked or known.lane.id in probes]

    def _start(self, everywhere: bool, careful: bool) -> Callable[[_Known], int]:
        now = self.now()
        if everywhere or now - self._beginning_at >= BEGINNING_SECONDS:
            self._beginning_at = now
            return lambda known: 0
        if now - self._recent_at >= RECENT_SECONDS:
            self._recent_at = now
            starts = {lane_id: known.older for lane_id, known in self._lanes.items()}
            for known in self._lanes.values():
                known.older, known.recent = known.recent, known.hint
            return lambda known: starts[known.lane.id]
        return (lambda known: known.older) if careful else (lambda known: known.hint)
