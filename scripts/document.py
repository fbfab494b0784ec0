"""Writes the parts of docs/ that the code says. `make docs` runs it.

A part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; everything around it is written by people.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import Field, fields
from functools import partial
from pathlib import Path
from typing import Any

import drawing
import typer
from reference import errors, http, python

from jobyard.cli import app
from jobyard.cli.endings import MEANINGS
from jobyard.config import Settings
from jobyard.store.audit import MEANING, Violation
from jobyard.telemetry import LogEvent
from jobyard.telemetry.instruments import ROLES
from jobyard.telemetry.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "jobyard"

PARTS = {
    "cli": "arguments in, calls of the client or of `main` out",
    "client": "the Python client, over the HTTP contract alone",
    "api": "parse, ask the store, render: HTTP in and out",
    "domain": "the rules, pure: no I/O, clock, randomness or logging",
    "ids.py": "",
    "fields.py": "",
    "store": "the truth, and the only part that speaks SQL",
    "ports.py": "",
    "bus": "what wakes workers, where a lost message is a delay and never a loss, and what carries events",
    "worker": "claim, run, settle; lanes, slots, heartbeat, drain",
    "push": "the HTTP side of a worker to which Google Pub/Sub pushes",
    "handlers": "the built-in ones",
    "outgoing": "the one guarded HTTP client for everything that leaves",
    "maintain": "what must happen without anybody asking: one loop a file",
    "loop.py": "",
    "clock.py": "",
    "key.py": "",
    "printable.py": "",
    "process.py": "",
    "servers.py": "",
    "serving.py": "",
    "health.py": "",
    "telemetry": "what Jobyard tells about itself: log events, metrics and spans",
    "config": "everything that can be set, read once and checked whole",
    "dev.py": "",
    "loading.py": "",
    "main.py": "",
    "child.py": "",
    "events.py": "",
    "doctor": "is the database fit, and does it keep the promises",
    "testing": "for users' tests: all of it in one process, which moves only when told to",
    "pubsub_emulator": "Google Pub/Sub on this machine, for tests and for work without a network",
    "bench": "figures of this machine, beside the raw limit",
}
"""The parts of the package along the data's way, from the caller to the roots. A file says itself what it is."""

FOLDERS_OF_SQL = {"sql": "a statement a file, named by its verb", "migrations": "numbered, append-only"}


def layout() -> str:
    """Every module with the first sentence of its docstring, in the order of PARTS."""
    unplaced = sorted(_names_of_parts() - PARTS.keys())
    if unplaced:
        raise SystemExit(f"scripts/document.py: PARTS says nothing of {', '.join(unplaced)}")
    lines = ["```text"]
    for part, about in PARTS.items():
        lines += _lines_of(PACKAGE / part, about)
    return "\n".join([*lines, "```"])


def _names_of_parts() -> set[str]:
    return {
        path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"__init__.py"}


def _lines_of(path: Path, about: str, indent: str = "") -> list[str]:
    if path.suffix == ".py":
        return [f"{indent}{path.name:<{22 - len(indent)}}{_first_sentence(path)}"]
    lines = [f"{indent}{path.name + '/':<{22 - len(indent)}}{about}".rstrip()]
    for entry in sorted(path.iterdir(), key=lambda entry: (entry.is_dir(), entry.name)):
        if (entry / "__init__.py").exists():
            lines += _lines_of(entry, _first_sentence(entry / "__init__.py"), indent + "  ")
        elif entry.suffix == ".py" and not entry.name.startswith("__"):
            lines += _lines_of(entry, "", indent + "  ")
        elif entry.name in FOLDERS_OF_SQL:
            lines.append(f"{indent}  {entry.name + '/':<{20 - len(indent)}}{FOLDERS_OF_SQL[entry.name]}")
    return lines


