"""What every process shares."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from jobyard import process


def test_a_supervisor_that_leaves_when_all_is_over_already_finds_nothing_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal to the whole group ends both at once: the loop may be closed when the end of the input is seen."""
    loop, (reading, writing) = asyncio.new_event_loop(), os.pipe()
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    with os.fdopen(reading) as given:
        monkeypatch.setattr("sys.stdin", given)
        process._stop_with_supervisor(loop, asyncio.Event())
        [watch] = [it for it in threading.enumerate() if it.name == "supervisor watch"]
        loop.close()
        os.close(writing)
        watch.join(10)
    assert not watch.is_alive()
    assert raised == []
