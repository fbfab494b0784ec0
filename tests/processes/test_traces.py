"""One trace across processes, as a collector receives it: the client's, the API's and the worker's."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from jobyard.client import Client
from otlp import Collector, Received, collecting
from processes.program import Program, free_port, program, run
from processes.test_ends import ENDS_WITHIN_SECONDS, is_ready
from traced import CALLER, TRACE, TRACEPARENT
from worker.yard import Yard, until

KEY = "secret-of-the-api"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@dataclass
class Site:
    url: str
    processes: list[Program]


@pytest.fixture
async def site(yard: Yard, tmp_path: Path, collector: Collector) -> AsyncIterator[Site]:
    """API, worker and maintainer, told of the collector by the standard variable."""
    port, worker_port = free_port(), free_port()
    settings = {
        "DATABASE_URL": yard.url,
        "JOBYARD_HOME": str(tmp_path),
        "JOBYARD_KEY": KEY,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    worker = {"JOBYARD_HEALTH_PORT": str(worker_port), "JOBYARD_URL": f"http://127.0.0.1:{port}"}
    with ExitStack() as open_processes:
        start = open_processes.enter_context
        site = Site(
            f"http://127.0.0.1:{port}",
            [
                start(program(tmp_path, "api", PORT=str(port), **settings)),
                start(program(tmp_path, "worker", "--app", "traced_jobs", **settings, **worker)),
                start(program(tmp_path, "maintain", **settings)),
            ],
        )
        await asyncio.gather(
            *(until(lambda p=p: is_ready(p), "it is ready", 30) for p in (port, worker_port))
        )
        yield site


async def test_a_collector_receives_one_trace_of_requests_dispatches_and_attempts(
    site: Site, collector: Collector
) -> None:
    def create() -> None:
        with Client(site.url, KEY) as client:
            job = client.create("parent", {"to": "secret"}, traceparent=TRACEPARENT)
            assert client.get(job.id, wait=30).status == "completed"

    await asyncio.to_thread(create)
    # The attempt creates a job that fails once, through the client and with no word about traces.
    await until(lambda: len(collector.named("process child")) == 2, "all of it was sent", 30)
    await until(lambda: len(collector.named("POST /api/jobs")) == 2, "the requests were sent", 30)
    by_id = {span.id: span for span in collector.spans}

    def ancestors(span: Received) -> list[str]:
        above = by_id.get(span.parent)
        return [span.name, *(ancestors(above) if above else [span.parent])]

    first, second = sorted(collector.named("process child"), key=lambda span: span.start)
    to_the_client = ["process parent", "dispatch parent", "POST /api/jobs", CALLER]
    for span in (first, second):
        assert ancestors(span) == ["process child", "dispatch child", "POST /api/jobs", *to_the_client]
    assert {span.trace for span in (first, second, *collector.named("process parent"))} == {TRACE}
    assert (first.links, second.links) == ([], [first.id])
    assert [span.about["jobyard.outcome"] for span in (first, second)] == ["retry", "completed"]
    services = (
        {span.service for span in (first, second)},
        {s.service for s in collector.named("POST /api/jobs")},
    )
    assert services == ({"jobyard-worker"}, {"jobyard-api"})
    for span in collector.spans:
        assert span.start <= span.end
    for secret in (b"secret", KEY.encode(), b"password", site.url.encode()):
        assert not any(secret in body for body in collector.bodies), secret


async def test_processes_end_in_time_and_without_a_word_too_many_while_the_collector_hangs(
    site: Site, collector: Collector
) -> None:
    collector.hold.clear()
    async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {KEY}"}) as client:
        for _ in range(20):
            answer = await client.post(f"{site.url}/api/jobs", json={"type": "quiet"})
            assert answer.status_code == 202
    await until(collector.asked.is_set, "the collector is asked")
    for code, seconds in await asyncio.gather(*(it.end_after(signal.SIGTERM) for it in site.processes)):
        assert code == 0
        assert seconds < 2 * ENDS_WITHIN_SECONDS
    for process in site.processes:
        assert "Traceback" not in process.said
        assert "Fatal" not in process.said
        assert process.said.count('"traces"') <= 1


@pytest.mark.parametrize("command", ["api", "worker"])
def test_traces_that_cannot_be_sent_are_told_before_anything_is_served(command: str, database: str) -> None:
    ended = run(command, DATABASE_URL=database, PORT=str(free_port()), OTEL_TRACES_EXPORTER="zipkin")
    assert ended.returncode == 1
    said = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert said == [
        "jobyard: OTEL_TRACES_EXPORTER: 'zipkin' cannot be used; expected otlp, console, both with a comma, or none"
    ]
