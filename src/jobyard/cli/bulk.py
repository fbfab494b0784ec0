"""`jobyard create --file`: a stream of lines to a stream of outcomes, with a count that is true at any moment."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import typer

from jobyard.cli.connection import connect
from jobyard.cli.endings import Exit
from jobyard.cli.lines import JobLine, keyed, numbered, parse
from jobyard.cli.progress import Progress, progress
from jobyard.cli.terminal import say, say_json
from jobyard.client import Created, Problem, Refused

if TYPE_CHECKING:
    from jobyard.client import Client, ClientError

STDIN = "-"
LONGEST_RUN_ID = 200


@dataclass
class Tally:
    """What the server has answered for. `replayed`: how many of the created were so by an earlier request. `through_line`:
    every line up to it is settled."""

    run_id: str
    created: int = 0
    replayed: int = 0
    refused: int = 0
    through_line: int = 0
    complete: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def jobs_per_second(self) -> float:
        return self.created / max(self.seconds, 1e-9)

    def as_json(self) -> bytes:
        summary = {
            "created": self.created,
            "replayed": self.replayed,
            "refused": self.refused,
            "seconds": round(self.seconds, 3),
            "jobsPerSecond": round(self.jobs_per_second, 1),
            "throughLine": self.through_line,
            "complete": self.complete,
            "runId": self.run_id,
        }
        return msgspec.json.encode({"summary": summary})

    def so_far(self) -> str:
        earlier = f" ({self.replayed:,} of them earlier)" if self.replayed else ""
        return f"{self.created:,} created{earlier}, {self.refused:,} refused"

    def as_text(self) -> str:
        return f"{self.so_far()} in {self.seconds:.1f} s ({self.jobs_per_second:,.0f} jobs/s)"


def create_file(file: str, run_id: str | None, retry_for: float, *, as_json: bool) -> Exit:
    """Creates every job of the file. An interruption is told together with how to go on, then raised."""
    tally = Tally(_checked(run_id) if run_id is not None else str(uuid.uuid4()))
    with (
        _opened(file) as source,
        progress(_size(source)) as shown,
        connect(retry_seconds=retry_for, on_retry=_retry_note(shown)) as client,
    ):
        client.ping()
        try:
            FileCreate(client, source, shown, tally, as_json=as_json).run()
        except BaseException:
            shown.note(_how_to_go_on(file, tally))
            raise
        finally:
            _sum_up(tally, as_json=as_json)
    return Exit.REFUSED if tally.refused else Exit.OK


class FileCreate:
    """One pass over the file. Lines are sent as the client asks for them; its answers come in the same order."""

    def __init__(
        self, client: Client, source: BinaryIO, shown: Progress, tally: Tally, *, as_json: bool
    ) -> None:
        self._client = client
        self._source = source
        self._shown = shown
        self._tally = tally
        self._as_json = as_json
        self._read = 0
        self._sent: deque[int] = deque()

    def run(self) -> None:
        for outcome in self._client.create_each(self._jobs()):
            number = self._sent.popleft()
            self._settle(number, outcome)
            self._tally.through_line = number
        self._tally.complete = True

    def _jobs(self) -> Iterator[JobLine]:
        for number, line in numbered(self._source):
            self._read += len(line) + 1
            try:
                job = keyed(parse(line), self._tally.run_id, number)
            except ValueError as fault:
                problem = Problem(code="malformed_line", detail=str(fault))
                self._settle(number, Refused(problem=problem))
            else:
                self._sent.append(number)
                yield job

    def _settle(self, number: int, outcome: Created | Refused) -> None:
        match outcome:
            case Created(id=job_id, status=status, replayed=replayed):
                self._tally.created += 1
                self._tally.replayed += replayed
                self._print({"line": number, "id": job_id, "status": status})
            case Refused(problem=problem):
                self._tally.refused += 1
                self._print({"line": number, "problem": problem})
                self._shown.note(f"line {number}: {problem}")
        self._shown.at(self._read, self._tally.so_far())

    def _print(self, outcome: dict[str, Any]) -> None:
        if self._as_json:
            say_json(msgspec.json.encode(outcome))


def _opened(file: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if file == STDIN:
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="--file") from None


def _size(source: BinaryIO) -> int | None:
    """None where the end is not known, e.g. a pipe."""
    try:
        found = os.fstat(source.fileno())
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _checked(run_id: str) -> str:
    if not 1 <= len(run_id) <= LONGEST_RUN_ID or not run_id.isascii() or not run_id.isprintable():
        raise typer.BadParameter(f"1 to {LONGEST_RUN_ID} printable ASCII characters", param_hint="--run-id")
    return run_id


def _retry_note(shown: Progress) -> Any:
    def note(failure: ClientError, pause: float) -> None:
        shown.note(f"{failure}; trying again in {pause:.1f} s")

    return note


def _how_to_go_on(file: str, tally: Tally) -> str:
    again = f"jobyard create --file {shlex.quote(file)} --run-id {shlex.quote(tally.run_id)}"
    return f"stopped after line {tally.through_line}; the same input again makes no doubles with: {again}"


def _sum_up(tally: Tally, *, as_json: bool) -> None:
    # A reader of stdout that went away is told by the write that failed, not by this one.
    with contextlib.suppress(BrokenPipeError):
        if as_json:
            say_json(tally.as_json())
        else:
            say(tally.as_text())
