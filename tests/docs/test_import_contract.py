"""The import contract covers every part of the package, and breaks where it should."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "tool"
]["importlinter"]["contracts"]

Lint = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    """Runs the contract on a copy of the package to which lines were added: `lint({"domain/job.py": "import os"})`."""

    def run(lines: dict[str, str]) -> subprocess.CompletedProcess[str]:
        copy = tmp_path / "jobyard"
        shutil.copytree(ROOT / "src" / "jobyard", copy, ignore=shutil.ignore_patterns("__pycache__"))
        for path, line in lines.items():
            (copy / path).parent.mkdir(exist_ok=True)
            with (copy / path).open("a", encoding="utf-8") as module:
                module.write(f"\n{line}\n")
        command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", ROOT / "pyproject.toml"]
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )

    return run


def parts() -> set[str]:
    package = ROOT / "src" / "jobyard"
    found = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    return {f"jobyard.{part}" for part in found - {"__init__"}}


def test_every_part_is_protected_by_exactly_one_contract() -> None:
    protected = [part for contract in CONTRACTS for part in contract.get("protected_modules", [])]
    ours = [part for part in protected if part.startswith("jobyard.")]
    assert sorted(ours) == sorted(parts())


def test_the_contract_names_no_part_that_is_not_there() -> None:
    importers = {part for contract in CONTRACTS for part in contract.get("allowed_importers", [])}
    files = {f"jobyard.{path.parent.name}.{path.stem}" for path in (ROOT / "src" / "jobyard").glob("*/*.py")}
    assert importers <= parts() | files


def test_the_tree_keeps_its_contract(lint: Lint) -> None:
    kept = lint({})
    assert kept.returncode == 0, kept.stdout


@pytest.mark.parametrize("path", ["newcomer.py", "newcomer/__init__.py"])
def test_a_new_part_without_a_place_breaks_the_contract(lint: Lint, path: str) -> None:
    found = lint({path: '"""New."""'})
    assert found.returncode == 1, found.stdout + found.stderr
    assert "jobyard.newcomer" in found.stdout


def test_every_import_that_may_not_be_breaks_the_contract(lint: Lint) -> None:
    lines = {
        "newcomer.py": "import jobyard.store.reads",
        "domain/job.py": "import asyncio, msgspec, jobyard.telemetry",
        "worker/pool.py": "import jobyard.bus.listener, jobyard.maintain.due",
        "client/http.py": "import jobyard.config",
        "cli/get.py": "import jobyard.store.reads",
        "bus/listener.py": "import jobyard.store.reads",
        "config/values.py": "import jobyard.ids",
    }
    told = lint(lines).stdout
    for path, line in lines.items():
        importer = "jobyard." + path.removesuffix(".py").replace("/", ".")
        for imported in line.removeprefix("import ").split(", "):
            assert f"{importer} -> {imported} " in told


def test_the_domain_is_kept_from_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["embedded"]]
    modules = {
        requirement.split(">")[0].replace("-", "_").removesuffix("_api") for requirement in requirements
    }
    [pure] = [contract for contract in CONTRACTS if contract["id"] == "domain-is-pure"]
    assert modules <= set(pure["forbidden_modules"])


def test_the_command_line_starts_without_the_server() -> None:
    """What `jobyard create` does not need it does not load: `main` and `bench` come with the commands that use them."""
    look = "import sys, jobyard.cli; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(found.stdout.split())
    assert "jobyard.cli.app" in loaded
    assert loaded.isdisjoint(
        {"jobyard.main", "jobyard.bench", "jobyard.store", "jobyard.api", "asyncpg", "starlette"}
    )
