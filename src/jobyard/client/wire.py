"""Python values to the bytes of a request, and the bytes of a bulk cut into requests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import msgspec

MAX_BULK_JOBS = 1_000
MAX_BULK_BYTES = 16 << 20
ENVELOPE = (b'{"jobs":[', b"]}")


class Item(NamedTuple):
    """One job of a bulk, encoded. `keyed`: it has an idempotency key, so sending it again makes no double."""

    body: bytes
    keyed: bool


Batch = list[Item]


def encode(value: Any) -> bytes:
    """The value as JSON. Raises ValueError for NaN and Infinity, TypeError for what has no JSON form."""
    body = msgspec.json.encode(value)
    # msgspec writes a NaN as null, which would change a payload in silence; only then is a closer look needed.
    if b"null" in body and _has_no_json_number(value):
        raise ValueError("NaN and Infinity cannot be said in JSON")
    return body


def _has_no_json_number(value: Any) -> bool:
    match value:
        case float():
            return not math.isfinite(value)
        case dict():
            return any(map(_has_no_json_number, cast("dict[Any, Any]", value).values()))
        case list() | tuple() | set() | frozenset():
            return any(map(_has_no_json_number, cast("Iterable[Any]", value)))
        case _:
            return False


def camel_case(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their JSON names, without those that are None; only `backoff` has names inside."""
    return {
        _camel(name): camel_case(value) if name == "backoff" else value
        for name, value in options.items()
        if value is not None
    }


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))


def bulk_item(job: Mapping[str, Any]) -> Item:
    return Item(encode(dict(job)), job.get("idempotencyKey") is not None)


def bulk_body(batch: Batch) -> bytes:
    head, tail = ENVELOPE
    return head + b",".join(item.body for item in batch) + tail


def batches(items: Iterable[Item]) -> Iterator[Batch]:
    """The items in order, as many a batch as one request may carry. One that is too large alone stands alone."""
    batch: Batch = []
    size = empty = sum(map(len, ENVELOPE))
    for item in items:
        if batch and (len(batch) == MAX_BULK_JOBS or size + len(item.body) > MAX_BULK_BYTES):
            yield batch
            batch, size = [], empty
        batch.append(item)
        size += len(item.body) + 1
    if batch:
        yield batch
