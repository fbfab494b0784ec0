from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from api.site import Site, serving
from jobyard.store.database import Pool
from store.conftest import scene, worn_database  # noqa: F401 - fixtures: the store behind the site, to play the worker
from store.scene import Scene


@pytest.fixture(autouse=True)
def no_exception_reaches_the_server(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What uvicorn has to log as an error has passed through all of ours."""
    yield
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not errors, errors[0].getMessage() + str(errors[0].exc_info)


@pytest.fixture
async def pool(scene: Scene) -> Pool:  # noqa: F811 - the fixture imported above
    return scene.pool


@pytest.fixture
async def site(pool: Pool) -> AsyncIterator[Site]:
    async with serving(pool) as running:
        yield running
