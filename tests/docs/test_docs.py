"""The documents say what is true: what code can say is made from it, and what it cannot is checked against it."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jobyard.domain.lifecycle import MOVES, Status

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
EMBEDDED = "To run without a PostgreSQL of your own (extra `embedded`)"
OTEL = "To send traces (extra `otel`)"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


def groups() -> dict[str, list[str]]:
    """What each heading of docs/dependencies.md lists, as pyproject.toml names it."""
    told = project()
    lists = {
        "To run": told["project"]["dependencies"],
        EMBEDDED: told["project"]["optional-dependencies"]["embedded"],
        OTEL: told["project"]["optional-dependencies"]["otel"],
        "To build": told["dependency-groups"]["build"],
        "To develop": told["dependency-groups"]["dev"],
        "Programs that check": told["dependency-groups"]["tools"],
    }
    return {heading: sorted(map(name_of, requirements)) for heading, requirements in lists.items()}


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/document.py."""
    spec = importlib.util.spec_from_file_location("document", ROOT / "scripts" / "document.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    ["docs/architecture.md", "docs/settings.md", "docs/reference/log-events.md", "docs/reference/metrics.md"],
)
def test_what_is_made_from_the_code_is_current(document: ModuleType, name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == document.documented(name), "run `make docs`"


def test_the_drawing_has_every_move_with_every_cause_and_no_other(document: ModuleType) -> None:
    drawn = {
        (Status(start), Status(end)): set(causes.split(", "))
        for start, end, causes in re.findall(r"^ *(\w+) --> (\w+) : (.+)$", document.states(), re.MULTILINE)
    }
    assert drawn == {move: set(causes) for move, causes in MOVES.items()}


def test_a_new_part_of_the_package_must_be_said_in_the_layout(
    document: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "newcomer.py").write_text('"""New."""')
    monkeypatch.setattr(document, "PACKAGE", tmp_path)
    with pytest.raises(SystemExit, match=r"PARTS says nothing of newcomer\.py"):
        document.layout()


@pytest.mark.parametrize("heading", groups())
def test_every_dependency_is_listed_with_its_reason(heading: str) -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    [section] = [part for part in text.split("\n## ") if part.startswith(f"{heading}\n")]
    rows = re.findall(r"^\| ([\w.-]+) \| (\S.*\S) \|$", section, re.MULTILINE)
    listed = {package: reason for package, reason in rows if package not in ("package", "---")}
    assert sorted(listed) == groups()[heading]
    assert all(len(reason.split()) >= 3 for reason in listed.values())


def test_whatever_the_package_imports_is_a_dependency_of_its_own() -> None:
    packages = [*groups()["To run"], *groups()[EMBEDDED], *groups()[OTEL]]
    # All of OpenTelemetry is one namespace.
    declared = {name.replace("-", "_").removesuffix("_api") for name in packages}
    ours_and_python = {*sys.stdlib_module_names, "jobyard"}
    imported = {name for source in SOURCES for name in _imports(source)} - ours_and_python
    assert imported <= declared


def _imports(source: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!\w+:)([^)#\s]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize(
    "document", [ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_every_path_that_is_named_is_there(document: Path) -> None:
    named = re.findall(
        r"`((?:src|tests|docs|scripts|requirements)/[\w./-]*)`", document.read_text(encoding="utf-8")
    )
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_records_of_decisions_are_numbered_without_a_gap() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_folder_of_tests_is_explained() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    folders |= {path.parent.parent.name for path in (ROOT / "tests").glob("*/*/test_*.py")}
    assert [folder for folder in sorted(folders) if f"`tests/{folder}`" not in text] == []
