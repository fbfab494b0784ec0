"""How deep a body is nested, without a parser's own recursion."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobyard.api.bodies import DEEPEST, require_shallow
from jobyard.api.problems import ValidationFailed

TEXT = st.text(alphabet='[]{}"\\,:ab\n', max_size=20)
VALUES = st.recursive(
    st.none() | TEXT | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=30,
)


def depth(value: Any) -> int:
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inner), default=0)
    return 0


@given(VALUES, st.integers(min_value=0, max_value=DEEPEST + 8), st.text(alphabet='[{"\\', max_size=80))
def test_it_counts_as_a_parser_would(value: Any, around: int, noise: str):
    value = [noise, value]
    for _ in range(around):
        value = [noise, value]
    raw = json.dumps(value).encode()
    if depth(value) > DEEPEST:
        with pytest.raises(ValidationFailed):
            require_shallow(raw)
    else:
        require_shallow(raw)


@pytest.mark.parametrize(
    "raw", [b'["' + b"[" * 100, b'\\"' + b"[" * 100, b"]" * 50 + b"[" * 50, b'"' * 99 + b"{" * 99]
)
def test_it_ends_also_for_what_is_no_json(raw: bytes):
    try:
        require_shallow(raw)
    except ValidationFailed as refusal:
        assert refusal.faults[0].detail.endswith("64 levels")  # noqa: PT017 - either end will do, an error of another kind will not
