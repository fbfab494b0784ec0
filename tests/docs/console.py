"""The console blocks of a document, run as written against a running Jobyard, and their output compared or renewed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"(?<=```console\n).*?(?=^```)", re.DOTALL | re.MULTILINE)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VARYING = [
    (UUID, "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|\+00(?::00)?)?"), "<time>"),
    (re.compile(r"\d+(?:[.,]\d+)? ?(?:s|ms|min)\b"), "<duration>"),
    (re.compile(r"\d+(?:[.,]\d+)?(?= ?jobs/s)"), "<number>"),
    (re.compile(r"[\s─━═┄]+|[-+]{3,}"), ""),
]
PYTHON = re.compile(r"(?<=```python\n)# (\w+)\.py\n.*?(?=^```)", re.DOTALL | re.MULTILINE)
SHOWN_URL, SHOWN_HOME, SHOWN_FOLDER = "http://localhost:3000", "/var/lib/jobyard", "/home/you/yard"
STARTS_EVERYTHING = "make run"
COLUMNS = 100

# `make psql` without looking whether requirements have to be installed first.
MAKE = 'make() { eval "$PYTHON -m jobyard.store.embedded ${2#ARGS=}"; }\n'


@dataclass(slots=True)
class Exchange:
    command: str
    output: str


def exchanges(block: str) -> list[Exchange]:
    found: list[Exchange] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(Exchange(line[2:], ""))
        else:
            found[-1].output += line + "\n"
    return found


def comparable(text: str) -> str:
    """What remains of an output when everything that differs from run to run is taken out."""
    for pattern, replacement in VARYING:
        text = pattern.sub(replacement, text)
    return text


def write_files(text: str, folder: Path) -> list[str]:
    """What a document has its reader write: modules, whose names are given back, and files that it shows by `cat`."""
    for block in BLOCK.findall(text):
        for exchange in exchanges(block):
            if exchange.command.startswith("cat "):
                (folder / exchange.command.removeprefix("cat ")).write_text(exchange.output)
    for module in PYTHON.finditer(text):
        (folder / f"{module[1]}.py").write_text(module[0])
    return [module[1] for module in PYTHON.finditer(text)]


class Console:
    """A shell at a running Jobyard; `$ID` is the job that was seen last."""

    def __init__(self, url: str, home: Path, folder: Path, environment: dict[str, str]) -> None:
        self._url, self._home, self._folder = url, home, folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        self._environment = environment | {
            "PATH": path,
            "PYTHON": sys.executable,
            "ID": "",
            "COLUMNS": str(COLUMNS),
        }

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", MAKE + command.replace(SHOWN_URL, self._url).replace("curl ", "curl -sS ")],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        output = done.stdout or done.stderr
        shown = ((self._url, SHOWN_URL), (str(self._home), SHOWN_HOME), (str(self._folder), SHOWN_FOLDER))
        for here, there in shown:
            output = output.replace(here, there)
        if ids := UUID.findall(output):
            self._environment["ID"] = ids[0]
        return "\n".join(map(_tidy, output.splitlines())) + "\n"

    def wait_until_final(self) -> None:
        """What a reader's own pace gives: the job of the last command has ended."""
        if self._environment["ID"]:
            self.run(f'curl -H "Prefer: wait=20" {SHOWN_URL}/api/jobs/$ID')


def _tidy(line: str) -> str:
    """The line of a box that became shorter with the path in it is as wide as the others again."""
    if line.startswith("│") and line.endswith("│"):
        return line[:-1].rstrip().ljust(COLUMNS - 1) + "│"
    return line.rstrip()


def follow(document: Path, console: Console) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Runs every console block: each command with its output as shown and as seen. With JOBYARD_RENEW_README set what
    was seen is written."""
    text = renewed = document.read_text()
    shown: list[tuple[str, str]] = []
    seen: list[tuple[str, str]] = []
    for block in BLOCK.findall(text):
        commands = exchanges(block)
        if commands[0].command == STARTS_EVERYTHING:
            continue
        for exchange in commands:
            console.wait_until_final()
            output = console.run(exchange.command)
            shown.append((exchange.command, comparable(exchange.output)))
            seen.append((exchange.command, comparable(output)))
            exchange.output = output
        renewed = renewed.replace(block, "".join(f"$ {e.command}\n{e.output}" for e in commands), 1)
    if os.environ.get("JOBYARD_RENEW_README"):
        document.write_text(renewed)
    return shown, seen
