"""The Dockerfile and the compose file as values; the second as the real compose binary reads it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".venv-tools" / "bin"


@dataclass(slots=True)
class Stage:
    """The instructions from one FROM to the next, in order: `("RUN", "useradd ...")`."""

    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [rest for instruction, rest in self.instructions if instruction == name]

    @property
    def environment(self) -> dict[str, str]:
        pairs = [word for line in self.all("ENV") for word in shlex.split(line)]
        return dict(pair.split("=", 1) for pair in pairs)


def stages() -> list[Stage]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append(Stage())
        if found:
            found[-1].instructions.append((name, rest))
    return found


def compose(
    *arguments: str, files: tuple[Path, ...] = (), engine: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """The real compose binary on our file and these, with no setting from outside."""
    named = [word for file in (ROOT / "docker-compose.yml", *files) for word in ("--file", str(file))]
    command = [str(TOOLS / "docker-compose"), "--project-directory", str(ROOT), "--env-file", os.devnull]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [*command, *named, *arguments],
        env=kept | ({"DOCKER_HOST": engine} if engine else {}) | settings,
        capture_output=True,
        text=True,
        timeout=60,
    )


@cache
def resolved(*files: Path, **settings: str) -> dict[str, Any]:
    """What compose makes of our file, and of these on top."""
    read = compose("config", "--format", "json", files=files, **settings)
    assert read.returncode == 0, read.stderr
    return json.loads(read.stdout)
