"""`jobyard dev`: the embedded PostgreSQL, the API, a worker and a maintainer as processes of their own, so that a
blocking handler never stalls HTTP. Whatever ends by itself is started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field

import httpx
from rich.console import Console

from jobyard.config import Settings, without_password
from jobyard.loop import backoff
from jobyard.process import FAILED, OK, SUPERVISED, StartError
from jobyard.store.embedded import EmbeddedPostgres, EmbeddedPostgresError

ROLES = ("api", "worker", "maintain")
READY_SECONDS = 30.0
READY_POLL_SECONDS = 0.05
KILL_AFTER_SECONDS = 3.0
"""Beyond the grace: a process that still runs then is killed."""

POSTGRES_CHECK_SECONDS = 2.0
CHECKS_A_TRIM = 1800
STEADY_SECONDS = 10.0
"""A process that ran this long counts as started well; its next end is its first failure again."""


@dataclass(slots=True)
class _Child:
    role: str
    process: asyncio.subprocess.Process
    started: float = field(default_factory=time.monotonic)

    @property
    def is_steady(self) -> bool:
        return time.monotonic() - self.started > STEADY_SECONDS


class Dev:
    """Runs all roles until told to stop; then all of them end, and the data stays."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children: dict[str, _Child] = {}
        self._console = Console(stderr=False, soft_wrap=True, highlight=False)

    async def run(self, stop: asyncio.Event) -> int:
        self._require_free_port()
        postgres = None
        if self._settings.database_url is None:
            postgres = EmbeddedPostgres(self._settings.home, say=self._console.print)
        try:
            url = await asyncio.to_thread(postgres.start) if postgres else self._settings.database_url
            environment = self._environment(url or "")
            if await self._run_to_end("migrate", environment):
                return FAILED
            return await self._supervise(environment, postgres, stop)
        except EmbeddedPostgresError as trouble:
            raise StartError(str(trouble)) from trouble
        finally:
            if postgres:
                await asyncio.to_thread(postgres.stop)

    def _environment(self, url: str) -> dict[str, str]:
        """What the processes start with: our own environment, where options of the command line take the place of
        their variables."""
        settings = self._settings
        options = {
            "HOST": settings.host,
            "PORT": str(settings.port),
            "JOBYARD_APP": settings.app or "",
            "JOBYARD_CONCURRENCY": str(settings.concurrency),
            "JOBYARD_LOG": "console" if settings.log == "auto" else settings.log,
        }
        return os.environ | options | {"DATABASE_URL": url, SUPERVISED: "1"}

    def _health_port(self, role: str) -> dict[str, str]:
        """One port cannot serve two processes: the worker has it, as its metrics are seen nowhere else and /readyz of
        the API tells how things are. Nobody has it where the API listens on that port, as in the container image."""
        port = self._settings.health_port
        is_given = role == "worker" and port is not None and port != self._settings.port
        return {"JOBYARD_HEALTH_PORT": str(port) if is_given else ""}

    async def _supervise(
        self, environment: dict[str, str], postgres: EmbeddedPostgres | None, stop: asyncio.Event
    ) -> int:
        keepers = [
            asyncio.create_task(self._keep_running(role, environment | self._health_port(role), stop))
            for role in ROLES
        ]
        telling = asyncio.create_task(self._tell_when_ready(postgres))
        guarding = asyncio.create_task(self._keep_postgres_running(postgres, stop))
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait({*keepers, telling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if telling in done and not stop.is_set():
                telling.result()
                await asyncio.wait({*keepers, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for keeper in keepers:
                if keeper.done():
                    keeper.result()
            return OK
        finally:
            stop.set()
            telling.cancel()
            self._console.print(
                f"stopping; running jobs have {self._settings.grace_seconds:g} s to end, and the data stays"
            )
            await asyncio.gather(*(self._end(child) for child in list(self._children.values())))
            for task in (*keepers, telling, stopping):
                task.cancel()
            # The guard is not cancelled but heard out: it must not start a server behind the back of the last stop.
            await asyncio.wait({*keepers, telling, stopping, guarding})

    async def _keep_postgres_running(self, postgres: EmbeddedPostgres | None, stop: asyncio.Event) -> None:
        """Revive the embedded server if it dies, and keep its log within its bound."""
        checks = 0
        while postgres is not None and not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POSTGRES_CHECK_SECONDS):
                    await stop.wait()
                    return
            checks += 1
            with contextlib.suppress(Exception):  # the next check is the cure; the roles tell what they miss
                await asyncio.to_thread(postgres.start)
                if checks % CHECKS_A_TRIM == 0:
                    await asyncio.to_thread(postgres.trim_log)

    def _require_free_port(self) -> None:
        host, port = self._settings.host, self._settings.port
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as taken:
                raise StartError(self._who_holds_the_port(taken)) from taken

    def _who_holds_the_port(self, taken: OSError) -> str:
        url = self._url()
        with contextlib.suppress(httpx.HTTPError):
            if "jobyard" in httpx.get(f"{url}/healthz", timeout=1, trust_env=False).headers.get("server", ""):
                return (
                    f"Jobyard runs already at {url}; use that one, or set PORT and JOBYARD_HOME to start another "
                    "beside it"
                )
        return f"cannot listen on {self._settings.host}:{self._settings.port} ({taken.strerror}); set PORT to a free one"

    def _url(self) -> str:
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        return f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{self._settings.port}"  # noqa: S104 - compared, not bound

    async def _start_process(self, role: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
        # A session of its own: Ctrl-C reaches only the supervisor, which then ends the others in order. Its end of
        # the pipe closes even if it is killed, and they end with it.
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "jobyard.cli",
            role,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def _run_to_end(self, role: str, environment: dict[str, str]) -> int:
        return await (await self._start_process(role, environment)).wait()

    async def _keep_running(self, role: str, environment: dict[str, str], stop: asyncio.Event) -> None:
        failures = 0
        while not stop.is_set():
            child = _Child(role, await self._start_process(role, environment))
            self._children[role] = child
            code = await child.process.wait()
            if stop.is_set():
                return
            if code == FAILED and not failures and not child.is_steady:
                raise StartError(f"the {role} process ended before it had started; see above")
            failures = 1 if child.is_steady else failures + 1
            if failures > 5:
                raise StartError(
                    f"the {role} process ended {failures} times in a row, last with code {code}; see above"
                )
            pause = backoff(failures)
            self._console.print(
                f"the {role} process ended with code {code}; starting it again in {pause:.1f} s"
            )
            await asyncio.sleep(pause)

    async def _end(self, child: _Child) -> None:
        if child.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._settings.grace_seconds + KILL_AFTER_SECONDS):
                await child.process.wait()
        except TimeoutError:
            child.process.kill()
            await child.process.wait()

    async def _tell_when_ready(self, postgres: EmbeddedPostgres | None) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                async with asyncio.timeout(READY_SECONDS):
                    while not await self._is_ready(client):  # noqa: ASYNC110 - what is awaited is another process
                        await asyncio.sleep(READY_POLL_SECONDS)
            except TimeoutError:
                self._console.print(f"the API is not ready after {READY_SECONDS:g} s; see the messages above")
                return
        self._greet(postgres)

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await client.get(f"{self._url()}/readyz", timeout=1)).is_success
        return False

    def _greet(self, postgres: EmbeddedPostgres | None) -> None:
        url = self._url()
        data = f"{postgres.data}" if postgres else without_password(self._settings.database_url or "")
        key = ' -H "Authorization: Bearer $JOBYARD_KEY"' if self._settings.key else ""
        self._console.print(
            f"""
Jobyard is ready at {url}
  try it    curl -X POST {url}/api/jobs{key} -H 'Content-Type: application/json' -d '{{"type":"email","payload":{{"to":"user@example.com"}}}}'
  read      {url}/docs
  mails     {(self._settings.smtp_url and "by JOBYARD_SMTP_URL") or self._settings.home / "outbox"}
  data      {data}
  stop      Ctrl-C (the data stays)
""",
            markup=False,
        )
