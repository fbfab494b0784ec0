"""What the site has beside docs/: the two documents at the root of the repository, their links turned to where they are
read. Called by mkdocs (`hooks` in mkdocs.yml)."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

AT_THE_ROOT = ("CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.docs_dir).parent
    for name in AT_THE_ROOT:
        text = (root / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=_for_the_site(text)))
    return files


def _for_the_site(text: str) -> str:
    """Links into docs/ lead on; what is no page is only named."""
    return re.sub(r"\[([^]]+)\]\((?!docs/|\w+:)[^)]+\)", r"\1", text).replace("](docs/", "](")