def _first_sentence(module: Path) -> str:
    text = " ".join((ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").split())
    sentence = re.match(r".*?[.?](?= |$)", text)
    return (sentence[0] if sentence else text).rstrip(".")


def settings() -> str:
    """Every setting: variable, default, what may stand there, what it does."""
    rows = ["| variable | default | value | what it does |", "| --- | --- | --- | --- |"]
    return "\n".join(rows + [_row(field) for field in fields(Settings)])


def _row(field: Field[object]) -> str:
    meta = field.metadata
    about = meta["about"] + (" Never shown in logs or messages." if meta["secret"] else "")
    return f"| `{meta['variable']}` | {_default(field)} | {_expected(meta['read'])} | {about} |"


def _default(field: Field[object]) -> str:
    if field.metadata["shown"]:
        return str(field.metadata["shown"])
    if field.default is None:
        return "unset"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def _expected(read: Callable[[str], object]) -> str:
    """What a reader says it expects when it is given what cannot be."""
    if read is Path:
        return "a folder"
    try:
        read("\N{REPLACEMENT CHARACTER}")
    except ValueError as expected:
        return str(expected)
    return "text"


def commands() -> str:
    """Every command with its arguments and options, as the program itself describes them."""
    root: Any = typer.main.get_command(app)
    parts = [_command(name, command) for name, command in _named("jobyard", root)]
    return "\n\n".join([*parts, "## Options of `jobyard` itself", _parameters(root)])


def _named(path: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _named(f"{path} {name}", command)
        else:
            yield f"{path} {name}", command


def _command(name: str, command: Any) -> str:
    title = " ".join([name, *(_name(it) for it in command.params if it.param_type_name == "argument")])
    about = "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n"))
    return "\n\n".join(filter(None, (f"## `{title}`", about, _parameters(command))))


def _parameters(command: Any) -> str:
    if not command.params:
        return ""
    rows = [f"| `{_name(it)}` | {it.help}{_default_of(it)} |" for it in command.params]
    return "\n".join(["| argument or option | what it does |", "| --- | --- |", *rows])


def _name(parameter: Any) -> str:
    value = (parameter.metavar or parameter.name.upper()).strip("[]")
    if parameter.param_type_name == "argument":
        many = "..." if parameter.nargs == -1 else ""
        return value if parameter.required else f"[{value}]{many}"
    return ", ".join(parameter.opts) + ("" if parameter.is_flag else f" {value}")


def _default_of(parameter: Any) -> str:
    default = parameter.default
    return f" ({default:g})" if isinstance(default, float) and default else f" ({default})" if default else ""


def exit_codes() -> str:
    """Every exit code with its meaning."""
    rows = [f"| {code:d} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(["| code | meaning |", "| --- | --- |", *rows])


def metrics() -> str:
    """Every metric: name, type, labels, who shows it, meaning."""
    rows = ["| metric | type | labels | shown by | meaning |", "| --- | --- | --- | --- | --- |"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        shown = "all" if metric.shown_by == ROLES else ", ".join(metric.shown_by)
        rows.append(f"| `{metric.name}` | {metric.type} | {labels} | {shown} | {metric.about} |")
    return "\n".join(rows)


def log_events() -> str:
    """Every log event: name, level, meaning, fields."""
    rows = ["| event | level | meaning | fields |", "| --- | --- | --- | --- |"]
    for event in LogEvent:
        fields = ", ".join(f"`{field}`" for field in event.fields)
        rows.append(f"| `{event.value}` | {event.level} | {event.about} | {fields} |")
    return "\n".join(rows)


def violations() -> str:
    """Everything that an audit can find, with its meaning."""
    rows = ["| violation | meaning |", "| --- | --- |"]
    return "\n".join(
        [*rows, *(f"| `{it.value}` | {MEANING[it][0].upper()}{MEANING[it][1:]}. |" for it in Violation)]
    )


BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/explanation/architecture.md": {"layout": layout},
    "docs/reference/errors.md": {"problems": errors.problems, "reasons": errors.reasons},
    "docs/reference/http.md": {"routes": http.routes, "shapes": http.shapes},
    "docs/reference/python.md": {
        "jobyard": partial(python.names_of, "jobyard"),
        "jobyard.client": partial(python.names_of, "jobyard.client"),
        "jobyard.testing": partial(python.names_of, "jobyard.testing"),
    },
    "docs/reference/settings.md": {"settings": settings},
    "docs/reliability.md": {"violations": violations},
    "docs/reference/cli.md": {"exit codes": exit_codes, "commands": commands},
    "docs/reference/log-events.md": {"log events": log_events},
    "docs/reference/metrics.md": {"metrics": metrics},
}


DRAWINGS: dict[str, Callable[[], str]] = {"docs/explanation/states.svg": drawing.states}
"""Files that are made as a whole."""


def documented(name: str) -> str:
    """The text of this document as it should be."""
    if name in DRAWINGS:
        return DRAWINGS[name]()
    text = (ROOT / name).read_text(encoding="utf-8")
    for block, make in BLOCKS[name].items():
        begin, end = f"<!-- begin {block} -->", f"<!-- end {block} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"{name}: there is no place for {block} ({begin} ... {end})")
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def main() -> None:
    for name in [*BLOCKS, *DRAWINGS]:
        text = documented(name)
        if text != (ROOT / name).read_text(encoding="utf-8"):
            (ROOT / name).write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {name}\n")


if __name__ == "__main__":
    main()
