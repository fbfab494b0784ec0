"""The guide's two services, which talk through events alone, as processes and over each bus."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.nats_server import NatsServer
from contract.pubsub_server import PubsubServer
from dispatch.conftest import BROKERS
from docs.pages import blocks_of
from jobyard.client import Client, Job
from processes.program import environment, free_port, program
from processes.program import running as process
from worker.yard import Yard, until

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "react-to-events.md"
ORDERS = 5


@pytest.fixture
def services(tmp_path: Path) -> Path:
    """A folder with the guide's files."""
    for block in blocks_of(GUIDE.read_text(encoding="utf-8")):
        if block.title is not None:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("kind", BROKERS)
async def test_the_mailer_sends_one_receipt_for_each_order_that_was_paid(
    kind: str, yard: Yard, services: Path, request: pytest.FixtureRequest, home: Path
) -> None:
    port = free_port()
    settings = {
        "DATABASE_URL": yard.url, "JOBYARD_HOME": str(home), "JOBYARD_EVENTS": "on", "PORT": str(port),
        "JOBYARD_URL": f"http://127.0.0.1:{port}", "PYTHONPATH": str(services), "JOBYARD_LOG": "json",
    }  # fmt: skip
    if kind == "nats":
        nats: NatsServer = request.getfixturevalue("nats_server")
        settings["JOBYARD_BUS"] = nats.url
    elif kind == "pubsub":
        pubsub: PubsubServer = request.getfixturevalue("pubsub_server")
        settings |= {
            "JOBYARD_BUS": f"pubsub://{pubsub.project}",
            "PUBSUB_EMULATOR_HOST": f"{pubsub.host}:{pubsub.port}",
        }
    # The mailer needs the broker alone, where there is one.
    of_mailer = {name: it for name, it in settings.items() if kind == "postgres" or name != "DATABASE_URL"}
    with contextlib.ExitStack() as running:
        mailer = running.enter_context(
            process(
                [sys.executable, "mailer.py"], environment(**of_mailer), services / "mailer.output", services
            )
        )
        for role in (("api",), ("worker", "--app", "shop"), ("maintain",)):
            running.enter_context(program(services, *role, **settings))
        with Client(settings["JOBYARD_URL"], retry_seconds=30) as client:
            client.stats()
            await until(
                lambda: yard.db.fetchval("SELECT count(*) > 0 FROM jobyard.relay"), "the relay has begun", 30
            )
            await until(lambda: "following" in mailer.said, "the mailer follows", 30)
            for order in range(ORDERS):
                payload = {"order": order, "customer": "user@example.com", "total": 42}
                client.create("order.paid", payload, idempotency_key=f"order {order}")
            mails = "SELECT count(*) FROM jobyard.done d JOIN jobyard.job j ON j.id = d.job WHERE j.type = 'email'"
            await until(lambda: _is(yard, mails, ORDERS), f"{ORDERS} mails", 30)
            subjects = {job.payload["subject"] for job in _mails(client)}
            assert subjects == {f"Receipt for order {order}" for order in range(ORDERS)}
        assert await yard.db.fetchval("SELECT count(*) FROM jobyard.job WHERE type = 'email'") == ORDERS


async def _is(yard: Yard, sql: str, count: int) -> bool:
    return await yard.db.fetchval(sql) == count


def _mails(client: Client) -> Iterator[Job]:
    for job in client.list_each(type="email"):
        yield client.get(job.id)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"
