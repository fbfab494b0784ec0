"""What the README names is there; its blocks are run with those of all pages (test_pages.py)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"


def test_every_file_that_the_readme_names_is_there() -> None:
    named = re.findall(r"\]\(([^)#:]+)\)|`(src/[\w/.]+)`", README.read_text())
    missing = [path for pair in named for path in pair if path and not (ROOT / path).exists()]
    assert named
    assert missing == []


def test_every_make_target_that_the_readme_names_is_there() -> None:
    targets = set(re.findall(r"make ([a-z]+)", README.read_text()))
    for target in targets:
        listed = subprocess.run(["make", "-n", "-C", str(ROOT), target], capture_output=True, text=True)
        assert "No rule to make target" not in listed.stderr, target
    assert {"run", "check", "migrate", "psql"} <= targets
