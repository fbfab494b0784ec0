"""What the emulator does wrong on purpose, as the service may do any day."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Annotated, Literal

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Fault = Literal["duplicate", "lose_ack", "cut_stream", "unavailable", "slow"]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Which share of what happens goes wrong: 0 is never, 1 is always."""

    duplicate: Share = 0
    """Deliveries that are made once more, even after the ack."""
    lose_ack: Share = 0
    """Acks that are answered and forgotten."""
    cut_stream: Share = 0
    """Responses of a streaming pull that are lost, and the stream with them; the messages stay leased."""
    unavailable: Share = 0
    """Calls that are refused with UNAVAILABLE before anything is done."""
    slow: Share = 0
    """Calls and responses that come late, by `slow_seconds`."""
    slow_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1
    seed: int = 0
    """The same seed gives the same choices in the same order of events."""


class Faults:
    def __init__(self, plan: Plan | None = None) -> None:
        self.set(plan or Plan())

    def set(self, plan: Plan) -> None:
        """From now on, the choices beginning anew."""
        self.plan = plan
        self._choices: dict[str, Random] = {}

    def strikes(self, fault: Fault) -> bool:
        """Whether this fault happens now. Each has choices of its own, so that one more does not move the others."""
        share: float = getattr(self.plan, fault)
        choices = self._choices.setdefault(fault, Random(f"{self.plan.seed} {fault}"))
        return share > 0 and choices.random() < share

    async def delay(self) -> None:
        if self.strikes("slow"):
            await asyncio.sleep(self.plan.slow_seconds)
