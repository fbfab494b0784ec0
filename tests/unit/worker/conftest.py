from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from worker.yard import MakeBench, benches


@pytest.fixture
async def bench() -> AsyncIterator[MakeBench]:
    """Make a runner with this handler for type `t`."""
    async with benches() as make:
        yield lambda function, concurrency=4: make({"t": function}, concurrency)
