"""Settings: read once, checked whole, every fault told at once, and no secret ever shown."""

from __future__ import annotations

import dataclasses
import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from jobyard import config
from jobyard.config import BusAddress, Settings, SettingsError, without_password

SECRET = "s3cret-word"


def faults_of(**environment: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        Settings.read(environment)
    return refused.value.faults


def fault_of(**environment: str) -> str:
    [fault] = faults_of(**environment)
    return fault


def variables() -> list[str]:
    return [field.metadata["variable"] for field in dataclasses.fields(Settings)]


# Defaults


def test_nothing_need_be_set() -> None:
    settings = Settings.read({})
    assert (settings.host, settings.port, settings.url) == ("127.0.0.1", 3000, "http://localhost:3000")
    assert (settings.database_url, settings.direct_url, settings.key, settings.app) == (
        None,
        None,
        None,
        None,
    )
    assert (settings.lease_seconds, settings.grace_seconds) == (30.0, 8.0)
    assert (settings.bus, settings.pooler, settings.smtp_url, settings.health_port) == (
        BusAddress(),
        None,
        None,
        None,
    )
    assert (settings.max_payload_bytes, settings.max_bulk_bytes) == (1 << 20, 16 << 20)
    assert settings.outbound_allow == ()


def test_the_settings_of_the_design_are_all_there() -> None:
    promised = {
        "HOST", "PORT", "DATABASE_URL", "DATABASE_DIRECT_URL", "JOBYARD_HOME", "JOBYARD_URL", "JOBYARD_KEY", "JOBYARD_APP",
        "JOBYARD_CONCURRENCY", "JOBYARD_LEASE_SECONDS", "JOBYARD_GRACE_SECONDS", "JOBYARD_BUS", "JOBYARD_POOLER",
        "JOBYARD_SMTP_URL", "JOBYARD_OUTBOUND_ALLOW", "JOBYARD_HEALTH_PORT",
    }  # fmt: skip
    assert promised <= set(variables())
    assert len(variables()) == len(set(variables()))


def test_the_shipped_defaults_would_be_accepted_if_they_were_set() -> None:
    for field in dataclasses.fields(Settings):
        default = getattr(Settings(), field.name)
        if default not in (None, ()):
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            assert getattr(Settings.read({field.metadata["variable"]: shown}), field.name) == default


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.read(dict.fromkeys(variables(), "")) == Settings.read({})


def test_variables_of_others_are_left_alone() -> None:
    assert Settings.read({"PATH": "/bin", "PGHOST": "elsewhere", "LANG": "C"}) == Settings.read({})


def test_settings_cannot_change_after_the_start() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings.read({}).port = 1  # type: ignore[misc] - that it fails is the test


# The home


def test_the_home_of_root_is_under_var_lib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Settings.read({}).home == Path("/var/lib/jobyard")


def test_the_home_of_a_user_is_in_the_folder_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert Settings.read({}).home == Path("/data/jobyard")


@pytest.mark.parametrize("folder", ["", "not/absolute"])
def test_a_folder_for_data_that_is_not_absolute_does_not_count(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", folder)
    monkeypatch.setenv("HOME", "/home/someone")
    assert config.default_home() == Path("/home/someone/.local/share/jobyard")


def test_the_home_can_be_set() -> None:
    assert Settings.read({"JOBYARD_HOME": "/srv/jobyard"}).home == Path("/srv/jobyard")


# What each may hold

GOOD = [
    ("HOST", "::1", "::1"),
    ("PORT", "65535", 65535),
    ("DATABASE_URL", "postgres://h/db", "postgres://h/db"),
    ("DATABASE_URL", "postgresql:///db?host=/run/pg", "postgresql:///db?host=/run/pg"),
    ("JOBYARD_URL", "https://jobs.example/", "https://jobs.example"),
    ("JOBYARD_SMTP_URL", "smtps://mail.example", "smtps://mail.example"),
    ("JOBYARD_POOLER", "transaction", "transaction"),
    ("JOBYARD_CONCURRENCY", "1000", 1000),
    ("JOBYARD_LEASE_SECONDS", "1.5", 1.5),
    ("JOBYARD_GRACE_SECONDS", "0", 0.0),
    ("JOBYARD_HEALTH_PORT", "8080", 8080),
    ("JOBYARD_APP", "myapp.jobs", "myapp.jobs"),
    ("JOBYARD_OUTBOUND_ALLOW", "127.0.0.1", (ip_network("127.0.0.1/32"),)),
    (
        "JOBYARD_OUTBOUND_ALLOW",
        " 10.0.0.0/8 ,::1,fd00::/8",
        (ip_network("10.0.0.0/8"), ip_network("::1"), ip_network("fd00::/8")),
    ),
]


@pytest.mark.parametrize(("variable", "held", "value"), GOOD)
def test_a_setting_is_read(variable: str, held: str, value: object) -> None:
    [name] = [field.name for field in dataclasses.fields(Settings) if field.metadata["variable"] == variable]
    assert getattr(Settings.read({variable: held}), name) == value


MANY = "separated by commas, like 127.0.0.1, 10.0.0.0/8, ::1"
BAD = [
    ("PORT", "0", "a whole number from 1 to 65535"),
    ("PORT", "65536", "a whole number from 1 to 65535"),
    ("PORT", "web", "a whole number from 1 to 65535"),
    ("PORT", "80.5", "a whole number from 1 to 65535"),
    ("JOBYARD_CONCURRENCY", "0", "a whole number from 1 to 1000"),
    ("JOBYARD_LEASE_SECONDS", "0.5", "seconds from 1 to 3600"),
    ("JOBYARD_LEASE_SECONDS", "soon", "seconds from 1 to 3600"),
    ("JOBYARD_LEASE_SECONDS", "nan", "seconds from 1 to 3600"),
    ("JOBYARD_LEASE_SECONDS", "inf", "seconds from 1 to 3600"),
    ("JOBYARD_GRACE_SECONDS", "-1", "seconds from 0 to 3600"),
    ("JOBYARD_ANNOUNCE_AHEAD", "0", "a whole number from 1 to 100000"),
    ("JOBYARD_EVENTS", "yes", "off or on"),
    ("JOBYARD_PUSH_ACK", "never", "claim or end"),
    ("JOBYARD_PUSH_SERVICE_ACCOUNT", "pusher", "one mail address, like jobs@example.com"),
    ("JOBYARD_PUSH_KEYS_URL", "keys", "an address like http://localhost:3000"),
    ("JOBYARD_POOLER", "session", "transaction"),
    ("JOBYARD_URL", "localhost:3000", "an address like http://localhost:3000"),
    ("JOBYARD_URL", "http://", "an address like http://localhost:3000"),
    ("JOBYARD_COMPLETED_RETENTION_DAYS", "-1", "days from 0 to 36500"),
    ("JOBYARD_FAILED_RETENTION_DAYS", "for ever", "days from 0 to 36500"),
    *(
        ("JOBYARD_OUTBOUND_ALLOW", held, f"addresses and networks in CIDR form, {MANY}")
        for held in (
            "localhost",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.1",
            "127.0.0.1,",
            "127.0.0.1 ::1",
            "*",
        )
    ),
]


@pytest.mark.parametrize(("variable", "held", "expected"), BAD)
def test_a_setting_that_cannot_be_says_what_it_held_and_what_was_expected(
    variable: str, held: str, expected: str
) -> None:
    assert fault_of(**{variable: held}) == f"{variable}: {held!r} cannot be used; expected {expected}"


@pytest.mark.parametrize(
    "variable", ["DATABASE_URL", "DATABASE_DIRECT_URL", "JOBYARD_SMTP_URL", "JOBYARD_URL"]
)
@pytest.mark.parametrize("port", ["99999", "db"])
def test_an_address_with_a_port_that_cannot_be_is_refused(variable: str, port: str) -> None:
    scheme = {"JOBYARD_URL": "http", "JOBYARD_SMTP_URL": "smtp"}.get(variable, "postgresql")
    assert fault_of(**{variable: f"{scheme}://host:{port}/x"}).startswith(f"{variable}: ")


def test_all_faults_are_told_together_in_the_order_of_the_settings() -> None:
    faults = faults_of(
        PORT="none",
        DATABASE_URL="mysql://h/db",
        JOBYARD_LEASE_SECONDS="0",
        JOBYARD_MAX_PAYLOAD_BYTES="67108864",
    )
    assert [fault.split(":")[0] for fault in faults] == [
        "PORT",
        "DATABASE_URL",
        "JOBYARD_LEASE_SECONDS",
        "JOBYARD_MAX_BULK_BYTES",
    ]


def test_the_error_reads_as_one_line_a_fault() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.read({"PORT": "none", "JOBYARD_BUS": "kafka"})
    assert str(refused.value).splitlines() == refused.value.faults
    assert len(refused.value.faults) == 2


# The bus

BUS = "postgres, pubsub://PROJECT or nats://host:4222 (tls:// with TLS), each of the latter with an optional /namespace"


@pytest.mark.parametrize(
    ("held", "kind", "url", "namespace"),
    [
        ("postgres", "postgres", "", "jobyard"),
        ("nats://broker", "nats", "nats://broker", "jobyard"),
        ("nats://u:p@broker:4222/", "nats", "nats://u:p@broker:4222", "jobyard"),
        ("pubsub://my-project", "pubsub", "my-project", "jobyard"),
        ("pubsub://example.com:my-project/staging", "pubsub", "example.com:my-project", "staging"),
        ("tls://a:1,b:2/staging", "nats", "tls://a:1,b:2", "staging"),
    ],
)
def test_a_bus_is_postgres_or_the_address_of_a_broker(held: str, kind: str, url: str, namespace: str) -> None:
    assert Settings.read({"JOBYARD_BUS": held}).bus == BusAddress(kind, url, namespace)


@pytest.mark.parametrize(
    "held",
    [
        *("kafka", "nats://", "nats://host:0", "nats://host:x", "nats:host", "http://host", "nats://h/a/b"),
        *("pubsub://", "pubsub://Project", "pubsub://p/9", "pubsub://p/n?x", "pubsub:p"),
        *("nats://h/9", "nats://h/a.b", "nats://h/ns?x=1", "nats://h/#x", f"nats://h/{'n' * 65}"),
    ],
)
def test_a_bus_that_cannot_be_is_refused_without_its_value_which_may_hold_a_password(held: str) -> None:
    assert fault_of(JOBYARD_BUS=held).startswith(f"JOBYARD_BUS: its value cannot be used; expected {BUS}")


@pytest.mark.parametrize("held", [f"nats://u:{SECRET}@host", f"nats://{SECRET}@host/ns"])
def test_the_password_or_token_of_a_bus_is_a_secret(held: str) -> None:
    settings = Settings.read({"JOBYARD_BUS": held})
    assert SECRET in settings.secrets
    assert SECRET not in repr(settings)


# Pushes

PUSHED = {
    "JOBYARD_BUS": "pubsub://project",
    "JOBYARD_PUSH_AUDIENCE": "https://worker.example.com",
    "JOBYARD_PUSH_SERVICE_ACCOUNT": "pusher@project.iam.gserviceaccount.com",
    "JOBYARD_HEALTH_PORT": "8080",
}


def test_pushes_need_an_audience_an_account_a_port_and_the_bus_that_pushes() -> None:
    assert Settings.read(PUSHED).push_ack == "claim"
    for missing, told in {
        "JOBYARD_BUS": "set JOBYARD_BUS to pubsub://PROJECT",
        "JOBYARD_PUSH_SERVICE_ACCOUNT": "set both",
        "JOBYARD_HEALTH_PORT": "JOBYARD_HEALTH_PORT, which is not set",
    }.items():
        assert told in fault_of(**{name: it for name, it in PUSHED.items() if name != missing})
    alone = {"JOBYARD_PUSH_SERVICE_ACCOUNT": PUSHED["JOBYARD_PUSH_SERVICE_ACCOUNT"]}
    assert "set both" in fault_of(**alone)


# Together


def test_a_bulk_must_hold_the_largest_payload() -> None:
    assert "JOBYARD_MAX_PAYLOAD_BYTES" in fault_of(JOBYARD_MAX_BULK_BYTES="1024")
    same = Settings.read({"JOBYARD_MAX_BULK_BYTES": "2048", "JOBYARD_MAX_PAYLOAD_BYTES": "2048"})
    assert same.max_bulk_bytes == same.max_payload_bytes == 2048


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0", "::", "192.168.1.5", "jobs.example", "localhost.example", "localhost6", "0", "127.1", "2130706433", "128.0.0.1",
        "::ffff:10.0.0.1", "fe80::1", "*", " 127.0.0.1",
    ],
)  # fmt: skip
def test_a_host_that_others_reach_needs_a_key(host: str) -> None:
    fault = fault_of(HOST=host)
    assert fault.startswith(f"HOST: {host!r}")
    assert "JOBYARD_KEY" in fault
    assert Settings.read({"HOST": host, "JOBYARD_KEY": SECRET}).host == host


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.2", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "localhost", "LocalHost"]
)
def test_on_loopback_no_key_is_needed(host: str) -> None:
    assert Settings.read({"HOST": host}).key is None


