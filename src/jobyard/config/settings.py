"""Settings: read once from the environment, checked whole, then frozen.

Every fault is reported together with what was expected, so that one start tells all there is to mend.
Secrets (`JOBYARD_KEY`, passwords inside addresses) never stand in a message or in a repr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from jobyard.config import values
from jobyard.config.bus import BusAddress, bus

V = TypeVar("V")


class SettingsError(Exception):
    """One or more settings cannot be. The message names each, what it held, and what was expected."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


def _setting(
    variable: str,
    read: Callable[[str], V],
    default: V | None,
    about: str,
    *,
    secret: bool = False,
    shown: str | None = None,
) -> Any:
    """A field of Settings together with how its variable is read and described. `shown` overrides the default
    that the documentation prints."""
    meta = {"variable": variable, "read": read, "about": about, "secret": secret, "shown": shown}
    if callable(default):
        return field(default_factory=default, metadata=meta, repr=not secret)
    return field(default=default, metadata=meta, repr=not secret)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, with units in the names. `Settings.read(os.environ)` is the only way in."""

    host: str = _setting("HOST", values.text, "127.0.0.1", "Address the API listens on.")
    port: int = _setting("PORT", values.whole_number(1, 65535), 3000, "Port the API listens on.")
    database_url: str | None = _setting(
        "DATABASE_URL",
        values.postgres,
        None,
        "The PostgreSQL to use; unset, `jobyard dev` starts its own.",
        secret=True,
    )
    database_direct_url: str | None = _setting(
        "DATABASE_DIRECT_URL",
        values.postgres,
        None,
        "An address of the same database that passes no pooler, for workers, maintainers and listeners.",
        secret=True,
        shown="DATABASE_URL",
    )
    home: Path = _setting(
        "JOBYARD_HOME",
        Path,
        values.default_home,
        "Folder of the embedded PostgreSQL and of the mail outbox.",
        shown="/var/lib/jobyard as root, else ~/.local/share/jobyard",
    )
    url: str = _setting(
        "JOBYARD_URL", values.http, "http://localhost:3000", "The server that the command line talks to."
    )
    key: str | None = _setting(
        "JOBYARD_KEY",
        values.key,
        None,
        "When set, every route but health asks for it as `Authorization: Bearer`. Needed where HOST is not loopback.",
        secret=True,
    )
    app: str | None = _setting(
        "JOBYARD_APP", values.text, None, "Module that holds your handlers, e.g. `myapp.jobs`."
    )
    concurrency: int = _setting(
        "JOBYARD_CONCURRENCY", values.whole_number(1, 1000), 16, "Attempts a worker runs at a time."
    )
    child_jobs: int = _setting(
        "JOBYARD_CHILD_JOBS",
        values.whole_number(1, 1_000_000),
        1000,
        "Jobs that a child process runs before another takes its place, for handlers whose code leaks.",
    )
    handler_connections: int = _setting(
        "JOBYARD_HANDLER_CONNECTIONS",
        values.whole_number(1, 200),
        4,
        "Database connections that a worker opens for what its handlers do there (`ctx.transaction`, `ctx.create`).",
    )
    lease_seconds: float = _setting(
        "JOBYARD_LEASE_SECONDS",
        values.amount("seconds", 1, 3600),
        30.0,
        "How long a silent worker keeps its attempts; it beats at a third.",
    )
    grace_seconds: float = _setting(
        "JOBYARD_GRACE_SECONDS",
        values.amount("seconds", 0, 3600),
        8.0,
        "How long running attempts may go on after SIGTERM.",
    )
    bus: BusAddress = _setting(
        "JOBYARD_BUS",
        bus,
        BusAddress(),
        "What tells workers of jobs: `postgres`, or a message broker, `nats://host:4222/namespace` (`tls://` with TLS) or "
        "`pubsub://PROJECT/namespace`; the namespace is `jobyard` unless named.",
        secret=True,
        shown="postgres",
    )
    announce_ahead: int = _setting(
        "JOBYARD_ANNOUNCE_AHEAD",
        values.whole_number(1, 100_000),
        1000,
        "Jobs of one lane that are announced over a message broker before workers have claimed them.",
    )
    events: str = _setting(
        "JOBYARD_EVENTS",
        values.one_of("off", "on"),
        "off",
        "`on`: maintainers publish every event of a job over the bus of JOBYARD_BUS, for other services.",
    )
    push_audience: str | None = _setting(
        "JOBYARD_PUSH_AUDIENCE",
        values.text,
        None,
        "When set, a worker does not pull: Google Pub/Sub pushes announcements to JOBYARD_HEALTH_PORT, with tokens of this "
        "audience.",
    )
    push_service_account: str | None = _setting(
        "JOBYARD_PUSH_SERVICE_ACCOUNT",
        values.sender,
        None,
        "The service account whose tokens pushes show; needed with JOBYARD_PUSH_AUDIENCE.",
    )
    push_ack: str = _setting(
        "JOBYARD_PUSH_ACK",
        values.one_of("claim", "end"),
        "claim",
        "When a push is answered: once its job is claimed, or, where CPU is given to requests alone, when the attempt has "
        "ended.",
    )
    push_keys_url: str = _setting(
        "JOBYARD_PUSH_KEYS_URL",
        values.http,
        "https://www.googleapis.com/oauth2/v1/certs",
        "Where the public keys of those tokens are, as PEM by their ids.",
    )
    pooler: str | None = _setting(
        "JOBYARD_POOLER",
        values.one_of("transaction"),
        None,
        "Set to `transaction` when DATABASE_URL passes a transaction pooler that is not found out by itself.",
    )
    smtp_url: str | None = _setting(
        "JOBYARD_SMTP_URL",
        values.smtp,
        None,
        "Mail server of the `email` handler; unset, mails are written to $JOBYARD_HOME/outbox.",
        secret=True,
    )
    smtp_from: str = _setting(
        "JOBYARD_SMTP_FROM", values.sender, "jobyard@localhost", "Sender of mails that name none."
    )
    outbound_allow: tuple[IPv4Network | IPv6Network, ...] = _setting(
        "JOBYARD_OUTBOUND_ALLOW",
        values.networks,
        (),
        "Private addresses that jobs of type `http` may call; all public ones may be called anyway.",
        shown="none",
    )
    health_port: int | None = _setting(
        "JOBYARD_HEALTH_PORT",
        values.whole_number(1, 65535),
        None,
        "Port on which workers and maintainers answer health checks and show their metrics; in `jobyard dev` the worker "
        "alone.",
    )
    log: str = _setting(
        "JOBYARD_LOG",
        values.one_of("auto", "json", "console"),
        "auto",
        "How logs look: a JSON line a fact, or for people; `auto` is for people on a terminal.",
    )
    log_level: str = _setting(
        "JOBYARD_LOG_LEVEL",
        values.one_of("debug", "info", "warning", "error"),
        "info",
        "The least that is logged; `debug` tells of every job, attempt and request.",
    )
    metrics_max_types: int = _setting(
        "JOBYARD_METRICS_MAX_TYPES",
        values.whole_number(1, 10_000),
        100,
        "Pairs of queue and type that have metrics of their own, the first that a process meets; all others share "
        "`other`.",
    )
    database_pool: int = _setting(
        "JOBYARD_DATABASE_POOL", values.whole_number(2, 200), 6, "Database connections of one API process."
    )
    database_timeout_seconds: float = _setting(
        "JOBYARD_DATABASE_TIMEOUT_SECONDS",
        values.amount("seconds", 0.1, 300),
        5.0,
        "How long a request waits for the database before it is answered 503.",
    )
    create_queue: int = _setting(
        "JOBYARD_CREATE_QUEUE",
        values.whole_number(1, 1_000_000),
        10_000,
        "Creates, those of bulks included, that may wait for a flush; more are answered 503.",
    )
    max_payload_bytes: int = _setting(
        "JOBYARD_MAX_PAYLOAD_BYTES",
        values.whole_number(1024, 64 << 20),
        1 << 20,
        "Largest payload of one job, and of one result.",
    )
    max_bulk_bytes: int = _setting(
        "JOBYARD_MAX_BULK_BYTES",
        values.whole_number(1024, 256 << 20),
        16 << 20,
        "Largest body of a bulk create.",
    )
    body_timeout_seconds: float = _setting(
        "JOBYARD_BODY_TIMEOUT_SECONDS",
        values.amount("seconds", 0.1, 600),
        20.0,
        "How long a client may take to send its body.",
    )
    head_timeout_seconds: float = _setting(
        "JOBYARD_HEAD_TIMEOUT_SECONDS",
        values.amount("seconds", 0.1, 600),
        10.0,
        "How long a client may take to send request line and headers.",
    )
    answer_timeout_seconds: float = _setting(
        "JOBYARD_ANSWER_TIMEOUT_SECONDS",
        values.amount("seconds", 0.1, 3600),
        60.0,
        "How long a client may take to read an answer.",
    )
    idle_timeout_seconds: float = _setting(
        "JOBYARD_IDLE_TIMEOUT_SECONDS",
        values.amount("seconds", 0.1, 3600),
        75.0,
        "How long a connection may wait for its next request; longer than that of a proxy in front.",
    )
    max_connections: int = _setting(
        "JOBYARD_MAX_CONNECTIONS",
        values.whole_number(1, 1_000_000),
        10_000,
        "Connections of one API process; more are answered 503.",
    )
    max_pipelined: int = _setting(
        "JOBYARD_MAX_PIPELINED",
        values.whole_number(1, 10_000),
        32,
        "Requests that a connection may send ahead of their answers.",
    )
    max_url_bytes: int = _setting(
        "JOBYARD_MAX_URL_BYTES", values.whole_number(256, 65536), 16384, "Longest address with its query."
    )
    max_header_bytes: int = _setting(
        "JOBYARD_MAX_HEADER_BYTES",
        values.whole_number(1024, 1 << 20),
        32768,
        "Request line and headers of one request.",
    )
    max_headers: int = _setting(
        "JOBYARD_MAX_HEADERS", values.whole_number(8, 10_000), 100, "Headers of one request."
    )
    max_waiters: int = _setting(
        "JOBYARD_MAX_WAITERS",
        values.whole_number(1, 1_000_000),
        10_000,
        "Requests that may wait (`Prefer: wait`) in one API process.",
    )
    completed_retention_days: float = _setting(
        "JOBYARD_COMPLETED_RETENTION_DAYS",
        values.amount("days", 0, 36500),
        7.0,
        "How long completed jobs are kept.",
    )
    failed_retention_days: float = _setting(
        "JOBYARD_FAILED_RETENTION_DAYS",
        values.amount("days", 0, 36500),
        90.0,
        "How long failed jobs are kept.",
    )

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from environment variables; an empty variable counts as unset. Raises SettingsError."""
        faults: list[str] = []
        given: dict[str, Any] = {}
        for f in fields(cls):
            held = environment.get(f.metadata["variable"], "")
            if held == "":
                continue
            try:
                given[f.name] = f.metadata["read"](held)
            except ValueError as expected:
                shown = "its value" if f.metadata["secret"] else repr(values.without_password(held))
                faults.append(f"{f.metadata['variable']}: {shown} cannot be used; expected {expected}")
        settings = cls(**given)
        faults += settings._faults_together()
        if faults:
            raise SettingsError(faults)
        return settings

    def _faults_together(self) -> list[str]:
        """Settings that are fine alone and cannot be together."""
        faults: list[str] = []
        if self.max_bulk_bytes < self.max_payload_bytes:
            faults.append("JOBYARD_MAX_BULK_BYTES: cannot be below JOBYARD_MAX_PAYLOAD_BYTES")
        if self.database_direct_url is not None and self.database_url is None:
            faults.append(
                "DATABASE_DIRECT_URL: names the same database as DATABASE_URL, which is not set; set both"
            )
        if (self.push_audience is None) != (self.push_service_account is None):
            faults.append(
                "JOBYARD_PUSH_AUDIENCE and JOBYARD_PUSH_SERVICE_ACCOUNT: say together whose pushes are taken; set both"
            )
        if self.push_audience is not None and self.bus.kind != "pubsub":
            faults.append(
                "JOBYARD_PUSH_AUDIENCE: only Google Pub/Sub pushes; set JOBYARD_BUS to pubsub://PROJECT"
            )
        if self.push_audience is not None and self.health_port is None:
            faults.append(
                "JOBYARD_PUSH_AUDIENCE: a worker takes pushes on JOBYARD_HEALTH_PORT, which is not set (on Cloud Run it is "
                "the port of the container)"
            )
        if self.key is None and not values.is_loopback(self.host):
            faults.append(
                f"HOST: {self.host!r} is reachable from other machines; set JOBYARD_KEY to a secret first, or HOST to 127.0.0.1"
            )
        return faults

    @property
    def secrets(self) -> frozenset[str]:
        """What must never be shown: the key, and the passwords inside addresses, as written and as meant."""
        held = (getattr(self, f.name) for f in fields(self) if f.metadata["secret"] and f.name != "bus")
        found = {secret for value in held if value for secret in values.secrets_in(value)} | self.bus.secrets
        return frozenset(found | {unquote(secret) for secret in found})

    @property
    def direct_url(self) -> str | None:
        """The address that passes no pooler."""
        return self.database_direct_url or self.database_url
