"""What the shell may offer for a word that is being typed: names that the server knows, asked for while somebody waits."""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING

from jobyard.cli.connection import connect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobyard.client import Queue

PATIENCE_SECONDS = 1.0
MOST_QUEUES = 1_000


def queue_names() -> list[str]:
    return _offered({queue.name for queue in _queues()})


def type_names() -> list[str]:
    return _offered({it.type for queue in _queues() for it in queue.types})


def _queues() -> list[Queue]:
    """None at all where the server cannot be asked: a completion has nowhere to complain."""
    with (
        contextlib.suppress(Exception),
        connect(retry_seconds=0, timeout=PATIENCE_SECONDS) as client,
    ):
        return list(islice(client.queues(), MOST_QUEUES))
    return []


def _offered(names: Iterable[str]) -> list[str]:
    # They land among the shell's own words.
    return sorted(filter(str.isprintable, names))
