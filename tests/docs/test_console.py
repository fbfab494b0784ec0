"""The pages are run by something that notices when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.console import exchanges, shows, starts_everything
from docs.pages import blocks_of, renewed
from docs.reader import reader
from docs.shell import faults_of_shell


def wrong_on(page: str, folder: Path) -> list[str]:
    """What a reader finds wrong on a page that needs no Jobyard."""

    def no_database() -> str:
        raise AssertionError("this page needs none")

    blocks = blocks_of(page)
    with reader(folder, blocks, no_database) as reading:
        reading.read(blocks)
    return reading.wrong


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("```console\n$ echo yes\nno\n```\n", "seen:\nyes"),
        ("```console\n$ false\n```\n", "ended with 1"),
        ("```console\n$ make check\n```\n", "mark the block as not run"),
        ("```python\n1 / 0\n```\n", "ZeroDivisionError"),
        ("```python title=\"a.py\"\ndef\n```\n", "invalid syntax"),
        ("```json\n{,}\n```\n", "line 1, json"),
        ("```yaml\n{a: [}\n```\n", "line 1, yaml"),
        ("```toml\na =\n```\n", "line 1, toml"),
        ("```ini\n[a\n```\n", "line 1, ini"),
        ("```sh\nif\n```\n", "syntax error"),
        ("```sh\nmake nothing\n```\n", "there is no `make nothing`"),
        ("```sh\njobyard nothing\n```\n", "there is no `jobyard nothing`"),
        ("```sh\njobyard worker --nothing\n```\n", "`jobyard worker` has no --nothing"),
        ("```brainfuck\n+\n```\n", "no test knows how to run it"),
        ("```\nwhat\n```\n", "no test knows how to run it"),
    ],
)  # fmt: skip
def test_a_block_that_is_wrong_is_found(page: str, says: str, tmp_path: Path) -> None:
    [found] = wrong_on(page, tmp_path)[:1]
    assert says in found


def test_a_file_is_written_where_the_page_has_come_to_it(tmp_path: Path) -> None:
    page = (
        '```python title="a.py"\nprint(1)\n```\n```console\n$ python a.py\n1\n```\n'
        "```python\n# a.py\nprint(2)\n```\n```console\n$ python a.py\n2\n```\n"
    )
    assert wrong_on(page, tmp_path) == []


def test_a_shell_keeps_its_folder_its_exports_and_the_last_code(tmp_path: Path) -> None:
    page = (
        "```console\n$ mkdir inner && cd inner\n$ export NAME=Ada\n```\n"
        "```console\n$ basename $PWD; echo $NAME\ninner\nAda\n$ (exit 3)\n$ echo $?\n3\n```\n"
    )
    assert wrong_on(page, tmp_path) == []


def test_a_block_that_is_not_to_be_run_is_not(tmp_path: Path) -> None:
    page = "<!-- not run: it would take the machine down -->\n\n```console\n$ false\n```\n"
    [block] = blocks_of(page)
    assert block.not_run == "it would take the machine down"
    assert wrong_on(page, tmp_path) == []


def test_a_command_goes_on_after_a_backslash_and_behind_a_prompt() -> None:
    [first, second] = exchanges("$ echo a \\\n  b\na b\n$ cat <<X\n> one\n> X\none\n")
    assert (first.command, first.output) == ("echo a \\\n  b", "a b\n")
    assert (second.command, second.output) == ("cat <<X\none\nX", "one\n")


@pytest.mark.parametrize(
    ("shown", "seen", "same"),
    [
        ("took 12 ms", "took 3 ms", True),
        ("took 12 ms", "took 3 jobs", False),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\nd\n", "a\nb\nc\n", False),
        ("...\nd\n", "d\n", True),
        ("", "a\n", False),
        ("2026-11-25T17:44:42.624456Z", "2027-01-01T00:00:00.000000Z", True),
        ("01a213cf-4d40-73d6-ad7f-c0d684d3b3e5 failed", "01a213cf-0000-73d6-ad7f-c0d684d3b3e5 failed", True),
        ("01a213cf-4d40-73d6-ad7f-c0d684d3b3e5 failed", "01a213cf-4d40-73d6-ad7f-c0d684d3b3e5 done", False),
    ],
)  # fmt: skip
def test_outputs_are_compared_by_what_does_not_vary(shown: str, seen: str, same: bool) -> None:
    assert shows(shown, seen) is same


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("make run", ({}, [])),
        ("JOBYARD_APP=jobs make -C jobyard run", ({"JOBYARD_APP": "jobs"}, [])),
        (".venv/bin/jobyard dev --app jobs", ({}, ["--app", "jobs"])),
        ("make psql", None),
        ("jobyard api", None),
    ],
)  # fmt: skip
def test_what_starts_everything_is_known(command: str, found: object) -> None:
    assert starts_everything(command) == found


def test_what_was_seen_is_written_into_the_page_and_nothing_else_changes() -> None:
    page = "a\n\n    ```console\n    $ echo b\n    c\n    ```\n\nd\n"
    [block] = blocks_of(page)
    assert renewed(page, [(block, "$ echo b\nb\n")]) == page.replace("    c\n", "    b\n")


def test_a_script_is_read_without_its_comments() -> None:
    assert (
        faults_of_shell("make run  # not: make nothing\n# jobyard nothing\njobyard dev \\\n  --app jobs\n")
        == []
    )
