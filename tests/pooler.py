"""A real connection pooler before the database of a test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest


@contextmanager
def pooler_before(database: str, *, sessions: int = 20) -> Iterator[str]:
    """The address of the same database behind pgbouncer in transaction mode, which has so many sessions to lend."""
    if shutil.which("pgbouncer") is None:
        pytest.skip("pgbouncer is not installed")
    parts = urlsplit(database)
    host = parts.hostname or parse_qs(parts.query)["host"][0]
    port = parts.port or int(parse_qs(parts.query).get("port", ["5432"])[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own_port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="jobyard-pgbouncer-"))
    folder.chmod(0o755)
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={host} port={port} user={parts.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own_port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {sessions}\n"
        f"[users]\n"
    )
    program = ["pgbouncer", "-q", str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:  # it refuses to run as root
        program = ["setpriv", "--reuid=nobody", "--clear-groups", *program]
    process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", own_port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None, f"{program} ended"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    try:
        yield f"postgresql://{parts.username}@127.0.0.1:{own_port}{parts.path}"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)
