"""The how-to of HTTP calls: its tables know every field and bound."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from jobyard.handlers import http

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "http-calls.md"


def test_the_table_of_the_payload_has_every_field_and_no_other() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## The payload")[2].partition("\n## ")[0]
    fields = [field.encode_name for field in msgspec.structs.fields(http.Call)]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == fields


@pytest.mark.parametrize(
    "said",
    [
        f"at most {http.MAX_URL_CHARS:,} characters",
        f"at most {http.MAX_HEADERS};",
        f"| `timeoutSeconds` | `{http.DEFAULT_TIMEOUT_SECONDS:g}` |",
        f"at most {http.MAX_TIMEOUT_SECONDS:g} |",
        f"At most {http.MAX_BODY_BYTES >> 10} KiB of the body and {(1 << 20) // 16 >> 10} KiB of the headers",
    ],
)
def test_the_bounds_are_those_of_the_code(said: str) -> None:
    assert said in PAGE.read_text(encoding="utf-8")
