"""A Pub/Sub to try: the emulator, or whatever JOBYARD_TEST_PUBSUB names.

`host:port` is another emulator, such as Google's. `projects/NAME` is a real project, with the credentials that Google's
libraries find by themselves; for the tests of dead letters the service account of Pub/Sub needs its usual roles there.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from emulating import Running, emulator_process
from service import Service

GIVEN = os.environ.get("JOBYARD_TEST_PUBSUB", "")


@pytest.fixture(scope="session")
def emulator() -> Iterator[Running]:
    with emulator_process() as running:
        yield running


@pytest.fixture
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """What the tests of the service's behaviour are run against."""
    if GIVEN.startswith("projects/"):
        monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
        project = GIVEN.removeprefix("projects/")
    else:
        address: Any = GIVEN or request.getfixturevalue("emulator").address
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)
        project = f"test-{uuid.uuid4().hex[:8]}"
    with Service(project) as made:
        yield made


@pytest.fixture
def emulated(emulator: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Ours, for what only ours promises."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.address)
    with Service(f"test-{uuid.uuid4().hex[:8]}") as made:
        yield made
