"""Which event bus is meant, as JOBYARD_BUS says it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from jobyard.config import values

DEFAULT_NAMESPACE = "jobyard"
EXPECTED = "postgres or nats://host:4222 (tls:// with TLS), each of the latter with an optional /namespace"

_NAMESPACE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class BusAddress:
    """`kind`: postgres or nats. `url`: of the servers, with its password. `namespace`: what the names of all topics begin
    with."""

    kind: str = "postgres"
    url: str = ""
    namespace: str = DEFAULT_NAMESPACE

    @property
    def announces(self) -> bool:
        """Whether jobs are announced over it; PostgreSQL itself wakes workers without."""
        return self.kind != "postgres"

    @property
    def secrets(self) -> set[str]:
        """Where no password is named, the user is a token."""
        parts = urlsplit(self.url)
        secret = parts.password or parts.username
        return {secret} if secret else set()

    def __str__(self) -> str:
        return f"{self.url}/{self.namespace}" if self.url else self.kind


_broker = values.address(EXPECTED, "nats", "tls")


def bus(value: str) -> BusAddress:
    """Raises ValueError."""
    if value == "postgres":
        return BusAddress()
    parts = urlsplit(_broker(value))
    namespace = parts.path.removeprefix("/") or DEFAULT_NAMESPACE
    if not _NAMESPACE.fullmatch(namespace) or parts.query or parts.fragment:
        raise ValueError(
            f"{EXPECTED}; a namespace begins with a letter and has up to 64 letters, digits, - and _"
        )
    return BusAddress("nats", f"{parts.scheme}://{parts.netloc}", namespace)
