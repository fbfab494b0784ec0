"""Metrics follow the conventions, add up, and stay bounded whatever clients choose."""

from __future__ import annotations

import math
import random
import re
from datetime import UTC, datetime

import pytest

from api.site import Site
from jobyard.api.metrics import show_sample
from jobyard.domain.job import LaneKey
from jobyard.domain.lifecycle import Cause
from jobyard.store.sampling import Sample, TypeSample
from jobyard.telemetry import metrics
from jobyard.telemetry.instruments import API, ROLES, SECONDS, WORKER, Kinds, Tally
from telemetry.samples import scraped, shown, value
from worker.yard import claimed

pytestmark = pytest.mark.usefixtures("zeroed")


# The list


def test_every_name_follows_the_conventions_of_prometheus() -> None:
    for metric in metrics.METRICS:
        assert re.fullmatch(r"jobyard(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert not re.search(r"_(ms|millis\w*|minutes|kb|mb)(_|$)", metric.name)
        assert metric.about.endswith(".")
        assert metric.shown_by
        assert set(metric.shown_by) <= set(ROLES)
    assert len({metric.name for metric in metrics.METRICS}) == len(metrics.METRICS) > 30


@pytest.mark.parametrize("role", ROLES)
def test_each_process_shows_its_own_metrics_and_those_of_every_process(role: str) -> None:
    names = {name for name, _ in shown(role)}
    others = {it.name for it in metrics.METRICS if role not in it.shown_by}
    assert {"jobyard_ready", "process_resident_memory_bytes", "python_gc_collections_total"} <= names
    assert names.isdisjoint(others)
    assert ("jobyard_leases_lost_total" in names) == (role == WORKER), "there from the start, as 0"
    assert [dict(labels)["role"] for name, labels in shown(role) if name == "jobyard_build_info"] == [role]


def test_many_values_at_once_are_counted_as_one_by_one() -> None:
    chance = random.Random(7)
    values = [chance.choice([*SECONDS, 0.0, 1e9, chance.expovariate(1.0)]) for _ in range(500)]
    together, alone = Tally(SECONDS), Tally(SECONDS)
    together.observe_all(values)
    together.observe_all([])
    for one in values:
        alone.observe(one)
    assert together.counts == alone.counts
    assert math.isclose(together.total, alone.total)
    assert sum(together.counts) == 500


def test_a_histogram_is_cumulative_and_a_value_on_a_bound_is_below_it() -> None:
    metrics.RUN.of("q", "t").observe_all([0.005, 0.006, 1e9])
    samples = shown()
    bucket = [value(samples, "jobyard_attempt_run_seconds_bucket", queue="q", type="t", le=le)
              for le in ("0.005", "0.025", "3600.0", "+Inf")]  # fmt: skip
    assert bucket == [1, 2, 2, 3]
    assert value(samples, "jobyard_attempt_run_seconds_count", queue="q", type="t") == 3


# Bounds


async def test_random_paths_and_methods_make_no_series_of_their_own(site: Site) -> None:
    for number in range(100):
        await site.get(f"/{number}/{random.random()}")
        await site.get(f"/api/jobs/{number}")
    for method in ("LOCK", "PROPFIND", "SUBSCRIBE"):
        await site.client.request(method, "/api/jobs")
    for number in range(10_000):
        metrics.answered(None, f"M{number}", 404, 0.1)
    labels = [dict(labels) for name, labels in await scraped(site) if name == "jobyard_http_requests_total"]
    assert {it["route"] for it in labels} == {"/openapi.json", "/api/jobs", "/api/jobs/{id}", "unmatched"}
    assert {it["method"] for it in labels} == {"GET", "other"}
    assert len(labels) == 5


def test_random_queues_and_types_share_one_series_beyond_the_limit() -> None:
    metrics.kinds.limit = 20
    names = [(f"queue-{number}", f"type-{number}") for number in range(10_000)]
    lanes = [LaneKey(1, queue, type, 5) for queue, type in names]
    metrics.created(lanes)
    metrics.waited(claimed(queue=queue, type=type) for queue, type in names)
    for lane in lanes:
        metrics.timed_out(lane.queue, lane.type)
        for cause in (Cause.RETURNED, Cause.RETRY):
            metrics.ended(lane, cause, [1.0])
    now = datetime.now(UTC)
    types = [TypeSample(1, queue, type, 1, 2, 3, 4, now) for queue, type in names]
    show_sample(Sample(now, 0.0, 0, types, []), {type: 1 for _, type in names})
    samples = {**shown(API), **shown(WORKER)}
    series_of_a_kind = 1 + 3 + 2 + 1 + 2 + 2 * (len(SECONDS) + 3)
    # A kind has a series for the workers of its type, which the others together have not.
    of_all = [name for name, labels in samples if {"type"} & dict(labels).keys()]
    assert len(of_all) == 21 * series_of_a_kind + 20
    other = {"queue": "other", "type": "other"}
    assert value(samples, "jobyard_jobs_created_total", **other) == 10_000 - 20
    assert value(samples, "jobyard_jobs", place="processing", **other) == 3 * (10_000 - 20)
    assert value(samples, "jobyard_attempt_run_seconds_count", **other) == 2 * (10_000 - 20)


def test_kinds_are_the_first_that_come_and_stay() -> None:
    kinds = Kinds(2)
    assert [kinds.of("a", "1"), kinds.of("b", "1"), kinds.of("c", "1"), kinds.of("a", "1")] == [
        ("a", "1"), ("b", "1"), ("other", "other"), ("a", "1"),
    ]  # fmt: skip
