"""What is built from the context alone runs as a container runs it: a stranger, process 1, on a read-only tree."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from databases import copied_database
from deploy.box import Box, first_of
from deploy.recipe import resolved
from processes.program import Program, free_port
from worker.yard import until

EXIT_SECONDS = 9.0
KEY = "a-key-of-the-box"
JOBYARD = ("-m", "jobyard.cli")


def may_make_namespaces() -> bool:
    return (
        os.geteuid() == 0
        and subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"]).returncode == 0
    )


in_namespaces = pytest.mark.skipif(
    not may_make_namespaces(), reason="only root, where namespaces are allowed, can be another user in one"
)


def test_the_package_holds_every_file_of_its_source(box: Box) -> None:
    source = box.context / "src"
    wanted = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert {Path(name).suffix for name in wanted} >= {".py", ".sql", ".css", ".js", ".typed"}
    with zipfile.ZipFile(box.wheel) as wheel:
        held = {name for name in wheel.namelist() if not name.startswith("jobyard-")}
    assert held == wanted


def test_the_command_of_the_image_comes_with_the_package(box: Box) -> None:
    [metadata] = (box.folder / "site").glob("jobyard-*.dist-info")
    assert "jobyard = jobyard.cli:main" in (metadata / "entry_points.txt").read_text()


@in_namespaces
def test_nothing_in_the_box_can_be_written_and_nobody_there_has_any_power(box: Box) -> None:
    look = """
import jobyard, os, pathlib
print(jobyard.__file__, os.getpid(), os.getuid(), os.getgroups())
print(*[line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "Cap" in line])
for folder in ("/", "/tmp", os.getcwd()):
    try: pathlib.Path(folder, "written").touch()
    except OSError as refused: print(refused.strerror)
"""
    seen = box.run("-c", look).stdout.splitlines()
    assert seen[0] == f"{box.folder}/site/jobyard/__init__.py 1 10001 []"
    assert re.findall(r"Cap\w+:\s*(\w+)", seen[1]) == ["0" * 16] * 5
    assert seen[2:] == ["Read-only file system"] * 3


@pytest.fixture
def empty_database(server: Callable[[str], str]) -> Iterator[str]:
    with copied_database(server, "template1") as url:
        yield url


class Catcher:
    """A mail catcher: takes every mail."""

    def __init__(self) -> None:
        self.recipients: list[str] = []

    async def handle_DATA(  # noqa: N802 - aiosmtpd looks for this name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        self.recipients += envelope.rcpt_tos
        return "250 OK"


@contextlib.contextmanager
def mail_catcher() -> Iterator[tuple[str, Catcher]]:
    catcher = Catcher()
    controller = Controller(catcher, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield f"smtp://127.0.0.1:{controller.port}", catcher
    finally:
        controller.stop()


@contextlib.asynccontextmanager
async def role(box: Box, folder: Path, name: str, **given: str) -> AsyncIterator[tuple[Program, str]]:
    """A service of the compose file in the box, on a port of its own, once its own health check passes."""
    service = resolved()["services"][name]
    port = str(free_port())
    settings = service["environment"] | {"PORT": port, "JOBYARD_HEALTH_PORT": port, **given}
    _, python, *check = [word.replace(",3000,", f",{port},") for word in service["healthcheck"]["test"]]
    assert python == "python"

    def is_healthy() -> bool:
        asked = subprocess.run([sys.executable, *check], capture_output=True, timeout=30)
        return asked.returncode == 0

    with box.program(folder / name, *JOBYARD, *service["command"], **settings) as program:
        await until(lambda: program.over or is_healthy(), f"{name} is healthy", 30)
        assert not program.over, program.said
        yield program, port


@in_namespaces
async def test_every_role_does_its_part_as_compose_starts_it(
    box: Box, tmp_path: Path, empty_database: str
) -> None:
    given = {"DATABASE_URL": empty_database, "JOBYARD_KEY": KEY}
    migrated = box.run(*JOBYARD, *resolved()["services"]["migrate"]["command"], **given)
    assert migrated.returncode == 0, migrated.stderr
    with mail_catcher() as (address, catcher):
        async with (
            role(box, tmp_path, "api", **given) as (api, port),
            role(box, tmp_path, "worker", **given, JOBYARD_SMTP_URL=address) as (worker, _),
            role(box, tmp_path, "maintain", **given) as (maintain, _),
        ):
            job = await create_mail(port)
            assert (job["status"], catcher.recipients) == ("completed", ["user@example.com"])
            for program in (api, worker, maintain):
                os.kill(first_of(program), signal.SIGTERM)
            for program in (api, worker, maintain):
                assert await program.end(2 * EXIT_SECONDS) == 0, program.said


async def create_mail(port: str) -> dict[str, object]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.post(
            f"http://127.0.0.1:{port}/api/jobs",
            headers={"Authorization": f"Bearer {KEY}", "Prefer": "wait=20"},
            json={"type": "email", "payload": {"to": "user@example.com"}},
        )
    assert answer.status_code == 200, answer.text
    return answer.json()


@in_namespaces
async def test_a_signal_while_it_still_loads_ends_process_1(box: Box, tmp_path: Path) -> None:
    """Its default action, to end, does not hold for process 1."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import sys, time, types\n"
        "class Slow:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'jobyard.main': print('loading', flush=True); time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "sys.argv = ['jobyard', 'migrate']\n"
        "from jobyard.cli import main; main()\n"
    )
    with box.program(tmp_path / "said", "-c", slow.read_text(), JOBYARD_KEY=KEY) as program:
        await until(lambda: "loading" in program.said, "it loads")
        os.kill(first_of(program), signal.SIGTERM)
        assert await program.end(5) == 128 + signal.SIGTERM
