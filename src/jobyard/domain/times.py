"""How a time is written, wherever one is shown."""

from __future__ import annotations

from datetime import datetime


def time_text(time: datetime) -> str:
    """RFC 3339 with 6 decimals and `Z`. Times come from the database in UTC."""
    return time.isoformat(timespec="microseconds")[:-6] + "Z"
