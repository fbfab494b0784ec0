"""Handlers that fail with a megabyte in their hands, and count how much of it is still there."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field

from jobyard import handler


@dataclass(eq=False)
class Megabyte:
    content: bytearray = field(default_factory=lambda: bytearray(1 << 20))


held: weakref.WeakSet[Megabyte] = weakref.WeakSet()
most: list[int] = [0]


def fail_with_a_megabyte() -> None:
    gc.disable()  # what only the collector would find is as good as leaked: workers rarely run it
    heavy = Megabyte()
    held.add(heavy)
    most[0] = max(most[0], len(held))
    try:
        raise KeyError(len(heavy.content))
    except KeyError as cause:
        raise ValueError("no") from cause


async def fail_in_the_loop() -> None:
    fail_with_a_megabyte()


def fail_in_a_thread() -> None:
    fail_with_a_megabyte()


@handler("fail_in_a_child", process=True)
def fail_in_a_child() -> None:
    fail_with_a_megabyte()


@handler("count_in_a_child", process=True)
def count_in_a_child() -> int:
    return len(held)
