"""`jobyard stats`, `queues` and `workers`: the yard as its operator looks at it."""

from __future__ import annotations

from itertools import chain

from jobyard.cli.connection import connect
from jobyard.cli.options import Json, JsonLines
from jobyard.cli.terminal import complain, say_json


def stats(as_json: Json = False) -> None:
    """Show how many jobs wait and run, how fast they move, and who works."""
    with connect(retry_seconds=0) as client:
        if as_json:
            say_json(client.stats_json())
            return
        yard = client.stats()
    from jobyard.cli.rows import stats_lines
    from jobyard.cli.table import console

    out = console()
    for line in stats_lines(yard):
        out.print(line)


def queues(as_json: JsonLines = False) -> None:
    """Show what waits in each queue, by type, and how many workers run that type."""
    with connect(retry_seconds=0) as client:
        found = client.queues()
        if as_json:
            for body in found.json():
                say_json(body)
            return
        from jobyard.cli.rows import QUEUE_COLUMNS, queue_rows
        from jobyard.cli.table import print_table

        if not print_table(QUEUE_COLUMNS, chain.from_iterable(map(queue_rows, found))):
            complain("no queue yet: the first job makes it")


def workers(as_json: JsonLines = False) -> None:
    """Show the worker processes, what they run and how busy they are."""
    with connect(retry_seconds=0) as client:
        found = client.workers()
        if as_json:
            for body in found.json():
                say_json(body)
            return
        from jobyard.cli.rows import WORKER_COLUMNS, worker_row
        from jobyard.cli.table import print_table

        if not print_table(WORKER_COLUMNS, map(worker_row, found)):
            complain("no worker: start one with `jobyard worker`")
