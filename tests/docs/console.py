"""Commands of a page and what they print, as a reader types and sees them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from docs.pages import ROOT
from jobyard.store.embedded.programs import find_programs

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VARYING = [
    (UUID, "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|\+00(?::00)?)?"), "<time>"),
    (re.compile(r"(?i)^(date: ).*", re.MULTILINE), r"\1<time>"),
    (re.compile(r"\b[0-9a-f]{16,32}\b"), "<hex>"),
    (
        re.compile(
            r'(?i)(?<=\(request )[\w-]+|(?<="requestId":")[\w-]+|(?<=:request:)[\w-]+|(?<=request-id: )[\w-]+'
        ),
        "<id>",
    ),
    (re.compile(r'(?<="pageToken":")[\w-]+|(?<="nextPageToken":")[\w-]+'), "<token>"),
    (re.compile(r"\d+(?:[.,]\d+)? ?(?:s|ms|min|seconds)\b"), "<duration>"),
    (re.compile(r"\d+(?:[.,]\d+)?(?= ?jobs/s)"), "<number>"),
    (re.compile(r"[\s─━═┄]+|[-+=]{3,}"), ""),
]
"""What differs from run to run."""

LEFT_OUT = "..."
"""A line of its own in an output: any number of lines that the page does not show."""

SHOWN_URL, SHOWN_DATABASE = "http://localhost:3000", "postgresql://localhost/jobs"
SHOWN_HOME, SHOWN_FOLDER, SHOWN_HOST = "/var/lib/jobyard", "/home/you/yard", "box"
COLUMNS = 100
COMMAND_SECONDS = 60

FUNCTIONS = """
psql() {
    if [ -n "$DATABASE_URL" ]; then command psql --no-psqlrc --dbname "$DATABASE_URL" "$@"
    else python -m jobyard.store.embedded "$@"; fi
}
curl() { command curl -sS "$@"; }
make() {
    case "$1" in
        psql) eval "psql ${2#ARGS=}" ;;
        *) echo "the tests of the documentation know no make $*: mark the block as not run" >&2; return 99 ;;
    esac
}
"""


@dataclass(slots=True)
class Exchange:
    """`typed` is the command with its prompts, line by line; `output` what the page shows below it."""

    typed: list[str]
    output: str = ""

    @property
    def command(self) -> str:
        return "\n".join(line[2:] if line[:2] in ("$ ", "> ") else line for line in self.typed)

    def text(self, output: str) -> str:
        return "\n".join(self.typed) + "\n" + output


def exchanges(text: str) -> list[Exchange]:
    """A command begins with `$ `; it goes on after a backslash, and in lines that begin with `> `."""
    found: list[Exchange] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Exchange([line]))
        elif not found:
            raise ValueError(f"a console block begins with a command: {line}")
        elif not found[-1].output and (line.startswith("> ") or found[-1].typed[-1].endswith("\\")):
            found[-1].typed.append(line)
        else:
            found[-1].output += line + "\n"
    return found


def comparable(text: str) -> str:
    """What remains of an output when everything that differs from run to run is taken out."""
    for pattern, replacement in VARYING:
        text = pattern.sub(replacement, text)
    return text


def shows(shown: str, seen: str) -> bool:
    """Whether the page's output is what was seen, as far as the page shows it."""
    pieces: list[list[str]] = [[]]
    for line in shown.splitlines():
        if line.strip() == LEFT_OUT:
            pieces.append([])
        else:
            pieces[-1].append(line)
    pattern = ".*".join(re.escape(comparable("\n".join(piece))) for piece in pieces)
    return re.fullmatch(pattern, comparable(seen), re.DOTALL) is not None


@dataclass(slots=True)
class Console:
    """A shell in the reader's folder. What a command exports is there for the next; `$ID` is the job seen last."""

    folder: Path
    environment: dict[str, str]
    shown_for: dict[str, str]
    """What stands in this run for what the page shows: the address, the home."""

    code: int = 0
    started: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]])
    outputs: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="jobyard-docs-")))

    def __post_init__(self) -> None:
        programs = Path(sys.executable).parent
        path = [str(programs), str(Path(find_programs().path("psql")).parent), self.environment["PATH"]]
        self.environment |= {
            "PATH": os.pathsep.join(path),
            "COLUMNS": str(COLUMNS),
            "ID": "",
            "PWD": str(self.folder),
        }
        (self.folder / ".venv").symlink_to(programs.parent)
        self.shown_for |= {
            str(self.folder): SHOWN_FOLDER,
            sys.prefix: f"{SHOWN_FOLDER}/.venv",
            str(ROOT): f"{SHOWN_FOLDER}/jobyard",
            socket.gethostname() + ":": SHOWN_HOST + ":",
        }

    @property
    def job(self) -> str:
        return self.environment["ID"]

    @property
    def here(self) -> Path:
        """Where `cd` has led."""
        return Path(self.environment["PWD"])

    def run(self, command: str) -> str:
        """Its output, as the page would show it; `code` is then its exit code."""
        script = f"{FUNCTIONS}(exit {self.code})\n{self.actual(command)}"
        kept = self.outputs / "environment"
        done = subprocess.run(
            ["bash", "-c", f"trap 'code=$?; env -0 > {kept}; exit $code' EXIT\n{script}"],
            cwd=self.here,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        self.code = done.returncode
        pairs = (pair.partition("=") for pair in kept.read_text().split("\0") if "=" in pair)
        self.environment = {name: value for name, _, value in pairs}
        output = self.as_shown(done.stdout)
        if ids := UUID.findall(output):
            self.environment["ID"] = ids[0]
        return output

    def start(self, command: str) -> Path:
        """Goes on in the background until the page has ended; where its output goes."""
        output = self.outputs / f"{len(self.started)}.output"
        with output.open("w") as out:
            self.started.append(
                subprocess.Popen(
                    ["bash", "-c", FUNCTIONS + self.actual(command)],
                    cwd=self.here,
                    env=self.environment,
                    stdout=out,
                    stderr=out,
                    stdin=subprocess.DEVNULL,
                    text=True,
                    start_new_session=True,
                )
            )
        return output

    def close(self) -> None:
        for process in self.started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.outputs)

    def actual(self, text: str) -> str:
        """With this run's address in place of the one that pages show."""
        for actual, shown in self.shown_for.items():
            if shown == SHOWN_URL:
                text = text.replace(shown, actual)
        return text

    def as_shown(self, output: str) -> str:
        for actual, shown in sorted(self.shown_for.items(), key=lambda pair: -len(pair[0])):
            output = output.replace(actual, shown)
        return "".join(_tidy(line) + "\n" for line in output.splitlines())


def _tidy(line: str) -> str:
    """The line of a box that became shorter with the path in it is as wide as the others again."""
    if line.startswith("│") and line.endswith("│"):
        return line[:-1].rstrip().ljust(COLUMNS - 1) + "│"
    return line.rstrip()


def variables(words: Sequence[str]) -> dict[str, str]:
    """`NAME=value` pairs before a command."""
    return dict(word.split("=", 1) for word in words)


STARTS = re.compile(
    r"(?P<variables>(?:\w+=\S* )*)(?:make(?: -C \S+)? run|(?:\S*/)?jobyard dev)(?P<options>.*)"
)


def starts_everything(command: str) -> tuple[dict[str, str], list[str]] | None:
    """`JOBYARD_APP=jobs make run`, `jobyard dev --app jobs`: the variables and options that it starts with."""
    found = STARTS.fullmatch(command)
    return (
        (variables(shlex.split(found["variables"])), shlex.split(found["options"], comments=True))
        if found
        else None
    )
