"""Views that stay on the screen and are drawn anew: one job, and the whole yard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console, ConsoleOptions, Group
from rich.live import Live
from rich.text import Text

from jobyard.cli.failure import headline
from jobyard.cli.rows import JOB_COLUMNS, QUEUE_COLUMNS, job_row, queue_rows, stats_lines
from jobyard.cli.sentence import how_far, standing
from jobyard.cli.table import STATUS_STYLES, console, lines
from jobyard.printable import escaped

if TYPE_CHECKING:
    from jobyard.cli.outage import Outage
    from jobyard.client import Client, Job, Queue, Stats, Stream

DRAWINGS_PER_SECOND = 4
MOST_QUEUES = 100


@dataclass
class JobView:
    """A few lines that stay where they are when the job has ended."""

    outage: Outage
    job: Job | None = None

    def __rich__(self) -> Group:
        return Group(*(Text(line, style, no_wrap=True, overflow="ellipsis") for line, style in self._lines()))

    def _lines(self) -> Iterator[tuple[str, str]]:
        if (job := self.job) is not None:
            yield escaped(f"{job.type} {job.id}"), "bold"
            yield escaped(standing(job)), STATUS_STYLES.get(job.status, "")
            if job.progress is not None:
                yield escaped(f"progress {how_far(job.progress)}"), ""
            if job.error is not None:
                yield headline(job.error), "red"
        if self.outage.failure is not None:
            yield escaped(str(self.outage.failure)), "yellow"


def show_job(changes: Stream[Job], outage: Outage) -> Job:
    """As it ended."""
    view = JobView(outage)
    with _live(view, whole_screen=False):
        for view.job in changes:
            pass
    assert view.job is not None, "a job that is watched is there"
    return view.job


@dataclass
class YardView:
    """The whole screen: the numbers, the queues in at most a third of it, and the newest jobs in the rest."""

    outage: Outage
    stats: Stats | None = None
    queues: list[Queue] = field(default_factory=list["Queue"])
    jobs: list[Job] = field(default_factory=list["Job"])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        height, width = options.height or options.size.height, options.max_width
        head = [*(stats_lines(self.stats) if self.stats else ()), Text()]
        queues = [*lines(QUEUE_COLUMNS, chain.from_iterable(map(queue_rows, self.queues)), width)]
        shown = [*head, *_at_most(height // 3, queues), Text()]
        jobs = [*lines(JOB_COLUMNS, map(job_row, self.jobs), width)] or [Text("no job fits", "dim")]
        shown += jobs[: max(0, height - len(shown) - 2)]
        shown += [Text()] * (height - len(shown) - 1) + [self._foot()]
        for line in shown[-height:]:
            line.no_wrap, line.overflow = True, "crop"
            yield line

    def _foot(self) -> Text:
        failure = self.outage.failure
        return Text("Ctrl-C ends", "dim") if failure is None else Text(escaped(str(failure)), "yellow")


def show_yard(client: Client, jobs: Callable[[], list[Job]], every: float, outage: Outage) -> NoReturn:
    """Until Ctrl-C; looks again after so many seconds."""
    view = YardView(outage)
    with _live(view, whole_screen=True):
        while True:
            view.stats = client.stats()
            view.queues = [*islice(client.queues(), MOST_QUEUES)]
            view.jobs = jobs()
            time.sleep(every)


def _live(view: JobView | YardView, *, whole_screen: bool) -> Live:
    return Live(
        console=console(),
        get_renderable=lambda: view,
        screen=whole_screen,
        refresh_per_second=DRAWINGS_PER_SECOND,
    )


def _at_most(count: int, found: list[Text]) -> Iterable[Text]:
    if len(found) <= count:
        return found
    return [*found[: count - 1], Text(f"and {len(found) - count + 1} more: jobyard queues", "dim")]
