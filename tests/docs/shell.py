"""What can be said of a script without running it: it parses, and the commands of ours that it names are there."""

from __future__ import annotations

import re
import subprocess

import typer.main
from typer.core import TyperGroup

from docs.pages import ROOT
from jobyard.cli.app import app

MAKE = re.compile(r"(?:^|[;&|]\s*)(?:\w+=\S+ )*make(?: -C \S+)? ([\w-]+)", re.MULTILINE)
JOBYARD = re.compile(r"(?:^|[\s/;&|])jobyard ((?:[\w-]+)(?: [^\n;&|]*)?)", re.MULTILINE)
OPTION = re.compile(r"(?<=\s)--?[a-z][\w-]*")


def faults_of_shell(text: str) -> list[str]:
    parsed = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    faults = [parsed.stderr] if parsed.returncode else []
    code = re.sub(r"(?:^|\s)#.*", "", text).replace("\\\n", " ")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    faults += [f"there is no `make {target}`" for target in MAKE.findall(code) if target not in targets]
    return faults + [fault for words in JOBYARD.findall(code) for fault in _faults_of_command(words)]


def _faults_of_command(words: str) -> list[str]:
    name, command = "jobyard", typer.main.get_group(app)
    for word in words.split():
        if not isinstance(command, TyperGroup):
            break
        name = f"{name} {word}"
        if word not in command.commands:
            return [f"there is no `{name}`"]
        command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    return [f"`{name}` has no {option}" for option in OPTION.findall(words) if option not in known]
