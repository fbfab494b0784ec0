"""Where nobody asks for traces a request and an attempt make no call about them: counted, call by call."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import opentelemetry.trace

from api.site import serving
from jobyard.api import traced as api_traced
from jobyard.telemetry import spans, traces
from traced import no_provider, tracing
from worker.yard import Yard

OPENTELEMETRY = str(Path(opentelemetry.trace.__file__).parents[1])
OURS = {spans.__file__, traces.__file__, api_traced.__file__}


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Every call of OpenTelemetry's code, or of ours about it, in this thread and those that it starts."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and (code.co_filename in OURS or code.co_filename.startswith(OPENTELEMETRY)):
            calls[f"{Path(code.co_filename).name}:{code.co_qualname}"] += 1

    sys.setprofile(count)
    threading.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # pyright: ignore[reportArgumentType] - its stub does not know None


async def calls_of_a_life(yard: Yard) -> Counter[str]:
    """Of one job created over HTTP and run on the loop, one in a thread, and one that fails."""

    async def on_the_loop() -> None: ...

    def in_a_thread() -> None: ...

    async def fails() -> None:
        raise LookupError

    functions = {"a": on_the_loop, "b": in_a_thread, "c": fails}
    async with serving(yard.pool) as site, yard.working(functions) as working:
        await working.idle(yard)
        with counted_calls() as calls:
            for type in functions:
                await site.add(type=type, maxAttempts=1)
            await yard.all_ended()
    return calls


async def test_a_request_and_an_attempt_make_no_call_about_traces(yard: Yard) -> None:
    with no_provider():
        assert await calls_of_a_life(yard) == {}


async def test_the_count_sees_the_calls_where_traces_are_on(yard: Yard) -> None:
    with tracing():
        calls = await calls_of_a_life(yard)
    assert calls["spans.py:Spans.request"] == calls["spans.py:Spans.attempt"] == 3
    assert calls["__init__.py:Tracer.start_span"] == 9


def test_no_process_loads_opentelemetry_by_itself() -> None:
    look = (
        "import sys, jobyard.main, jobyard.api.app, jobyard.api.server, jobyard.client, jobyard.telemetry.traces as t;"
        "assert t.spans() is None; print(*sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60
    )
    assert "jobyard.worker.runner" in found.stdout
    assert "opentelemetry" not in found.stdout
