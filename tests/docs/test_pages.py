"""Every block of code on every page is run as written, and does what is shown; JOBYARD_RENEW_DOCS=1 writes what it did."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from docs.pages import PAGES, Block, blocks_of, name_of, renewed
from docs.reader import reader

NOT_RUN = {"how-to/deploy-with-compose.md": 1, "how-to/cloud-run-push.md": 2}
"""How many blocks of a page no test runs, each with its reason in the page."""


WITH_BLOCKS = [page for page in PAGES if blocks_of(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
def test_every_block_of_a_page_does_what_it_shows(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = blocks_of(text)
    is_front_door = page.name == "README.md"
    with reader(
        tmp_path, blocks, lambda: request.getfixturevalue("database"), is_thorough=is_front_door
    ) as reading:
        seen = reading.read(blocks)
    if reading.wrong and os.environ.get("JOBYARD_RENEW_DOCS"):
        page.write_text(renewed(text, seen), encoding="utf-8")
    assert not reading.wrong, "\n\n".join([f"{name_of(page)} shows what is not so:", *reading.wrong])


def test_what_is_not_run_is_counted_and_says_why() -> None:
    marked: dict[str, list[Block]] = {
        name_of(page): [block for block in blocks_of(page.read_text(encoding="utf-8")) if block.not_run]
        for page in PAGES
    }
    assert {name: len(blocks) for name, blocks in marked.items() if blocks} == NOT_RUN
    assert all(len((block.not_run or "").split()) >= 3 for blocks in marked.values() for block in blocks)
