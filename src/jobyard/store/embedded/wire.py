"""The smallest client of PostgreSQL's protocol: is the server there, and does it do this one statement?

It is synchronous and needs no event loop, so that a server can be started from anywhere, a running loop included.
"""

from __future__ import annotations

import socket
import struct
from typing import BinaryIO

DONE = "00000"
SILENCE = ""
STARTING_OR_STOPPING = "57P"
NO_SUCH_DATABASE = "3D000"

_PROTOCOL_3 = 196608


def ask(socket_path: str, user: str, database: str, sql: str | None = None, seconds: float = 5.0) -> str:
    """Connects over a unix socket, runs `sql` if given, and returns the SQLSTATE that the server ends with:
    DONE, its refusal, or SILENCE when nobody answers within `seconds`."""
    try:
        with socket.socket(socket.AF_UNIX) as line, line.makefile("rb") as answers:
            line.settimeout(seconds)
            line.connect(socket_path)
            line.sendall(_startup(user, database))
            answer = _until_ready(answers)
            if answer == DONE and sql is not None:
                line.sendall(_message(b"Q", sql.encode() + b"\0"))
                answer = _until_ready(answers)
            if answer == DONE:
                line.sendall(_message(b"X", b""))
            return answer
    except OSError:
        return SILENCE


def _startup(user: str, database: str) -> bytes:
    options = b"".join(word.encode() + b"\0" for word in ("user", user, "database", database))
    return _message(b"", struct.pack("!I", _PROTOCOL_3) + options + b"\0")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _until_ready(answers: BinaryIO) -> str:
    """Reads to ReadyForQuery, or to the end: a refused connection is closed right after its error."""
    error = SILENCE
    while len(head := answers.read(5)) == 5:
        kind, size = struct.unpack("!cI", head)
        body = answers.read(size - 4)
        if kind == b"E":
            error = _sqlstate(body)
        if kind == b"Z":
            return error or DONE
    return error


def _sqlstate(body: bytes) -> str:
    return next((field[1:].decode() for field in body.split(b"\0") if field[:1] == b"C"), SILENCE)
