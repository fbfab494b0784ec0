"""Databases on the server that a test run shares."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg


@contextmanager
def copied_database(server: Callable[[str], str], template: str) -> Iterator[str]:
    """The address of a copy of the template, dropped at the end."""
    name = f"test_{uuid.uuid4().hex[:16]}"

    async def execute(sql: str) -> None:
        connection = await asyncpg.connect(server("postgres"))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(execute(f"CREATE DATABASE {name} TEMPLATE {template}"))
    try:
        yield server(name)
    finally:
        asyncio.run(execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
