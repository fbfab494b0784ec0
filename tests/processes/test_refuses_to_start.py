"""What cannot be is told in one clear sentence, with what to do, before anything is started."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from jobyard.api.server import Server
from jobyard.config import Settings
from jobyard.process import StartError
from processes.program import free_port, run

needs_the_database = pytest.mark.parametrize("command", ["worker", "maintain", "migrate"])


def the_sentence(ended: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The only line it says, beside facts in the log."""
    assert ended.returncode == code, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, ended.stderr
    assert ended.stdout == ""
    return lines[0]


@needs_the_database
@pytest.mark.parametrize(
    "address",
    [
        "postgresql://someone:hunter2@127.0.0.1:{port}/jobs",
        "postgresql://someone@127.0.0.1:{port}/jobs?password=hunter2",
        "postgresql://someone:hun%20ter2hunter2@/jobs?host=/nowhere",
    ],
)
def test_a_database_that_cannot_be_reached(command: str, address: str) -> None:
    said = the_sentence(run(command, DATABASE_URL=address.format(port=free_port())))
    assert said.startswith("jobyard: cannot reach PostgreSQL at postgresql://someone")
    assert "check DATABASE_URL" in said
    assert "hunter2" not in said


@needs_the_database
def test_a_database_that_does_not_exist(command: str, server: Callable[[str], str]) -> None:
    said = the_sentence(run(command, DATABASE_URL=server("no_such_database")))
    assert '"no_such_database" does not exist' in said
    assert "check DATABASE_URL" in said


@pytest.mark.parametrize("command", ["worker", "maintain"])
def test_a_schema_that_is_not_migrated(command: str, server: Callable[[str], str]) -> None:
    said = the_sentence(run(command, DATABASE_URL=server("postgres")))
    assert "older than this release; run `make migrate`" in said


@needs_the_database
def test_no_database_at_all(command: str) -> None:
    assert "DATABASE_URL is not set; set it to your PostgreSQL, or run `jobyard dev`" in the_sentence(
        run(command)
    )


@pytest.mark.parametrize("command", ["worker", "maintain", "dev", "api", "migrate"])
def test_all_wrong_settings_are_told_together(command: str) -> None:
    ended = run(
        command,
        DATABASE_URL="mysql://root:hunter2@db/x",
        JOBYARD_LEASE_SECONDS="soon",
        JOBYARD_GRACE_SECONDS="-1",
        JOBYARD_CONCURRENCY="many",
    )
    assert ended.returncode == 2
    assert sorted(line.split(":")[0] for line in ended.stderr.splitlines()) == [
        "DATABASE_URL",
        "JOBYARD_CONCURRENCY",
        "JOBYARD_GRACE_SECONDS",
        "JOBYARD_LEASE_SECONDS",
    ]
    assert "hunter2" not in ended.stderr


def test_an_app_that_cannot_be_found(database: str) -> None:
    said = the_sentence(run("worker", "--app", "no_such_module", DATABASE_URL=database))
    assert "JOBYARD_APP: there is no module 'no_such_module'" in said


def test_an_app_with_two_handlers_for_one_type(database: str, tmp_path: Path) -> None:
    (tmp_path / "two_handlers.py").write_text(
        "from jobyard import handler\n@handler('t')\ndef one(): ...\n@handler('t')\ndef two(): ...\n"
    )
    said = the_sentence(
        run(
            "worker",
            "--app",
            "two_handlers",
            DATABASE_URL=database,
            PYTHONPATH=str(tmp_path),
            JOBYARD_HOME=str(tmp_path),
        )
    )
    assert "JOBYARD_APP: two handlers for type 't'" in said


def test_a_module_of_handlers_that_cannot_be_imported(database: str, tmp_path: Path) -> None:
    (tmp_path / "broken_handlers.py").write_text("def f(:\n")
    (tmp_path / "raising_handlers.py").write_text("raise RuntimeError('no configuration')\n")
    for module, why in (
        ("broken_handlers", "SyntaxError"),
        ("raising_handlers", "no configuration"),
        ("..x", "TypeError"),
    ):
        said = the_sentence(
            run("worker", DATABASE_URL=database, JOBYARD_APP=module, PYTHONPATH=str(tmp_path))
        )
        assert said.startswith("jobyard: JOBYARD_APP: ")
        assert why in said


@pytest.mark.parametrize("command", ["worker", "maintain"])
def test_a_health_port_that_is_taken(command: str, database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        said = the_sentence(run(command, DATABASE_URL=database, JOBYARD_HEALTH_PORT=str(port)))
    assert f"127.0.0.1:{port}" in said
    assert "JOBYARD_HEALTH_PORT" in said


def test_a_port_of_the_api_that_is_taken(database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        said = the_sentence(run("api", DATABASE_URL=database, PORT=str(port)))
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "set PORT" in said


@pytest.mark.parametrize("command", ["api", "dev", "worker", "maintain"])
def test_an_address_that_others_reach_without_a_key(command: str, database: str) -> None:
    ended = run(command, HOST="0.0.0.0", DATABASE_URL=database, JOBYARD_HEALTH_PORT=str(free_port()))
    assert ended.returncode == 2
    assert ended.stderr.startswith("HOST: '0.0.0.0' is reachable from other machines; set JOBYARD_KEY")


@pytest.mark.parametrize("command", ["api", "dev"])
def test_an_option_is_no_way_around_the_key(command: str, database: str) -> None:
    ended = run(command, "--host", "::", HOST="127.0.0.1", DATABASE_URL=database)
    assert (ended.returncode, "set JOBYARD_KEY" in ended.stderr) == (2, True)


def test_a_loopback_name_that_leads_elsewhere_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a strange /etc/hosts would have it."""

    def elsewhere(address: tuple[str, int], **options: Any) -> socket.socket:
        return create_server(("0.0.0.0", address[1]), **options)

    create_server = socket.create_server
    monkeypatch.setattr(socket, "create_server", elsewhere)
    with pytest.raises(StartError, match=r"HOST: 'localhost' is 0\.0\.0\.0 here.*set JOBYARD_KEY"):
        Server(None, Settings(host="localhost", port=0))


def test_a_migration_that_was_edited_after_it_was_applied(database: str) -> None:
    async def edit() -> None:
        connection = await asyncpg.connect(database)
        await connection.execute("UPDATE jobyard.migration SET digest = 'other'")
        await connection.close()

    asyncio.run(edit())
    said = the_sentence(run("migrate", DATABASE_URL=database))
    assert "was applied from another text" in said
