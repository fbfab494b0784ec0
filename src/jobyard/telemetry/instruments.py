"""Instruments: plain numbers that code adds to and a scrape reads. An addition costs a dictionary look-up and takes no
lock: each series is written by one thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

API, WORKER, MAINTAIN = ROLES = ("api", "worker", "maintain")
OTHER = "other"
SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 3600.0)

Labels = tuple[str, ...]


class Instrument(ABC):
    """One metric: its name, what it means, its labels, and the processes that show it."""

    type: ClassVar[str]

    def __init__(
        self, name: str, about: str, labels: Sequence[str] = (), *, shown_by: Iterable[str] = ROLES
    ) -> None:
        self.name = name
        self.about = about
        self.labels = tuple(labels)
        self.shown_by = tuple(shown_by)

    @abstractmethod
    def reading(self) -> Metric:
        """What it says now, in the words of the Prometheus library."""


class Counter(Instrument):
    type = "counter"

    def __init__(
        self, name: str, about: str, labels: Sequence[str] = (), *, shown_by: Iterable[str] = ROLES
    ) -> None:
        super().__init__(name, about, labels, shown_by=shown_by)
        # Without labels it is there from the start: a first increase can only be seen from 0.
        self.counts: dict[Labels, int] = {} if self.labels else {(): 0}

    def add(self, *labels: str, by: int = 1) -> None:
        self.counts[labels] = self.counts.get(labels, 0) + by

    def reading(self) -> Metric:
        family = CounterMetricFamily(self.name, self.about, labels=self.labels)
        for labels, count in list(self.counts.items()):
            family.add_metric(labels, count)
        return family


class Gauge(Instrument):
    type = "gauge"

    def __init__(
        self, name: str, about: str, labels: Sequence[str] = (), *, shown_by: Iterable[str] = ROLES
    ) -> None:
        super().__init__(name, about, labels, shown_by=shown_by)
        self.values: Mapping[Labels, float] = {} if self.labels else {(): 0}

    def set(self, value: float, *labels: str) -> None:
        self.values = {**self.values, labels: value}

    def add(self, by: float) -> None:
        self.set(self.values.get((), 0) + by)

    def replace(self, values: Mapping[Labels, float]) -> None:
        """All of its series at once: those that are missing are gone."""
        self.values = values

    def reading(self) -> Metric:
        family = GaugeMetricFamily(self.name, self.about, labels=self.labels)
        for labels, value in list(self.values.items()):
            family.add_metric(labels, value)
        return family


class Tally:
    """One series of a histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Many at once, for less than one by one: the look-ups are one a bound and not one a value."""
        ordered = sorted(values)
        below = 0
        for place, bound in enumerate(self.bounds):
            reached = bisect_right(ordered, bound, below)
            self.counts[place] += reached - below
            below = reached
        self.counts[-1] += len(ordered) - below
        self.total += sum(ordered)


class Histogram(Instrument):
    type = "histogram"

    def __init__(
        self,
        name: str,
        about: str,
        labels: Sequence[str] = (),
        *,
        bounds: Sequence[float] = SECONDS,
        shown_by: Iterable[str] = ROLES,
    ) -> None:
        super().__init__(name, about, labels, shown_by=shown_by)
        self.bounds = bounds
        self.tallies: dict[Labels, Tally] = {}

    def of(self, *labels: str) -> Tally:
        """The series of these labels. Whoever observes often keeps it."""
        tally = self.tallies.get(labels)
        if tally is None:
            tally = self.tallies[labels] = Tally(self.bounds)
        return tally

    def reading(self) -> Metric:
        family = HistogramMetricFamily(self.name, self.about, labels=self.labels)
        for labels, tally in list(self.tallies.items()):
            family.add_metric(labels, _cumulated(tally), tally.total)
        return family


def _cumulated(tally: Tally) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    count = 0
    for bound, found in zip([*map(str, tally.bounds), "+Inf"], tally.counts, strict=True):
        count += found
        buckets.append((bound, count))
    return buckets


class Kinds:
    """Which pairs of queue and type have series of their own: the first `limit` that are met. Clients choose both, so
    the others share the pair (`other`, `other`)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._own: dict[Labels, Labels] = {}

    def of(self, queue: str, type: str) -> Labels:
        pair = (queue, type)
        own = self._own.get(pair)
        if own is None:
            if len(self._own) >= self.limit:
                return OTHER, OTHER
            own = self._own[pair] = pair
        return own

    def own(self) -> Iterable[Labels]:
        """Those that have series of their own."""
        return self._own.values()
