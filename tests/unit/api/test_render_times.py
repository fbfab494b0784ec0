"""Times on the wire."""

from __future__ import annotations

from datetime import UTC, datetime

from jobyard.api.render import time_text


def test_a_time_has_six_decimals_also_when_they_are_all_zero():
    assert time_text(datetime(2026, 11, 20, 10, tzinfo=UTC)) == "2026-11-20T10:00:00.000000Z"
    assert time_text(datetime(2026, 11, 20, 10, 0, 0, 120, tzinfo=UTC)) == "2026-11-20T10:00:00.000120Z"
