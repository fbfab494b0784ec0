"""docs/how-to/test-your-handlers.md does what it says: its files are written to a folder, and its commands run there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.console import UUID

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "test-your-handlers.md"
FILE = re.compile(r"(?<=```)(?:python|ini)\n# (\S+)\n.*?(?=^```)", re.DOTALL | re.MULTILINE)
TEXT = re.compile(r"(?<=```text\n).*?(?=^```)", re.DOTALL | re.MULTILINE)

Shell = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def guide() -> str:
    return GUIDE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shell(guide: str, tmp_path_factory: pytest.TempPathFactory, server: Callable[[str], str]) -> Shell:
    """Runs a command in the folder of a reader who has written down every file of the guide."""
    folder = tmp_path_factory.mktemp("reader")
    for file in FILE.finditer(guide):
        (folder / file[1]).write_text(file[0].partition("\n")[2])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOBYARD_", "PYTEST_"))}
    environment = kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "JOBYARD_TEST_DATABASE_URL": server("postgres"),
        # The reader of the guide has the plugins it names, and not those of this project.
        "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:xdist",
    }

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
        )

    return run


def test_every_python_block_is_a_file_that_is_tested(guide: str) -> None:
    names = [file[1] for file in FILE.finditer(guide)]
    assert len(names) == len(set(names)) == len(re.findall(r"^```(?:python|ini)$", guide, re.MULTILINE))
    tested = [name for name in names if name.startswith("test_")]
    assert {*names} - {*tested} == {"shop.py", "pytest.ini", "a_typo.py", "unit_tests.py"}


def test_all_tests_of_the_guide_pass_but_that_whose_message_is_shown(guide: str, shell: Shell) -> None:
    tests = len(re.findall(r"^(?:async )?def test_", guide, re.MULTILINE))
    [message] = TEXT.findall(guide)
    ran = shell("pytest -q test_*.py a_typo.py")
    assert f"1 failed, {tests - 1} passed" in ran.stdout
    told = UUID.sub("<id>", "\n".join(re.findall(r"^E {3,7}(.*)$", ran.stdout, re.MULTILINE)))
    assert [line.strip() for line in told.splitlines()] == [
        line.strip() for line in UUID.sub("<id>", message).splitlines()
    ]
