"""The page about traces names all that a span can carry, and every variable that is looked at."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "trace.md").read_text(encoding="utf-8")
TELEMETRY = ROOT / "src" / "jobyard" / "telemetry"


def test_every_attribute_is_described() -> None:
    source = (TELEMETRY / "spans.py").read_text(encoding="utf-8")
    named = set(re.findall(r'"((?:http|url|messaging|jobyard|error|exception)\.[a-z_.]+)"', source))
    assert len(named) > 15
    tracers = {"jobyard.api", "jobyard.worker"}
    assert {name for name in named - tracers if f"`{name}`" not in PAGE} == set()


def test_every_variable_is_described() -> None:
    read = set(re.findall(r'"(OTEL_\w+)"', (TELEMETRY / "traces.py").read_text(encoding="utf-8")))
    assert len(read) >= 6
    assert {name for name in read if f"`{name}`" not in PAGE} == set()
