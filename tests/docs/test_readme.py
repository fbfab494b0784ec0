"""Every command and example of the README is run as written, and does what is shown beside it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
sys.path.insert(0, str(Path(__file__).parent))

from console import Console, follow, write_files
from server_process import Running, running_dev

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    write_files(README.read_text(), folder)
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Generator[Running]:
    with running_dev(JOBYARD_APP="greetings", PYTHONPATH=str(folder)) as running:
        yield running


def test_every_console_block_does_what_it_shows(running: Running, folder: Path) -> None:
    shown, seen = follow(README, Console(running.url, running.home, folder, running.environment))
    assert seen == shown


def test_make_run_prints_a_curl_line_the_data_folder_and_how_to_stop(running: Running) -> None:
    printed = running.output.read_text()
    assert f"Jobyard is ready at {running.url}" in printed
    assert f"curl -X POST {running.url}/api/jobs" in printed
    assert str(running.home / "postgres" / "data") in printed
    assert "Ctrl-C" in printed


def test_every_file_that_the_readme_names_is_there() -> None:
    named = re.findall(r"\]\(([^)#:]+)\)|`(src/[\w/.]+)`", README.read_text())
    missing = [path for pair in named for path in pair if path and not (ROOT / path).exists()]
    assert named
    assert missing == []


def test_every_make_target_that_the_readme_names_is_there() -> None:
    targets = set(re.findall(r"make ([a-z]+)", README.read_text()))
    for target in targets:
        listed = subprocess.run(["make", "-n", "-C", str(ROOT), target], capture_output=True, text=True)
        assert "No rule to make target" not in listed.stderr, target
    assert {"run", "check", "migrate", "psql"} <= targets
