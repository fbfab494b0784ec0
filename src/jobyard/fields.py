"""The fields of a job as somebody asks for it, over HTTP or in a handler: what each may be."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from jobyard.domain.job import (
    MAX_ATTEMPTS,
    MAX_BACKOFF_SECONDS,
    MAX_DELAY_SECONDS,
    MAX_METADATA_BYTES,
    MAX_NAME_LENGTH,
    MAX_PRIORITY,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    MAX_TIMEOUT_SECONDS,
    NAME_PATTERN,
)

KEY_PATTERN = r"^[\x20-\x7e]{1,255}$(?!\n)"

FIRST_YEAR, LAST_YEAR = 1970, 9998
"""Beyond lie what has no UTC in Python and what PostgreSQL's driver takes for infinity."""

# `$` alone would let a newline at the end pass.
Name = Annotated[
    str,
    Meta(
        max_length=MAX_NAME_LENGTH,
        pattern=NAME_PATTERN + r"(?!\n)",
        extra={"rule": "must be letters, digits and any of _ . : / @ + - and not empty"},
    ),
]
Tag = Annotated[str, Meta(min_length=1, max_length=MAX_TAG_LENGTH)]
Tags = Annotated[list[Tag], Meta(max_length=MAX_TAGS, description="Words to find it by.")]
Metadata = Annotated[dict[str, str], Meta(description=f"Flat, at most {MAX_METADATA_BYTES} bytes as JSON.")]
# The years are FIRST_YEAR to LAST_YEAR.
Instant = Annotated[
    datetime,
    Meta(
        tz=True,
        description="RFC 3339, with a time zone.",
        extra_json_schema={"pattern": r"^(19[7-9]\d|[2-8]\d{3}|9[0-8]\d\d|99[0-8]\d|999[0-8])-"},
    ),
]
Priority = Annotated[int, Meta(ge=0, le=MAX_PRIORITY, description="Larger runs sooner.")]
Attempts = Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS, description="Tries, the first one included.")]
Timeout = Annotated[float, Meta(gt=0, le=MAX_TIMEOUT_SECONDS, description="Longest run of one attempt.")]
Delay = Annotated[
    float, Meta(ge=0, le=MAX_DELAY_SECONDS, description="Not before this many seconds from now.")
]
BackoffSeconds = Annotated[float, Meta(ge=0, le=MAX_BACKOFF_SECONDS)]
Key = Annotated[str, Meta(pattern=KEY_PATTERN, extra={"rule": "must be 1 to 255 printable ASCII characters"})]

_text = msgspec.json.Encoder().encode


def trouble_with_instant(instant: datetime) -> str | None:
    """What its type cannot know."""
    if FIRST_YEAR <= instant.year <= LAST_YEAR:
        return None
    return f"lies outside of the years {FIRST_YEAR} to {LAST_YEAR}"


def trouble_with_metadata(metadata: dict[str, str]) -> str | None:
    """What its type cannot know."""
    if len(_text(metadata)) <= MAX_METADATA_BYTES:
        return None
    return f"is larger than {MAX_METADATA_BYTES} bytes as JSON"


def kept(value: list[str] | dict[str, str] | None) -> str | None:
    """Tags or metadata as a job keeps them: JSON text, or nothing at all."""
    return _text(value).decode() if value else None
