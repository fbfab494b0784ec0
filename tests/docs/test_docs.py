"""The documents say what is true: what code can say is made from it, and what it cannot is checked against it."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from jobyard.cli.endings import Exit
from jobyard.config import Settings
from jobyard.domain.lifecycle import MOVES, Status
from jobyard.worker.runner import CANCEL_PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"
SOURCES = sorted((ROOT / "src").rglob("*.py"))
EMBEDDED = "To run without a PostgreSQL of your own (extra `embedded`)"
OTEL = "To send traces (extra `otel`)"
NATS = "To carry events over NATS (extra `nats`)"
GCP = "To carry events over Google Pub/Sub, and to emulate it (extra `gcp`)"
GENERATED = [
    "docs/explanation/architecture.md",
    "docs/explanation/states.svg",
    "docs/reference/errors.md",
    "docs/reference/http.md",
    "docs/reference/python.md",
    "docs/reference/settings.md",
    "docs/reference/cli.md",
    "docs/reference/log-events.md",
    "docs/reference/metrics.md",
]
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
        GCP: told["project"]["optional-dependencies"]["gcp"],
        NATS: told["project"]["optional-dependencies"]["nats"],
        "To build": told["dependency-groups"]["build"],
        "To develop": told["dependency-groups"]["dev"],
        "Programs that check": told["dependency-groups"]["tools"],
    }
    return {heading: sorted(map(name_of, requirements)) for heading, requirements in lists.items()}


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/document.py."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    spec = importlib.util.spec_from_file_location("document", ROOT / "scripts" / "document.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", GENERATED)
def test_what_is_made_from_the_code_is_current(document: ModuleType, name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == document.documented(name), "run `make docs`"


def test_the_command_line_is_documented_with_every_command_option_and_exit_code(document: ModuleType) -> None:
    commands = document.commands()
    for name in (
        "create [TYPE] [PAYLOAD]",
        "get ID",
        "list",
        "watch [ID]",
        "attempts ID",
        "dead-letters purge [ID]...",
        "stats",
        "bench SCENARIO",
    ):
        assert f"## `jobyard {name}`\n" in commands
    assert "| `--retry-for SECONDS` | Keep trying so long while the server is away. (30) |" in commands
    assert "| `--install-completion` |" in commands
    codes = re.findall(r"^\| (\d+) \| \S", document.exit_codes(), re.MULTILINE)
    assert codes == [str(int(code)) for code in Exit]


def test_the_drawing_has_every_move_with_every_cause_and_no_other(document: ModuleType) -> None:
    drawing = ElementTree.fromstring(document.DRAWINGS["docs/explanation/states.svg"]())
    drawn = {
        tuple(map(Status, group.attrib["id"].split("-"))): {
            cause for line in group.iter(f"{SVG}tspan") for cause in (line.text or "").split(", ")
        }
        for group in drawing.iter(f"{SVG}g")
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
    packages = [*groups()["To run"], *groups()[EMBEDDED], *groups()[OTEL], *groups()[GCP], *groups()[NATS]]
    # All of OpenTelemetry is one namespace, and so is all of Google.
    other_names = {
        "google-cloud-pubsub": "google",
        "google-api-core": "google",
        "grpcio": "grpc",
        "nats-py": "nats",
    }
    declared = {other_names.get(name, name.replace("-", "_").removesuffix("_api")) for name in packages}
    ours_and_python = {*sys.stdlib_module_names, "jobyard"}
    imported = {name for source in SOURCES for name in _imports(source)} - ours_and_python
    # The plugin is imported by pytest alone, so whoever needs it has it.
    assert imported - {"pytest"} <= declared
    assert [source.name for source in SOURCES if "pytest" in _imports(source)] == ["plugin.py"]


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
    "document",
    [ROOT / "docs" / "explanation" / "architecture.md", ROOT / "CONTRIBUTING.md"],
    ids=lambda p: p.name,
)
def test_every_path_that_is_named_is_there(document: Path) -> None:
    named = re.findall(
        r"`((?:src|tests|docs|scripts|requirements)/[\w./-]*)`", document.read_text(encoding="utf-8")
    )
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_limits_are_all_told_with_their_true_defaults() -> None:
    text = (ROOT / "docs" / "reference" / "limits.md").read_text(encoding="utf-8")
    told = re.findall(r"^\|[^|]+\| ([\d.]+)(?: s)? \| `(JOBYARD_\w+)` \|", text, re.MULTILINE)
    bounds = {
        field.metadata["variable"]: f"{field.default:g}"
        if isinstance(field.default, float)
        else str(field.default)
        for field in dataclasses.fields(Settings)
        if re.search(r"_MAX_|_TIMEOUT_|_QUEUE", field.metadata["variable"])
    }
    assert {variable: default for default, variable in told} == bounds


def test_the_guide_to_long_jobs_tells_how_long_a_stopped_handler_may_clean_up() -> None:
    text = (ROOT / "docs" / "how-to" / "long-jobs.md").read_text(encoding="utf-8")
    assert f"{CANCEL_PATIENCE_SECONDS:g} seconds (`CANCEL_PATIENCE_SECONDS`)" in text


def test_records_of_decisions_are_numbered_without_a_gap() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_folder_of_tests_is_explained() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    folders |= {path.parent.parent.name for path in (ROOT / "tests").glob("*/*/test_*.py")}
    assert [folder for folder in sorted(folders) if f"`tests/{folder}`" not in text] == []


def test_every_test_that_a_promise_names_is_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
    assert [
        pair for pair in named if f"def {pair[1]}(" not in (ROOT / pair[0]).read_text(encoding="utf-8")
    ] == []


def test_every_promise_names_a_test_or_says_that_its_feature_is_to_come() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    promises = re.split(r"^### (?=P\d+\.)", text.partition("## Prove it")[0], flags=re.MULTILINE)[1:]
    assert [promise.partition(".")[0] for promise in promises] == [f"P{number}" for number in range(1, 13)]
    assert [p for p in promises if "`tests/" not in p and "later release" not in p] == []
