"""The steps of the Dockerfile's build stage, carried out in a folder: from the registry, so it is left to `make soak`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from databases import copied_database
from deploy.engine import send_context
from deploy.recipe import ROOT, Stage, stages


def carry_out(stage: Stage, context: Path, root: Path) -> None:
    """Each instruction as an engine would, with `/opt` and the working folder below `root` instead of `/`."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    folder = root
    for name, rest in stage.instructions:
        here = rest.replace("/opt/", f"{root}/opt/")
        match name:
            case "FROM":
                continue
            case "ENV":
                environment |= dict(pair.split("=", 1) for pair in here.split())
            case "WORKDIR":
                folder = root / rest.strip("/")
                folder.mkdir(parents=True)
            case "COPY":
                copy(context, folder, *rest.split())
            case "RUN":
                subprocess.run(["sh", "-euc", here], cwd=folder, env=environment, check=True, timeout=600)
            case _:
                raise AssertionError(f"the build stage has an instruction that is not known here: {name}")


def copy(context: Path, folder: Path, *named: str) -> None:
    *sources, target = named
    for source in sources:
        if (context / source).is_dir():
            shutil.copytree(context / source, folder / target)
        else:
            (folder / target).mkdir(exist_ok=True)
            shutil.copy(context / source, folder / target)


@pytest.mark.soak
def test_the_build_makes_an_environment_that_needs_nothing_else(
    tmp_path: Path, server: Callable[[str], str]
) -> None:
    send_context(ROOT, tmp_path / "context")
    carry_out(stages()[0], tmp_path / "context", tmp_path)
    shutil.rmtree(tmp_path / "build")
    programs = tmp_path / "opt" / "jobyard" / "bin"

    def say(*command: str, **settings: str) -> str:
        done = subprocess.run(
            [programs / command[0], *command[1:]], env=settings, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    packages = (
        "from importlib.metadata import distributions as d; print(*sorted(p.name.lower() for p in d()))"
    )
    installed = {re.sub("[_.]", "-", name) for name in say("python", "-c", packages).split()}
    pinned = re.findall(
        r"^([\w.-]+)==\S+ \\$", (ROOT / "requirements" / "image.txt").read_text(), re.MULTILINE
    )
    assert installed == {*pinned, "jobyard"} - {"setuptools"}
    for role in ("api", "worker", "maintain"):
        assert role in say("jobyard", role, "--help")
    assert say("python", "-c", "import jobyard.main, jobyard.api.app, opentelemetry.sdk.trace") == ""
    with copied_database(server, "template1") as url:
        assert "is up to date" in say("jobyard", "migrate", DATABASE_URL=url)
