"""What handlers log with Python's `logging` or structlog comes out as ours, with the job it is about and no other."""

from __future__ import annotations

import asyncio
import logging
import warnings
from pathlib import Path

import httpx
import pytest
import structlog

from jobyard import Retry, telemetry
from jobyard.api.server import Server
from jobyard.config import Settings
from jobyard.telemetry import LogEvent, logs
from logged import logged
from processes.program import free_port
from worker.yard import MakeBench, claimed, until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_line_of_a_handler_names_its_job(make_bench: MakeBench) -> None:
    def in_a_thread() -> None:
        logging.getLogger("shop.mails").info("sent to %s", "a\nb")

    async def in_the_loop() -> None:
        structlog.get_logger().warning("cart.empty", size=0)

    with logged(python=True) as log:
        bench = make_bench({"t": in_a_thread, "async": in_the_loop})
        first, second = bench.start(trace=TRACE), bench.start(type="async", queue="slow", attempt=3, lease=2)
        await bench.change_of(first)
        await bench.change_of(second)
    (mail,), (cart,) = log.named("app.log"), log.named("cart.empty")
    assert mail | {
        "level": "info", "logger": "shop.mails", "message": "sent to a\nb", "job": str(first.job), "type": "t",
        "attempt": 1, "queue": "default", "trace_id": TRACE.split("-")[1],
    } == mail  # fmt: skip
    assert cart | {"job": str(second.job), "type": "async", "attempt": 3, "queue": "slow", "size": 0} == cart
    assert "trace_id" not in cart


async def test_nothing_of_one_job_shows_in_the_next_or_outside(make_bench: MakeBench) -> None:
    async def binds() -> None:
        structlog.contextvars.bind_contextvars(customer="first")
        logging.getLogger("a").warning("in")

    async def plain() -> None:
        logging.getLogger("b").warning("in")

    with logged(python=True) as log:
        bench = make_bench({"t": binds, "plain": plain})
        await bench.change_of(first := bench.start())
        await bench.change_of(second := bench.start(type="plain"))
        logging.getLogger("c").warning("outside")
    lines = {facts["logger"]: facts for facts in log.named("app.log")}
    assert (lines["a"]["customer"], lines["a"]["job"]) == ("first", str(first.job))
    assert (lines["b"].get("customer"), lines["b"]["job"]) == (None, str(second.job))
    assert not {"customer", "job", "type", "attempt"} & set(lines["c"])


async def test_attempts_that_run_at_a_time_are_told_apart(make_bench: MakeBench) -> None:
    async def tells(payload: str) -> None:
        for _ in range(3):
            logging.getLogger("t").warning(payload)
            await asyncio.sleep(0)

    with logged(python=True) as log:
        bench = make_bench({"t": tells}, concurrency=5)
        started = [bench.start(payload=f'"{number}"', lease=number) for number in range(5)]
        await until(lambda: len(bench.endings) == 5)
    jobs = {str(attempt.lease): str(attempt.job) for attempt in started}
    assert len(log.named("app.log")) == 15
    assert all(facts["job"] == jobs[facts["message"]] for facts in log.named("app.log"))


async def test_debug_tells_of_every_attempt_and_info_of_failures_alone(make_bench: MakeBench) -> None:
    async def works() -> None: ...

    async def fails() -> None:
        raise ValueError("the secret of the payload")

    for level, expected in (
        ("debug", ["attempt.started", "attempt.completed", "attempt.started", "attempt.failed"]),
        ("info", ["attempt.failed"]),
    ):
        with logged(level=level) as log:
            bench = make_bench({"t": works, "f": fails})
            await bench.change_of(bench.start(trace=TRACE))
            await bench.change_of(failed := bench.start(type="f"))
        assert [facts["event"] for facts in log.facts] == expected
        told = log.facts[-1]
        assert (told["error"], told["cause"], told["becomes"]) == ("ValueError", "retry", "pending")
        assert (told["job"], told["type"], told["queue"], told["attempt"]) == (
            str(failed.job),
            "f",
            "default",
            1,
        )
        assert told["at"] == f"{Path(__file__).name}:{fails.__code__.co_firstlineno + 1}"
        assert "secret" not in log.getvalue(), "an error's message may quote the payload"
        if level == "debug":
            assert log.facts[1]["trace_id"] == TRACE.split("-")[1]
            assert log.facts[1]["seconds"] >= 0


