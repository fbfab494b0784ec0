"""How often a worker goes to the database while jobs come fast."""

from __future__ import annotations

from dataclasses import dataclass

from jobyard.ports import Clock

PACE_SECONDS = 0.01
PACE_JOBS = 5


@dataclass(slots=True)
class Pace:
    """A statement costs the database as much as a handful of jobs do. So while jobs come fast, those of a moment share
    one; while they come slowly, none waits for another."""

    _at: float = float("-inf")
    _jobs: int = 0

    def took(self, jobs: int, now: float) -> None:
        """A statement for so many jobs was just done."""
        self._at, self._jobs = now, jobs

    async def wait_for_company(self, clock: Clock) -> None:
        moment_is_left = self._at + PACE_SECONDS - clock.now()
        if self._jobs >= PACE_JOBS and moment_is_left > 0:
            await clock.sleep(moment_is_left)
