"""A PostgreSQL of our own, for `make run`, tests and bench: started when first needed, shared by every process
that names the same home, stopped by the last one to leave.

Nothing here believes a process id. Three files tell the truth, because the kernel drops a lock with its holder,
however that one died:

    start.lock    held by whoever starts or stops the server: one at a time
    users.lock    shared by all users; who can have it alone is the last
    server.lock   inherited by every process of the server; free means that none is left

And the server is up when it answers on its socket.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from jobyard.store.embedded.lock import held_alone, is_held, open_lock, share, take_alone
from jobyard.store.embedded.majors import refuse_another_major
from jobyard.store.embedded.programs import (
    EmbeddedPostgresError,
    Programs,
    ServerUser,
    find_programs,
    within_reach,
)
from jobyard.store.embedded.wire import DONE, NO_SUCH_DATABASE, SILENCE, STARTING_OR_STOPPING, ask

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]

OWNER = "jobyard"
PATIENCE_SECONDS = 120.0
LONG_WAIT_SECONDS = 3.0
LOG_LIMIT_BYTES = 8 << 20
LOG_KEPT_BYTES = 1 << 20
SOCKET_PATH_LIMIT_BYTES = 100
SOCKET_NAME = ".s.PGSQL.5432"

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": "5432",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def _silently(_: str) -> None:
    pass


class EmbeddedPostgres:
    """One user's hold on the PostgreSQL server of a home.

    `home` is the folder that holds everything, in `home/postgres`. `settings` are PostgreSQL settings for the
    server, if this start launches it; a running server keeps those it has. `say` hears what takes long.
    """

    def __init__(
        self, home: Path, *, settings: Mapping[str, str] | None = None, say: Callable[[str], None] = _silently
    ) -> None:
        self.home = home.resolve()
        self.folder = self.home / "postgres"
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.socket_folder = _socket_folder(self.folder)
        self.version = ""
        self._settings = {**SETTINGS, "unix_socket_directories": str(self.socket_folder), **(settings or {})}
        self._say = say
        self._membership: int | None = None
        self._told_of_wait: float | None = None

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id that the server has written down, for messages; None when there is no server."""
        try:
            return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def url(self, database: str) -> str:
        """Address of a database of this server, for asyncpg and psql alike."""
        return f"postgresql://{OWNER}@/{quote(database, safe='')}?host={quote(str(self.socket_folder))}"

    def start(self) -> str:
        """Joins the running server, or launches it, and makes the database `jobyard` if it is missing. Returns
        that database's address. Called again, it revives a server that has died meanwhile. Raises
        EmbeddedPostgresError."""
        with self._faults_told("started"):
            self._user = ServerUser.here()
            self._prepare_folders()
            with held_alone(self.folder / "start.lock") as turn:
                self._prepare_socket_folder()
                if self._membership is None:
                    self._membership = self._enter(turn)
                else:
                    self._find_or_launch(turn)
        return self.url(OWNER)

    def stop(self) -> None:
        """Leaves; the last user to leave stops the server. Raises EmbeddedPostgresError."""
        if self._membership is None:
            return
        membership, self._membership = self._membership, None
        try:
            with self._faults_told("stopped"), held_alone(self.folder / "start.lock"):
                self.trim_log()
                if take_alone(membership):
                    self._shut_down()
        finally:
            os.close(membership)

    def trim_log(self) -> None:
        """Cuts a server log that has grown past its limit to its newest part. Every start and stop does this;
        whoever keeps a server for weeks calls it now and then."""
        if not self.log.exists() or self.log.stat().st_size <= LOG_LIMIT_BYTES:
            return
        # The server appends to this very file, so it is shortened in place.
        with self.log.open("r+b") as log:
            log.seek(-LOG_KEPT_BYTES, os.SEEK_END)
            newest = log.read().partition(b"\n")[2]
            log.seek(0)
            log.write(newest)
            log.truncate()

    @contextmanager
    def _faults_told(self, done: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise EmbeddedPostgresError(
                f"The PostgreSQL in {self.folder} could not be {done}: {error}. If the folder belongs to another "
                "user, work as that user or set JOBYARD_HOME to a folder of your own."
            ) from error

    def _prepare_folders(self) -> None:
        barrier = self._user.barrier_to(self.folder)
        if barrier is not None:
            raise EmbeddedPostgresError(
                f"PostgreSQL refuses to run as root, so it runs as {self._user.name}, who cannot enter {barrier} and so "
                f"cannot reach {self.folder}. Set JOBYARD_HOME to a folder that every user can enter on the way, such "
                f"as /var/lib/jobyard, or allow it with `chmod o+x {barrier}`."
            )
        # A lent user has to pass through what root owns; the folder of any other user is closed to the rest.
        mode = 0o711 if self._user.lent else 0o700
        for folder in (self.home, self.folder):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(mode)

    def _prepare_socket_folder(self) -> None:
        try:
            self.socket_folder.mkdir(mode=0o700)
            self._user.receives(self.socket_folder)
        except FileExistsError:
            # The short folder's place is open to everyone, so another user could have put one there first.
            found = self.socket_folder.lstat()
            if self.socket_folder.is_symlink() or found.st_uid != self._user.uid or found.st_mode & 0o077:
                raise EmbeddedPostgresError(
                    f"The folder {self.socket_folder}, for the socket of PostgreSQL, does not belong to "
                    f"{self._user.name} alone. Work as the user it belongs to, or remove it."
                ) from None

    def _enter(self, turn: int) -> int:
        """Becomes a user before the server is looked at, so that nobody can be the last meanwhile."""
        membership = open_lock(self.folder / "users.lock")
        try:
            share(membership)
            self._find_or_launch(turn)
            return membership
        except BaseException:
            os.close(membership)
            raise

    def _find_or_launch(self, turn: int) -> None:
        programs = find_programs()
        self.version = programs.version
        refuse_another_major(self.data, self.socket_folder, programs, self._user, OWNER)
        answer = self._await_answer()
        if answer == SILENCE:
            programs = within_reach(programs, self._user, self.folder / "programs", self._say)
            self._make_data(programs, turn)
            self._launch(programs)
            answer = self._await_answer()
        if answer == SILENCE:
            raise EmbeddedPostgresError(
                f"PostgreSQL {programs.version} ended as soon as it was started on {self.data}. The end of its log "
                f"{self.log}:\n{self._end_of_log()}"
            )
        self._have_database(answer)

    def _answer(self, database: str = OWNER, sql: str | None = None, seconds: float = 5.0) -> str:
        return ask(str(self.socket_folder / SOCKET_NAME), OWNER, database, sql, seconds)

    def _is_running(self) -> bool:
        """Whether any process of the server is left, one that starts, recovers or dies included."""
        return is_held(self.folder / "server.lock")

    def _await_answer(self) -> str:
        """What the server says to a connection, once it takes them or refuses for good; SILENCE if there is none."""
        began = time.monotonic()
        while (answer := self._answer()) == SILENCE or answer.startswith(STARTING_OR_STOPPING):
            if not self._is_running():
                return SILENCE
            self._wait_a_moment(began, "It may be recovering after a crash: start again to go on waiting.")
        return answer

    def _wait_a_moment(self, began: float, advice: str) -> None:
        waited = time.monotonic() - began
        if waited > LONG_WAIT_SECONDS and self._told_of_wait != began:
            # Once a wait, however late the machine lets us look.
            self._told_of_wait = began
            self._say(f"Waiting for PostgreSQL; what it does stands in {self.log}.")
        if waited > PATIENCE_SECONDS:
            raise EmbeddedPostgresError(
                f"The PostgreSQL in {self.folder} (process {self.pid}) was not ready after {PATIENCE_SECONDS:.0f} s. "
                f"{advice} What it does stands in {self.log}."
            )
        time.sleep(0.01 if waited < 1 else 0.1)

    def _make_data(self, programs: Programs, turn: int) -> None:
        """Makes the data folder under another name first, so that one by its right name is always whole."""
        half_made = self.folder / "data.half-made"
        if half_made.exists():
            shutil.rmtree(half_made)
        if self.data.exists():
            return
        self._say(f"Making a PostgreSQL {programs.version} database in {self.data}, once.")
        half_made.mkdir(mode=0o700)
        self._user.receives(half_made)
        self._initdb(programs, half_made, turn)
        half_made.rename(self.data)
        _sync_folder(self.folder)

    def _initdb(self, programs: Programs, folder: Path, turn: int) -> None:
        command = [
            programs.path("initdb"),
            "-D",
            str(folder),
            "-U",
            OWNER,
            "-E",
            "UTF8",
            "--locale=C",
            "-A",
            "trust",
        ]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        # initdb holds our turn too: were we killed, the next start would else sweep under its hands.
        made = subprocess.run(command, capture_output=True, text=True, pass_fds=(turn,), **self._as_process())
        if made.returncode != 0:
            shutil.rmtree(folder)
            raise EmbeddedPostgresError(
                f"A PostgreSQL database could not be made in {self.data}: {made.stderr.strip()} Mend that and start again."
            )

    def _as_process(self) -> dict[str, Any]:
        """How programs of PostgreSQL run: where they may stand, and without our secrets in the environment."""
        known = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        environment = {**known, "LC_ALL": "C", "TZ": "UTC"}
        return {
            "cwd": self.folder,
            "env": environment,
            "stdin": subprocess.DEVNULL,
            **self._user.as_process(),
        }

    def _launch(self, programs: Programs) -> None:
        """Starts the server in a session of its own, as nobody's child: it outlives us and Ctrl-C."""
        self._forget_the_dead()
        self.trim_log()
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        command = [programs.path("postgres"), "-D", str(self.data), *options]
        with held_alone(self.folder / "server.lock") as life, self.log.open("ab") as log:
            self._log_begins = log.tell()
            subprocess.run(
                ["/bin/sh", "-c", '"$@" &', "sh", *command],
                check=True,
                start_new_session=True,
                pass_fds=(life,),
                stdout=log,
                stderr=log,
                **self._as_process(),
            )

    def _forget_the_dead(self) -> None:
        """Removes what a killed server left when its process id now belongs to another program, as in every
        restarted container: PostgreSQL would take that one for itself and refuse to start."""
        pid = self.pid
        if pid is not None and _is_of_another_program(pid):
            (self.data / "postmaster.pid").unlink()
            for left in self.socket_folder.glob(f"{SOCKET_NAME}*"):
                left.unlink()

    def _end_of_log(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_begins)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-12:])

    def _have_database(self, answer: str) -> None:
        if answer == NO_SUCH_DATABASE:
            answer = self._answer("postgres", f"CREATE DATABASE {OWNER}", seconds=60)
        if answer != DONE:
            raise EmbeddedPostgresError(
                f"The PostgreSQL in {self.folder} runs and does not let us into the database {OWNER} (SQLSTATE {answer}). "
                f"The reason stands in {self.log}."
            )

    def _shut_down(self) -> None:
        began = time.monotonic()
        asked = False
        while self._is_running():
            if not asked and self._answer() != SILENCE:
                self._ask_to_stop()
                asked = True
            self._wait_a_moment(began, "It was asked to stop and is still writing its data.")
        if self.socket_folder.parent != self.folder:
            shutil.rmtree(self.socket_folder, ignore_errors=True)

    def _ask_to_stop(self) -> None:
        pid = self.pid
        if pid is None or _is_of_another_program(pid):
            raise EmbeddedPostgresError(
                f"The PostgreSQL in {self.folder} was started in another container, which has to stop it."
            )
        os.kill(pid, signal.SIGINT)


def _socket_folder(folder: Path) -> Path:
    """Inside `folder` if a socket's address can hold that path, else a short one derived from it."""
    inside = folder / "socket"
    length = len(os.fsencode(inside / SOCKET_NAME))
    if length < SOCKET_PATH_LIMIT_BYTES and re.fullmatch(r"[\w./+@-]+", str(inside), re.ASCII):
        return inside
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path("/tmp") / f"jobyard-{name}"  # noqa: S108 - its owner is checked, and TMPDIR is not one for all users


def _is_of_another_program(pid: int) -> bool:
    """Whether `pid` lives and is no PostgreSQL. Unknown, as where there is no /proc, is no."""
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False
    return not Path(os.fsdecode(program)).name.startswith(("postgres", "postmaster"))


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