async def test_a_handler_that_asks_for_another_try_is_no_failure(make_bench: MakeBench) -> None:
    async def polls() -> Retry:
        return Retry(after=7)

    with logged(level="info") as log:
        bench = make_bench({"t": polls})
        await bench.change_of(bench.start())
        await bench.change_of(bench.start(attempt=5))
    first, last = log.facts
    assert (first["event"], first["level"], first["retry_in"]) == ("attempt.put_off", "info", 7)
    assert (last["event"], last["level"], last["cause"]) == ("attempt.failed", "warning", "exhausted")


def test_whoever_configures_logging_himself_is_left_alone() -> None:
    with logged() as log:
        own: list[logging.LogRecord] = []

        class Own(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                own.append(record)

        root = logging.getLogger()
        root.handlers[:] = [Own()]
        telemetry.hear_python_logging()
        logging.getLogger("x").warning("mine")
        structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
        telemetry.info(LogEvent.LISTENER_BACK)
    assert [record.getMessage() for record in own] == ["mine"]
    assert [facts["event"] for facts in log.facts] == ["listener.back"], "and ours stays as it is"


def test_a_level_that_the_user_chose_stays_and_talkative_libraries_are_heard_from_warnings() -> None:
    with logged(python=True) as log:
        logging.getLogger("shop").info("heard")
        logging.getLogger("shop").debug("not heard")
        logging.getLogger("httpx").info("GET https://user:hunter2@example.com")
        logging.getLogger("httpx").warning("GET https://user:hunter2@example.com")
    assert [facts["message"] for facts in log.facts] == ["heard", "GET https://user:***@example.com"]
    with logged(python=False):
        logging.getLogger().handlers.clear()
        logging.getLogger().setLevel(logging.ERROR)
        telemetry.hear_python_logging("debug")
        assert logging.getLogger().level == logging.ERROR


def test_tracebacks_and_warnings_are_told_too() -> None:
    with logged(python=True) as log:
        try:
            raise KeyError("k")
        except KeyError:
            logging.getLogger("shop").exception("lost it")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("old", UserWarning, stacklevel=1)
            logging.captureWarnings(False)
    lost, warned = log.named("app.log")
    assert lost["level"] == "error"
    assert "KeyError: 'k'" in lost["exception"]
    assert "UserWarning: old" in warned["message"]


def test_a_line_that_cannot_be_told_ends_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with logged(python=True):
        logging.getLogger("shop").warning("%d", "no number")
    assert "Logging error" in capsys.readouterr().err


def test_the_facts_of_an_attempt() -> None:
    attempt = claimed(trace=TRACE, attempt=2)
    assert logs.facts_of(attempt) == {
        "job": str(attempt.job), "attempt": 2, "type": "t", "queue": "default", "trace_id": TRACE.split("-")[1],
    }  # fmt: skip


async def test_what_the_http_server_has_to_say_comes_out_in_the_same_stream() -> None:
    class Broken:
        async def __call__(self, scope: object, receive: object, send: object) -> None:
            raise RuntimeError("boom")

        async def drain(self) -> None: ...

    settings, stop = Settings(port=free_port()), asyncio.Event()
    with logged(python=True) as log:
        serving = asyncio.create_task(Server(Broken(), settings).serve(stop))
        async with httpx.AsyncClient(trust_env=False) as client:
            await until(lambda: log.named("api.started"))
            assert (await client.get(f"http://127.0.0.1:{settings.port}/")).status_code == 500
        stop.set()
        await serving
    (said,) = [it for it in log.named("app.log") if it["logger"] == "uvicorn.error"]
    assert "RuntimeError: boom" in said["exception"]
