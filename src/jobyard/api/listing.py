"""What all lists share: reading their query, and the name that binds a page token to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import msgspec

from jobyard.api import faults
from jobyard.api.exchange import Request
from jobyard.api.problems import Fault, ValidationFailed
from jobyard.domain.errors import BadPageToken


class Query(Protocol):
    """A shape of parameters."""

    def faults(self) -> list[Fault]:
        """What no single parameter can know."""
        ...


Q = TypeVar("Q", bound=Query)


def read_query(values: Mapping[str, object], shape: type[Q]) -> Q:
    """Raises ValidationFailed with every fault, or BadPageToken."""
    size = values.get("pageSize")
    if isinstance(size, str) and size.isascii() and size.isdecimal() and len(size) < 10:
        values = {**values, "pageSize": int(size)}
    if found := faults.of_tree(values, shape):
        raise BadPageToken("it is not text") if found[0].pointer == "/pageToken" else ValidationFailed(found)
    query = msgspec.convert(values, shape)
    if found := query.faults():
        raise ValidationFailed(found)
    return query


def list_name(request: Request, values: Mapping[str, object]) -> str:
    """The path and the filters; how much of it a page shows is not part of it."""
    filters = {name: value for name, value in values.items() if name not in ("pageSize", "pageToken")}
    return request.path + "?" + msgspec.json.encode(filters, order="deterministic").decode()
