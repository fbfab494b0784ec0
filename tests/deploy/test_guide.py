"""What the guide tells its reader to type is there: targets of make, services, roles and files."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from deploy.recipe import ROOT, resolved

GUIDE = (ROOT / "docs" / "how-to" / "deploy-with-compose.md").read_text(encoding="utf-8")
SCRIPT = ROOT / "scripts" / "compose.sh"


def typed(program: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(program)]


def test_every_command_of_compose_names_services_that_are_there() -> None:
    services = resolved()["services"].keys()
    commands = [line.split()[2:] for line in typed("docker compose")]
    named = {word for verb, *words in commands if verb == "stop" for word in words}
    named |= {next(word for word in words if word != "-T") for verb, *words in commands if verb == "exec"}
    assert named == {"api", "worker", "maintain", "postgres"}
    assert named <= services


def test_the_container_of_postgresql_is_called_as_the_guide_calls_it() -> None:
    [command] = typed("docker exec")
    assert command == f"docker exec -it {resolved()['name']}-postgres-1 psql -U jobuser -d jobs"


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("up", "up --detach --build --wait"),
        ("down", "down"),
        ("logs", "logs --follow"),
    ],
)
def test_make_runs_compose(target: str, arguments: str) -> None:
    assert f"scripts/compose.sh {arguments}" in dry_run(target)


def test_make_migrate_takes_the_database_that_is_named_before_the_containers() -> None:
    assert "jobyard migrate" in dry_run("migrate", DATABASE_URL="postgresql://user:pa$$word@host/db")
    contained = dry_run("migrate")
    assert contained.strip().endswith("scripts/compose.sh migrate")
    assert "pip" not in contained, "whoever has containers needs no Python"


def dry_run(target: str, **settings: str) -> str:
    kept = {"PATH": os.environ["PATH"]} | settings
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--always-make", target],
        cwd=ROOT,
        env=kept,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_script(folder: Path, *arguments: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """scripts/compose.sh where PATH holds only these programs, each a script that tells what it was given."""
    for name, text in programs.items():
        program = folder / name.replace("_", "-")
        program.write_text(f'#!/bin/sh\n{text}\necho "{name}: $*"\n')
        program.chmod(0o755)
    return subprocess.run(
        ["/bin/sh", SCRIPT, *arguments],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )


RUNS = '[ "$*" = "compose ps --quiet postgres" ] && echo 0123456789ab && exit 0'
RUNS_NOT = '[ "$*" = "compose ps --quiet postgres" ] && exit 0'


def test_the_plugin_is_taken_and_else_the_program(tmp_path: Path) -> None:
    assert run_script(tmp_path, "down", docker_compose="").stdout == "docker_compose: down\n"
    assert run_script(tmp_path, "down", docker="", docker_compose="").stdout == "docker: compose down\n"


def test_migrate_is_run_in_a_container_beside_those_that_run(tmp_path: Path) -> None:
    assert run_script(tmp_path, "migrate", docker=RUNS).stdout == "docker: compose run --rm migrate\n"


def test_what_an_engine_that_is_not_there_says_is_passed_on(tmp_path: Path) -> None:
    down = '[ "$2" = ps ] && echo "Cannot connect to the Docker daemon" >&2 && exit 1'
    told = run_script(tmp_path, "migrate", docker=down)
    assert (told.returncode, told.stdout, told.stderr) == (1, "", "Cannot connect to the Docker daemon\n")


@pytest.mark.parametrize(
    ("arguments", "programs", "says"),
    [
        (["up"], {}, "there is no docker compose on this machine; install Docker"),
        (["up"], {"docker": "exit 1"}, "there is no docker compose on this machine; install Docker"),
        (["migrate"], {}, "there is no database to migrate: set DATABASE_URL to your PostgreSQL"),
        (["migrate"], {"docker": RUNS_NOT}, "or start the containers with `make up`"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(
    tmp_path: Path, arguments: list[str], programs: dict[str, str], says: str
) -> None:
    refused = run_script(tmp_path, *arguments, **programs)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert says in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
