"""Which event bus is meant, as JOBYARD_BUS says it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from jobyard.config import values

DEFAULT_NAMESPACE = "jobyard"
EXPECTED = "postgres, pubsub://PROJECT or nats://host:4222 (tls:// with TLS), each of the latter with an optional /namespace"

_PROJECT = re.compile(r"[a-z][a-z0-9.:-]{0,62}")
_NAMESPACE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class BusAddress:
    """`kind`: postgres, nats or pubsub. `url`: of the servers, with its password, or the project. `namespace`: what the names of all topics begin
    with."""

    kind: str = "postgres"
    url: str = ""
    namespace: str = DEFAULT_NAMESPACE

    @property
    def announces(self) -> bool:
        """Whether jobs are announced over it; PostgreSQL itself wakes workers without."""
        return self.kind != "postgres"

    def __str__(self) -> str:
        scheme = "pubsub://" if self.kind == "pubsub" else ""
        return f"{scheme}{self.url}/{self.namespace}" if self.url else self.kind

    @property
    def secrets(self) -> set[str]:
        """Where no password is named, the user is a token."""
        parts = urlsplit(self.url if self.kind == "nats" else "")
        secret = parts.password or parts.username
        return {secret} if secret else set()


_broker = values.address(EXPECTED, "nats", "tls")


def bus(value: str) -> BusAddress:
    """Raises ValueError."""
    if value == "postgres":
        return BusAddress()
    scheme, _, rest = value.partition("://")
    is_pubsub = scheme == "pubsub" and _PROJECT.fullmatch(rest.partition("/")[0]) is not None
    parts = urlsplit(value if is_pubsub else _broker(value))
    namespace = parts.path.removeprefix("/") or DEFAULT_NAMESPACE
    if not _NAMESPACE.fullmatch(namespace) or parts.query or parts.fragment:
        raise ValueError(
            f"{EXPECTED}; a namespace begins with a letter and has up to 64 letters, digits, - and _"
        )
    if is_pubsub:
        return BusAddress("pubsub", parts.netloc, namespace)
    return BusAddress("nats", f"{parts.scheme}://{parts.netloc}", namespace)
