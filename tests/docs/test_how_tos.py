"""Every command of a how-to is run as written, and does what is shown beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
sys.path.insert(0, str(Path(__file__).parent))

from console import Console, follow, write_files
from server_process import running_dev

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


@pytest.mark.parametrize("page", ["find-out-why-a-job-failed.md"])
def test_every_console_block_does_what_it_shows(page: str, tmp_path: Path) -> None:
    [module] = write_files((HOW_TO / page).read_text(), tmp_path)
    with running_dev(JOBYARD_APP=module, PYTHONPATH=str(tmp_path)) as running:
        shown, seen = follow(HOW_TO / page, Console(running.url, running.home, tmp_path, running.environment))
    assert seen == shown
