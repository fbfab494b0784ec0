"""The documentation builds as a site, strictly, holds every page, and loads nothing from elsewhere."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from docs.pages import DOCS, ROOT

MKDOCS = ROOT / ".venv-tools" / "bin" / "mkdocs"
LOADED = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=\"?((?:https?:)?//[^\s\">]+)", re.IGNORECASE
)
LOADED_BY_STYLES = re.compile(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\s\"')]+)")


@pytest.fixture(scope="session")
def site(run_folder: Path) -> Path:
    """Built once a run, whichever process comes first."""
    built = run_folder / "site"
    with (run_folder / "site.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            done = subprocess.run(
                # With --quiet a warning is no failure, whatever --strict says.
                [MKDOCS, "build", "--strict", "--site-dir", built],
                cwd=ROOT,
                env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stdout + done.stderr
    return built


def test_every_page_is_built_without_a_broken_link_or_anchor(site: Path) -> None:
    pages = {str(page.relative_to(DOCS).with_suffix(".html")) for page in DOCS.rglob("*.md")}
    built = {str(page.relative_to(site)) for page in site.rglob("*.html")}
    assert {"CONTRIBUTING.html", "CHANGELOG.html", *pages} - built == set()


def test_looking_at_it_asks_no_other_server(site: Path) -> None:
    for page in site.rglob("*.html"):
        # Where the site itself will live is not known, so nothing says so.
        assert LOADED.findall(page.read_text(encoding="utf-8")) == [], page
    for style in site.rglob("*.css"):
        assert LOADED_BY_STYLES.findall(style.read_text(encoding="utf-8")) == [], style


def test_no_page_has_what_the_theme_would_fetch_a_program_for() -> None:
    """Mermaid's comes from a content network."""
    assert [page for page in DOCS.rglob("*.md") if "```mermaid" in page.read_text(encoding="utf-8")] == []


def test_every_page_can_be_reached_from_the_navigation() -> None:
    def pages_of(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        inner = entry.values() if isinstance(entry, dict) else entry
        return [page for part in inner for page in pages_of(part)]  # pyright: ignore - YAML has no types

    listed = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"adr/template.md"}
    assert sorted(listed) == sorted(there | {"CONTRIBUTING.md", "CHANGELOG.md"})
