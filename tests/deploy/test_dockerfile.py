"""The image: its Dockerfile has no known fault, and only what is named gets into its build."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.engine import send_context
from deploy.recipe import ROOT, TOOLS, stages
from jobyard.cli import app
from jobyard.config import Settings

GUIDE = ROOT / "docs" / "how-to" / "deploy-with-compose.md"


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / "hadolint", "--no-color", "-"], input=text, capture_output=True, text=True, timeout=60
    )


def dockerfiles() -> dict[str, str]:
    """Ours, and those that the guide has its reader write."""
    guide = GUIDE.read_text(encoding="utf-8")
    shown = re.findall(r"```dockerfile\n(.*?)```", guide, re.DOTALL)
    ours = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    return {"Dockerfile": ours} | {f"in the guide, {i}": text for i, text in enumerate(shown, 1)}


@pytest.mark.parametrize("name", dockerfiles())
def test_the_linter_finds_nothing(name: str) -> None:
    text = dockerfiles()[name]
    assert "hadolint ignore" not in text
    found = hadolint(text)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize(
    ("was", "planted", "rule"),
    [
        ("FROM ${PYTHON_IMAGE}\n", "FROM python:latest\n", "DL3007"),
        ("USER 10001:10001", "USER root", "DL3002"),
        ("PIP_NO_CACHE_DIR=1", "PIP_QUIET=1", "DL3042"),
        ('CMD ["api"]', "CMD api", "DL3025"),
    ],
)
def test_the_linter_finds_a_fault_that_is_planted(was: str, planted: str, rule: str) -> None:
    text = dockerfiles()["Dockerfile"]
    assert was in text
    found = hadolint(text.replace(was, planted))
    assert found.returncode == 1
    assert rule in found.stdout


def test_python_is_pinned_to_the_one_that_the_tests_run_on() -> None:
    """The linter does not look into an ARG."""
    [image] = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfiles()["Dockerfile"], re.MULTILINE)
    ci = (ROOT / "scripts" / "find-python.sh").read_text(encoding="utf-8")
    [version] = re.findall(r'^candidates="python(3\.\d+) ', ci, re.MULTILINE)
    assert re.fullmatch(rf"python:{re.escape(version)}-slim-[a-z]+", image)


def test_the_image_is_as_an_orchestrator_wants_it() -> None:
    _, image = stages()
    [user] = image.all("USER")
    assert user == "10001:10001"
    assert image.all("EXPOSE") == ["3000"]
    assert image.all("STOPSIGNAL") == ["SIGTERM"]
    [program], [command] = image.all("ENTRYPOINT"), image.all("CMD")
    assert (json.loads(program), json.loads(command)) == (["jobyard"], ["api"])
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in image.all("LABEL")[0]


def test_every_role_is_a_command_of_the_image() -> None:
    for role in ("api", "worker", "maintain", "migrate"):
        assert CliRunner().invoke(app, [role, "--help"]).exit_code == 0, role


def test_every_variable_of_the_image_is_one_that_somebody_reads() -> None:
    ours = {field.metadata["variable"] for field in Settings.__dataclass_fields__.values()}
    of_python = {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    assert stages()[-1].environment.keys() <= ours | of_python


def test_the_image_listens_beyond_loopback_once_it_has_a_key() -> None:
    settings = Settings.read(stages()[-1].environment | {"JOBYARD_KEY": "a-key"})
    assert (settings.host, settings.port, settings.health_port) == ("0.0.0.0", 3000, 3000)


def test_the_build_installs_what_is_pinned_with_its_hashes_and_nothing_else() -> None:
    build, image = stages()
    installs = [run for run in build.all("RUN") if "pip install" in run]
    assert len(installs) == 2
    for install in installs:
        assert "--require-hashes" in install or "--no-deps --no-build-isolation" in install
    assert [run for run in image.all("RUN") if "pip" in run or "apt" in run] == []


SECRETS = [".env", ".git/config", "src/.env", "src/jobyard/.netrc", "jobs/mine.py", "requirements/dev.txt"]
LEFTOVERS = [
    "src/jobyard.egg-info/PKG-INFO",
    "src/jobyard/__pycache__/config.cpython-311.pyc",
    ".venv/bin/python",
]


def test_only_what_is_named_gets_into_the_build(tmp_path: Path) -> None:
    tree, context = tmp_path / "tree", tmp_path / "context"
    for name in (
        "Dockerfile",
        ".dockerignore",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "requirements/image.txt",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    wanted = files_in(tree)
    for name in (*SECRETS, *LEFTOVERS):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("not for the image")
    send_context(tree, context)
    assert files_in(context) == wanted


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
