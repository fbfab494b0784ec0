"""An API, a worker and a maintainer as processes, each with its metrics on a port."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx

from processes.program import Program, free_port, program
from worker.yard import Yard, until

KEY = "the-key-of-all-this-0451"


@dataclass
class Processes:
    programs: dict[str, Program]
    ports: dict[str, int]
    client: httpx.AsyncClient

    @property
    def said(self) -> str:
        return "".join(it.said for it in self.programs.values())

    async def metrics(self, role: str, **headers: str) -> httpx.Response:
        return await self.client.get(f"http://127.0.0.1:{self.ports[role]}/metrics", headers=headers)

    async def is_ready(self, role: str) -> bool:
        try:
            return (await self.client.get(f"http://127.0.0.1:{self.ports[role]}/readyz")).is_success
        except httpx.HTTPError:
            return False


@asynccontextmanager
async def yard_processes(
    folder: Path, url: str, *, app: str = "dangerous_jobs", **settings: str
) -> AsyncGenerator[Processes]:
    """All of them, ready. `client` has the key and talks to the API unless told otherwise."""
    ports = {role: free_port() for role in ("api", "worker", "maintain")}
    common = {"DATABASE_URL": url, "JOBYARD_HOME": str(folder), "JOBYARD_KEY": KEY} | settings
    with ExitStack() as programs:
        started = {
            role: programs.enter_context(
                program(
                    folder, role, *(("--app", app) if role == "worker" else ()),
                    **{"PORT" if role == "api" else "JOBYARD_HEALTH_PORT": str(port)}, **common,
                )
            )
            for role, port in ports.items()
        }  # fmt: skip
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{ports['api']}",
            headers={"Authorization": f"Bearer {KEY}"},
            trust_env=False,
            timeout=30,
        ) as client:
            running = Processes(started, ports, client)
            for role in ports:
                await until(lambda role=role: running.is_ready(role), f"{role} is ready", 60)
            yield running


@asynccontextmanager
async def closed_to_all(server: Callable[[str], str], yard: Yard) -> AsyncGenerator[None]:
    """Nobody gets at the yard's database meanwhile, but the yard itself."""
    name = await yard.db.fetchval("SELECT current_database()")
    outside = await asyncpg.connect(server("postgres"))
    try:
        await outside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await yard.terminate_sessions("jobyard%")
        yield
    finally:
        await outside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await outside.close()
