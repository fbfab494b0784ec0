"""The commands of the project: what make offers, what is pinned, which Python is taken, what CI does with a skip."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = [ROOT / "requirements" / f"{name}.txt" for name in ("run", "dev", "image", "tools")]
PINNED = re.compile(
    r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)(?: ; [^\\]+)?((?: \\\n {4}--hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE
)


def make(*arguments: str) -> str:
    # Under `make test` there is an outer make, whose wishes are not for this one.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "CI"))
    }
    found = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


# make


def test_help_lists_every_command_and_is_what_make_alone_does() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    listed = re.findall(r"^make ([\w-]+) +\S", make("help"), re.MULTILINE)
    assert sorted(listed) == sorted(phony.split())
    assert make() == make("help")


def test_check_is_format_lint_types_contract_and_tests_in_this_order() -> None:
    said = make("--dry-run", "check")
    steps = ["ruff format --check", "ruff check", "pyright", "lint-imports", "pytest"]
    found = [said.index(step) for step in steps]
    assert found == sorted(found)


def test_a_skipped_test_is_a_failure_in_ci_alone() -> None:
    assert "-p ci_plugin" in make("--dry-run", "test", "CI=true")
    assert "ci_plugin" not in make("--dry-run", "test")


def test_installs_check_every_hash_and_fetch_no_build_backend() -> None:
    said = make("--dry-run", "--always-make", "install")
    installs = [line for line in said.splitlines() if " install " in line]
    assert len(installs) == 4
    for line in installs:
        assert "--require-hashes" in line or "--no-deps --no-build-isolation" in line


# What is pinned


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_with_hashes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    names = re.findall(r"^([\w.-]+)", text, re.MULTILINE)
    assert [name for name, _, _ in PINNED.findall(text)] == names
    assert len(names) > 20


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_no_address_and_no_path_is_in_the_requirements(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    assert re.findall(r"^\s*-(?!-hash)", text, re.MULTILINE) == []
    assert re.findall(r"(?:^|\s)/\w+|\w+/\w+", text) == []


def test_what_runs_is_pinned_alike_for_users_and_for_tests() -> None:
    run, dev, image, _ = (
        {name: (version, hashes) for name, version, hashes in PINNED.findall(path.read_text())}
        for path in REQUIREMENTS
    )
    assert run.items() <= dev.items()
    assert image.items() <= dev.items()


# Which Python


@pytest.fixture
def find_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs scripts/find-python.sh where PATH holds only these: `python3="new"`, "old" or "bare" (it has no venv)."""
    answers = {"new": "exit 0", "old": "exit 1", "bare": 'case "$2" in *ensurepip*) exit 1;; esac; exit 0'}

    def find(chosen: str | None = None, **programs: str) -> subprocess.CompletedProcess[str]:
        for name, kind in programs.items():
            program = tmp_path / name.replace("_", ".")
            program.write_text(f"#!/bin/sh\n{answers[kind]}\n")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        environment = {"PATH": str(tmp_path)} | ({"PYTHON": chosen} if chosen else {})
        script = ROOT / "scripts" / "find-python.sh"
        return subprocess.run(
            ["/bin/sh", script], env=environment, capture_output=True, text=True, timeout=60
        )

    return find


@pytest.mark.parametrize(
    ("programs", "taken"),
    [
        ({"python3": "new"}, "python3"),
        ({"python3": "old", "python3_12": "new"}, "python3.12"),
        ({"python3": "new", "python3_11": "new"}, "python3.11"),
        ({"python3_11": "bare", "python3_13": "new"}, "python3.13"),
        ({"python": "new"}, "python"),
    ],
)
def test_the_first_python_that_can_make_the_environment_is_taken(
    find_python: Callable[..., subprocess.CompletedProcess[str]], programs: dict[str, str], taken: str
) -> None:
    found = find_python(**programs)
    assert (found.returncode, found.stdout) == (0, f"{taken}\n")


@pytest.mark.parametrize(
    ("chosen", "programs", "says"),
    [
        (None, {}, "there is no Python 3.11 or newer on PATH"),
        (None, {"python3": "old"}, "there is no Python 3.11 or newer on PATH"),
        (None, {"python3_11": "bare"}, "apt-get install python3.11-venv"),
        ("mine", {"python3": "new"}, "PYTHON=mine is not a Python 3.11 or newer"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(
    find_python: Callable[..., subprocess.CompletedProcess[str]],
    chosen: str | None,
    programs: dict[str, str],
    says: str,
) -> None:
    refused = find_python(chosen, **programs)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert says in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_python_that_was_named_is_taken_before_all_others(
    find_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    assert find_python("mine", mine="new", python3_11="new").stdout == "mine\n"


# CI

SKIPS = """
import pytest

def test_passes(): pass

def test_skips(): pytest.skip("no database here")

@pytest.mark.skipif(True, reason="not on this machine")
def test_is_skipped(): pass

@pytest.mark.needs_cloud_account
def test_needs_an_account(): pytest.skip("no account")

@pytest.mark.xfail(reason="known", strict=True)
def test_known(): assert False
"""


def run_in_ci(folder: Path, *options: str, **tests: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = needs_cloud_account: an exception\n")
    for name, text in tests.items():
        (folder / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "ci_plugin", "-p", "no:cacheprovider", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("options", [("-p", "no:xdist"), ("-n", "2")], ids=["alone", "parallel"])
def test_in_ci_a_skip_counts_as_failed_unless_it_needs_an_account(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    found = run_in_ci(tmp_path, *options, skips=SKIPS)
    assert found.returncode == 1
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error" in found.stdout
    assert "no database here" in found.stdout
    assert "not on this machine" in found.stdout


@pytest.mark.parametrize("options", [("-p", "no:xdist"), ("-n", "2")], ids=["alone", "parallel"])
def test_in_ci_a_file_that_is_skipped_whole_is_a_failure_too(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    whole = 'import pytest\npytest.importorskip("no_such_package")\n'
    found = run_in_ci(tmp_path, *options, whole=whole, passes="def test_passes(): pass\n")
    assert found.returncode != 0
    assert "no_such_package" in found.stdout


def test_in_ci_all_is_well_where_nothing_is_skipped(tmp_path: Path) -> None:
    found = run_in_ci(tmp_path, "-p", "no:xdist", passes="def test_passes(): pass\n")
    assert found.returncode == 0, found.stdout
    assert "1 passed" in found.stdout
