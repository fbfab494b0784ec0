"""What a container would hold and how it would run it, without an engine: Linux namespaces made by `unshare`.

The package is built from the build context alone. Python and the dependencies are those of this environment: they are
pinned alike, and a test in tests/docs holds that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from deploy.engine import send_context
from deploy.recipe import ROOT, stages
from processes.program import Program, running

SOCKET_NAME = ".s.PGSQL.5432"
# Python, the dependencies and the socket of the embedded PostgreSQL are mounted into the box, since the way to where
# they are may be closed to a stranger. Then everything is read-only, and the role is process 1, another user, and without any power.
ENTER = """
mount --bind "$PREFIX" "$BOX/python"
mount --bind "$DEPENDENCIES" "$BOX/dependencies"
[ -z "$SOCKET" ] || mount --bind "$SOCKET" "$BOX/socket/${SOCKET##*/}"
mount -o remount,bind,ro /
cd "$BOX/jobs"
exec setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


@dataclass(frozen=True, slots=True)
class Box:
    folder: Path

    @property
    def wheel(self) -> Path:
        [wheel] = (self.folder / "wheels").glob("*.whl")
        return wheel

    @property
    def context(self) -> Path:
        return self.folder / "context"

    def command(self, *arguments: str) -> list[str]:
        python = self.folder / "python" / "bin" / f"python3.{sys.version_info.minor}"
        return [
            *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *("sh", "-euc", ENTER, "sh", str(python), *arguments),
        ]

    def environment(self, **settings: str) -> dict[str, str]:
        """The image's own variables, these above them, and what leads to Python, dependencies and database."""
        database = settings.get("DATABASE_URL", "")
        [socket] = parse_qs(urlsplit(database).query).get("host", [""])
        if socket:
            settings["DATABASE_URL"] = database.replace(socket, str(self.folder / "socket"))
        site, dependencies = self.folder / "site", self.folder / "dependencies"
        ours = {
            "BOX": str(self.folder),
            "PREFIX": sys.base_prefix,
            "DEPENDENCIES": sysconfig.get_path("purelib"),
            "PYTHONPATH": f"{site}{os.pathsep}{dependencies}",
            "SOCKET": socket and f"{socket}/{SOCKET_NAME}",
            "LD_LIBRARY_PATH": str(self.folder / "python" / "lib"),
        }
        return stages()[-1].environment | {"PATH": os.environ["PATH"]} | settings | ours

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run `python ARGUMENTS` in the box to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    @contextlib.contextmanager
    def program(self, output: Path, *arguments: str, **settings: str) -> Generator[Program]:
        """`python ARGUMENTS` as process 1 of the box, while the context is open."""
        with running(self.command(*arguments), self.environment(**settings), output) as program:
            yield program


def first_of(program: Program) -> int:
    """The process that is 1 in its box, as this side numbers it; `unshare` itself passes no signal on."""
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
    deadline = time.monotonic() + 15
    while not (found := children.read_text().split()):
        assert time.monotonic() < deadline, program.said
        time.sleep(0.01)
    return int(found[0])


def build(folder: Path) -> Box:
    """The package built from what an engine would be sent, and installed where there is nothing else of ours."""
    send_context(ROOT, folder / "context")
    source = folder / "source"
    shutil.copytree(folder / "context", source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    only = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *only, "--wheel-dir", folder / "wheels", source], check=True, timeout=120)
    shutil.rmtree(source)
    box = Box(folder)
    with zipfile.ZipFile(box.wheel) as wheel:
        wheel.extractall(folder / "site")
    for mount in ("python", "dependencies", "socket", "jobs"):
        (folder / mount).mkdir()
    (folder / "socket" / SOCKET_NAME).touch()
    return box
