"""A file of JSON lines as the items of a bulk, one line in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import msgspec

LONGEST_LINE_BYTES = 16 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NULL = b"null"

JobLine = dict[str, msgspec.Raw]
"""A job's fields as they were written, so that the server sees the very bytes."""


def numbered(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers, from 1, blank ones left out. Of a line beyond the bound only the beginning comes,
    one byte longer than allowed."""
    number = 0
    while line := source.readline(LONGEST_LINE_BYTES + 1):
        number += 1
        if len(line) > LONGEST_LINE_BYTES:
            _skip_rest(source, line)
            yield number, line
        elif text := (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).strip():
            yield number, text


def _skip_rest(source: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = source.readline(LONGEST_LINE_BYTES)


def parse(line: bytes) -> JobLine:
    """Raises ValueError with the reason why the line is no job."""
    if len(line) > LONGEST_LINE_BYTES:
        raise ValueError(f"the line is longer than {LONGEST_LINE_BYTES >> 20} MiB")
    try:
        line.decode("utf-8")
        return msgspec.json.decode(line, type=JobLine)
    except msgspec.ValidationError:
        raise ValueError("the line is not a JSON object") from None
    except msgspec.DecodeError as error:
        raise ValueError(f"the line is not JSON ({error})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"the line is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise ValueError("the line is nested too deep") from None


def keyed(job: JobLine, run_id: str, number: int) -> JobLine:
    """The job with an idempotency key, the same whenever this line of this run is sent; its own one wins."""
    if bytes(job.get("idempotencyKey", NULL)) != NULL:
        return job
    return {**job, "idempotencyKey": msgspec.Raw(msgspec.json.encode(f"{run_id}:{number}"))}
