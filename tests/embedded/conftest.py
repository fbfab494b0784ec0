from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from embedded_help import FAST, Member, kill_server, new_home, removed_at_the_end

from jobyard.store.embedded import EmbeddedPostgres


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty home."""
    with removed_at_the_end(new_home()) as home:
        yield home


@pytest.fixture(scope="session")
def home_of_the_worker() -> Iterator[Path]:
    with removed_at_the_end(new_home()) as home:
        with EmbeddedPostgres(home, settings=FAST):
            pass
        yield home


@pytest.fixture
def used_home(home_of_the_worker: Path) -> Iterator[Path]:
    """A home that already has a database in it, and no server. Tests have it in turn, for making one is slow."""
    yield home_of_the_worker
    kill_server(home_of_the_worker)


@pytest.fixture
def new_member() -> Iterator[Callable[..., Member]]:
    """Starts processes that use a server (arguments as of Member); none outlives the test."""
    members: list[Member] = []

    def start(home: Path, *options: str, **environment: str) -> Member:
        members.append(Member(home, *options, **environment))
        return members[-1]

    yield start
    for member in members:
        member.kill()