def test_an_empty_key_protects_nothing() -> None:
    assert "JOBYARD_KEY" in fault_of(HOST="0.0.0.0", JOBYARD_KEY="")


def test_workers_take_the_direct_address_and_else_the_only_one() -> None:
    only = {"DATABASE_URL": "postgresql://pooler/db"}
    assert Settings.read(only).direct_url == "postgresql://pooler/db"
    both = only | {"DATABASE_DIRECT_URL": "postgresql://server/db"}
    assert Settings.read(both).direct_url == "postgresql://server/db"


# Secrets


def test_no_secret_is_in_the_repr() -> None:
    settings = Settings.read(
        {
            "JOBYARD_KEY": SECRET,
            "DATABASE_URL": f"postgresql://u:{SECRET}@h/db",
            "DATABASE_DIRECT_URL": f"postgresql://u:{SECRET}@h/db",
            "JOBYARD_SMTP_URL": f"smtp://u:{SECRET}@h",
        }
    )
    assert SECRET not in repr(settings)
    assert settings.key == SECRET


@pytest.mark.parametrize(
    "variable", ["DATABASE_URL", "DATABASE_DIRECT_URL", "JOBYARD_SMTP_URL", "JOBYARD_URL"]
)
@pytest.mark.parametrize(
    "held",
    [
        f"ftp://u:{SECRET}@h/db",
        f"u:{SECRET}@h/db",
        f"postgresql://u:{SECRET}@[h/db",
        f"http://u:{SECRET}@[::1",
        f"smtp://u:{SECRET}\N{CARE OF}@h",
        f"postgresql://u:{SECRET}\N{CARE OF}@h/db",
    ],
)
def test_no_fault_shows_a_secret(variable: str, held: str) -> None:
    for fault in faults_of(**{variable: held}):
        assert SECRET not in fault


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://user:pass@host:5432/db", "postgresql://user:***@host:5432/db"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("postgresql:///db?host=/run/pg", "postgresql:///db?host=/run/pg"),
        ("postgresql://:pass@host/db", "postgresql://:***@host/db"),
        ("smtp://user:pass@[::1]:25", "smtp://user:***@[::1]:25"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert without_password(address) == shown


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://user:p@{SECRET}@host/db",
        f"postgresql://user:p:{SECRET}@host/db",
        f"postgresql://user:p/{SECRET}@host/db",
        f"postgresql://user:p#{SECRET}@host/db",
        f"postgresql://user:p?{SECRET}@host/db",
        f"postgresql://user:{SECRET}[@host/db",
        f"postgresql://host/db?user=u&password={SECRET}",
        f"postgresql://host/db?PASSWORD={SECRET}&x=1",
        f"postgresql://host/db?sslpassword={SECRET}",
    ],
)
def test_no_way_to_write_a_password_shows_it(address: str) -> None:
    assert SECRET not in without_password(address)
    assert "host" in without_password(address)


def test_a_direct_address_alone_names_no_database() -> None:
    with pytest.raises(SettingsError, match=r"DATABASE_DIRECT_URL: .* set both"):
        Settings.read({"DATABASE_DIRECT_URL": "postgresql://u@h/d"})


@pytest.mark.parametrize("key", ["schlüssel", " leading", "two words", "tab\t"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.read({"JOBYARD_KEY": key})
    assert "JOBYARD_KEY: its value cannot be used" in str(refused.value)
    assert key not in str(refused.value)


@pytest.mark.parametrize("sender", ["nonsense", "a@b@c", "a b@c", "A <a@b.c>"])
def test_a_sender_that_is_no_mail_address_is_refused(sender: str) -> None:
    with pytest.raises(SettingsError, match=r"JOBYARD_SMTP_FROM: .* one mail address"):
        Settings.read({"JOBYARD_SMTP_FROM": sender})
