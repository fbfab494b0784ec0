"""The key and the password of the database, planted and then looked for in all that the API says."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx

from jobyard.store.database import Connection
from processes.program import Program, free_port, program
from worker.yard import Yard, until

KEY = "planted-key-5f0c9a1e"
PASSWORD = "planted-password-77"
SECRETS = {
    form
    for secret in (KEY, PASSWORD)
    for form in (secret, base64.b64encode(f"me:{secret}".encode()).decode())
}
JOB = "/api/jobs/01a210f7-d16a-75cb-ae71-932ef940bb06"
MAIL = b'{"type":"email","payload":{"to":"user@example.com"}}'
JSON = {"Content-Type": "application/json"}
RIGHT = f"Bearer {KEY}"
SHOWN = [
    *(RIGHT, f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer wrong"),
    "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode(),
]


@asynccontextmanager
async def api(yard: Yard, folder: Path) -> AsyncIterator[tuple[Program, int]]:
    port = free_port()
    address = f"{yard.url}&password={PASSWORD}"
    with program(folder, "api", DATABASE_URL=address, JOBYARD_KEY=KEY, PORT=str(port)) as process:
        async with httpx.AsyncClient(trust_env=False) as client:

            async def is_ready() -> bool:
                try:
                    return (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success
                except httpx.HTTPError:
                    return False

            await until(is_ready, "it is ready", 60)
        yield process, port


async def requests_of_all_kinds(port: int) -> str:
    """What is answered, heads and bodies."""
    told: list[str] = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        for shown in SHOWN:
            key = {"Authorization": shown}
            for method, path, body in (
                ("GET", "/api/jobs", b""),
                ("GET", JOB, b""),
                ("GET", "/docs", b""),
                ("GET", "/openapi.json", b""),
                ("GET", "/nowhere", b""),
                ("DELETE", "/api/jobs", b""),
                ("POST", "/api/jobs", MAIL),
                ("POST", "/api/jobs", b"{"),
                ("POST", "/api/jobs/bulk", b'{"jobs":[%b]}' % MAIL),
            ):
                answer = await client.request(method, path, content=body, headers=key | JSON)
                told.append(f"\n{answer.status_code} {answer.headers} {answer.text}")
    return "".join(told)


async def bytes_of_all_kinds(port: int) -> str:
    """The right key within what is no request."""
    told = ""
    for sent in (
        f"GET /api/jobs HTTP/1.1\r\nAuthorization : {RIGHT}\r\n\r\n",
        f"GET /api/jobs HTTP/1.1\r\nAuthorization: {RIGHT}\r\nX: \0\r\n\r\n",
        f"GET /api/jobs HTTP/1.1\r\nAuthorization: {RIGHT}\r\nX: {'y' * 40_000}\r\n\r\n",
        f"GET /api/jobs HTTP/3.3\r\nAuthorization: {RIGHT}\r\n\r\n",
        f"{KEY} / HTTP/1.1\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent.encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 4")
        told += answer
        writer.close()
    return told


async def close(database: str, elsewhere: str) -> None:
    """Nobody gets at the database any more."""
    admin = await asyncpg.connect(elsewhere)
    await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
    await admin.close()


async def test_neither_key_nor_password_is_in_anything_it_says(
    yard: Yard, connection: Connection, server: Callable[[str], str], tmp_path: Path
) -> None:
    async with api(yard, tmp_path) as (process, port):
        told = await requests_of_all_kinds(port) + await bytes_of_all_kinds(port)
        # A statement that fails, then connections that end, then no database at all.
        await connection.execute("ALTER TABLE jobyard.job RENAME TO gone")
        told += await requests_of_all_kinds(port)
        await connection.execute("ALTER TABLE jobyard.gone RENAME TO job")
        await close(await connection.fetchval("SELECT current_database()"), server("postgres"))
        told += await requests_of_all_kinds(port)
        await until(lambda: "database_unavailable" in process.said, "the trouble is logged")
        said = process.said
    assert all(f"\n{status} " in told for status in (200, 202, 400, 401, 404, 405, 503))
    assert [secret for secret in SECRETS if secret in told or secret in said] == []
