"""How long a job waits before its next try."""

from __future__ import annotations

from dataclasses import dataclass

_LARGEST_EXPONENT = 64
"""2 to this power exceeds every cap; growing further would only overflow."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter: uniform between 0 and min(cap, base * 2^(n-1)) seconds before try n+1."""

    base_seconds: float = 2.0
    cap_seconds: float = 3600.0

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after `failures` failed tries (1 or more); `chance` is a random number in [0, 1)."""
        exponent = min(max(failures, 1) - 1, _LARGEST_EXPONENT)
        return chance * min(self.cap_seconds, self.base_seconds * 2.0**exponent)
