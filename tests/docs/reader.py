"""A reader who does all that a page says, in its order, in an empty folder and with a Jobyard of his own."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import yaml

from docs.console import (
    SHOWN_DATABASE,
    SHOWN_HOME,
    SHOWN_URL,
    Console,
    Exchange,
    exchanges,
    shows,
    starts_everything,
)
from docs.pages import Block
from docs.shell import faults_of_shell
from e2e.server_process import JOBYARD, Running, is_ready, new_home, start, without_settings
from processes.program import free_port

ONE_PROCESS = Path(__file__).with_name("one_process.py")
READY_SECONDS = 60
QUIET_SECONDS = 20
"""How long the job that was seen last may take to end, or to wait for its next try."""

OUTPUT_SECONDS = 20
TESTS_OF_THE_READER = {
    # He has the plugins that the page names, and not those of this project.
    "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:xdist -o asyncio_default_fixture_loop_scope=function"
}
SETTING_OF = {"--app": "JOBYARD_APP", "--concurrency": "JOBYARD_CONCURRENCY"}
SOON = timedelta(seconds=1)
NEEDS_A_YARD = re.compile(r"\b(?:curl|jobyard|psql)\b|localhost:3000|^SELECT", re.MULTILINE)
CALLS_ONLY = re.compile(r"(?:curl (?:[^\n]|\\\n)*http://localhost:3000(?:[^\n]|\\\n)*\n)+")
RUNS_TESTS = re.compile(r"pytest |python -m unittest ")
HANDLER = re.compile(r"^@(?:\w+\.)?handler\(", re.MULTILINE)


@dataclass(slots=True)
class Reader:
    home: Path
    console: Console
    modules: list[str]
    """Names of the page's modules with handlers: what its Jobyard runs where the page does not start it itself."""

    port: int
    new_database: Callable[[], str]
    is_thorough: bool
    """`make run` is the real one, and not what stands in for it."""

    database: str | None = None
    running: Running | None = None
    wrong: list[str] = field(default_factory=list[str])
    """What was not as the page shows it."""

    def read(self, blocks: list[Block]) -> list[tuple[Block, str]]:
        """Does them all; the console blocks with what was really seen."""
        for block in blocks:
            if block.title and not (path := self.console.folder / block.title).exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.console.actual(block.text))
        seen: list[tuple[Block, str]] = []
        for block in blocks:
            if block.not_run is not None:
                continue
            if block.language == "console":
                seen.append((block, self.type(block)))
            else:
                self.use(block)
        return seen

    def type(self, block: Block) -> str:
        typed = exchanges(block.text)
        text = ""
        for at, exchange in enumerate(typed):
            asks_for_code = at + 1 < len(typed) and typed[at + 1].command == "echo $?"
            output = self.do(exchange, may_fail=asks_for_code)
            if not shows(exchange.output, output):
                self.wrong.append(f"$ {exchange.command}\nshown:\n{exchange.output}\nseen:\n{output}")
                text += exchange.text(output)
            else:
                text += exchange.text(exchange.output if "..." in exchange.output else output)
        return text

    def do(self, exchange: Exchange, *, may_fail: bool) -> str:
        if start := starts_everything(exchange.command):
            return self.start(exchange, *start)
        self.be_ready_for(exchange.command)
        if exchange.command.endswith(" &"):
            return self.start_in_background(exchange)
        output = self.console.run(exchange.command)
        if self.console.code and not may_fail:
            self.wrong.append(
                f"$ {exchange.command}\nended with {self.console.code}; a command that is to fail is followed by"
                f" `$ echo $?`:\n{output}"
            )
        return output

    def be_ready_for(self, command: str) -> None:
        if RUNS_TESTS.match(command):
            self.console.environment["JOBYARD_TEST_DATABASE_URL"] = self.new_database()
        if self.running is None and NEEDS_A_YARD.search(command):
            self.start_cheaply({"JOBYARD_APP": self.modules[0]} if self.modules else {})
            assert self.is_up(), self.running and self.running.output.read_text()
        if self.running is not None:
            self.wait_until_quiet()

    def start_cheaply(self, settings: dict[str, str]) -> None:
        """All of Jobyard in one process, on a database of the server that the run shares."""
        self.database = self.database or self.new_database()
        self.launch([sys.executable, str(ONE_PROCESS)], settings | {"DATABASE_URL": self.database})
        self.console.environment["DATABASE_URL"] = self.database
        self.console.shown_for[self.database] = SHOWN_DATABASE

    def start(self, exchange: Exchange, settings: dict[str, str], options: list[str]) -> str:
        """What it prints; the page shows the lines of it that matter."""
        if self.is_thorough:
            self.launch([*JOBYARD, "dev", *options], settings)
        else:
            self.start_cheaply(
                settings
                | {SETTING_OF[name]: value for name, value in zip(options[::2], options[1::2], strict=True)}
            )
        assert self.running is not None
        if self.is_up():
            return self.visible(exchange, self.running.output)
        self.console.code = self.running.process.returncode
        return self.console.as_shown(self.running.output.read_text())

    def launch(self, command: list[str], settings: dict[str, str]) -> None:
        """With what the page has exported; on the same port and the same home again."""
        self.stop()
        exported = {
            name: value
            for name, value in self.console.environment.items()
            if name.startswith(("JOBYARD_", "HOST", "OTEL_")) and name not in ("JOBYARD_HOME", "JOBYARD_URL")
        }
        self.running = start(command, self.home, self.port, self.console.here, **(exported | settings))

    def is_up(self) -> bool:
        assert self.running is not None
        deadline = time.monotonic() + READY_SECONDS
        while self.running.process.poll() is None:
            assert time.monotonic() < deadline, self.running.output.read_text()
            if is_ready(self.running):
                return True
            time.sleep(0.05)
        return False

    def start_in_background(self, exchange: Exchange) -> str:
        return self.visible(exchange, self.console.start(exchange.command.removesuffix(" &")))

    def visible(self, exchange: Exchange, output: Path) -> str:
        """The shown lines as soon as all are there in their order, else all that was printed."""
        wanted = "...\n".join(["", *(f"{line}\n" for line in exchange.output.splitlines()), ""])
        deadline = time.monotonic() + OUTPUT_SECONDS
        while not shows(wanted, seen := self.console.as_shown(output.read_text())):
            if time.monotonic() > deadline:
                return seen
            time.sleep(0.05)
        return exchange.output

    def wait_until_quiet(self) -> None:
        """What a reader's own pace gives: the job of the last command has ended, or waits for a later time."""
        deadline = time.monotonic() + QUIET_SECONDS
        while self.console.job and time.monotonic() < deadline:
            key = self.console.environment.get("JOBYARD_KEY")
            answer = httpx.get(
                self.console.actual(f"{SHOWN_URL}/api/jobs/{self.console.job}"),
                headers={"Authorization": f"Bearer {key}"} if key else {},
                trust_env=False,
            )
            if answer.status_code != 200 or _is_quiet(answer.json()):
                return
            time.sleep(0.02)

    def use(self, block: Block) -> None:
        """A block that is no dialogue: a file, a program, a document."""
        try:
            self.try_to_use(block)
        except Exception as fault:  # whatever a parser raises is what is wrong with the block
            self.wrong.append(f"line {block.begin + 1}, {block.language}: {fault}")

    def try_to_use(self, block: Block) -> None:
        match block.language:
            case "python":
                compile(block.text, block.title or f"line {block.begin + 1}", "exec")
            case "json":
                json.loads(block.text)
            case "jsonl":
                [json.loads(line) for line in block.text.splitlines()]
            case "yaml":
                list(yaml.safe_load_all(block.text))
            case "toml":
                tomllib.loads(block.text)
            case "ini" | "env":
                _variables_or_sections(block.text)
            case "sh" if CALLS_ONLY.fullmatch(block.text):
                self.run_program("bash -e", block)
            case "sh":
                self.wrong += faults_of_shell(block.text)
            case "sql" | "text":
                pass
            case _:
                raise ValueError("no test knows how to run it; mark it with <!-- not run: reason -->")
        if block.title:
            (self.console.here / block.title).write_text(self.console.actual(block.text))
        elif block.language == "python":
            self.run_program(f"{sys.executable} -", block)
        elif block.language == "sql":
            self.run_program("psql -v ON_ERROR_STOP=1 -q", block)

    def run_program(self, command: str, block: Block) -> None:
        self.be_ready_for(block.text)
        output = self.console.run(f"{command} <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK")
        if self.console.code:
            self.wrong.append(f"line {block.begin + 1}, {block.language}:\n{output}")

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()


def _is_quiet(job: dict[str, object]) -> bool:
    if job["status"] == "pending":
        return datetime.fromisoformat(str(job["runAt"])) > datetime.now(UTC) + SOON
    return job["status"] != "processing"


def _variables_or_sections(text: str) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text if text.lstrip().startswith("[") else f"[settings]\n{text}")


@contextlib.contextmanager
def reader(
    folder: Path, blocks: list[Block], new_database: Callable[[], str], *, is_thorough: bool = False
) -> Generator[Reader]:
    modules = [
        block.title.removesuffix(".py")
        for block in blocks
        if block.title and block.title.endswith(".py") and HANDLER.search(block.text)
    ]
    port = free_port()
    with new_home() as home:
        url = f"http://localhost:{port}"
        environment = (
            without_settings(os.environ)
            | TESTS_OF_THE_READER
            | {"JOBYARD_HOME": str(home), "JOBYARD_URL": url}
        )
        console = Console(folder, environment, {url: SHOWN_URL, str(home): SHOWN_HOME})
        reading = Reader(home, console, modules, port, new_database, is_thorough)
        try:
            yield reading
        finally:
            console.close()
            reading.stop()
