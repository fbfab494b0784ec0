"""Ids of jobs: UUIDv7, which order by the time they were made and do not tell it (the database's clock does)."""

import os
import time

from asyncpg.pgproto.pgproto import UUID

_VERSION_7 = 0x7000
_VARIANT = 0x8000000000000000
_SUB_MILLISECOND_STEPS = 4096


def new_job_id() -> UUID:
    """48 bits of milliseconds, 12 bits of their fraction, 62 random bits."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * _SUB_MILLISECOND_STEPS // 1_000_000
    high = (milliseconds & 0xFFFFFFFFFFFF) << 16 | _VERSION_7 | fraction
    low = int.from_bytes(os.urandom(8)) >> 2 | _VARIANT
    return UUID((high << 64 | low).to_bytes(16))
