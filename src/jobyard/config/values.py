"""How the text of a variable becomes a value, or one sentence on what was expected; and what of an address may be shown."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import urlsplit

# A password that was not escaped may hold `@`, `/`, `?` or `#`, and then no parser finds it: all between the first
# colon and the last `@` is taken for one.
_USER_AND_PASSWORD = re.compile(r"^([\w+.-]+://[^:@]*|[^:@]*(?=:(?!//))):.*@", re.DOTALL)
_PASSWORD_OPTION = re.compile(r"([?&][^=&]*password[^=&]*=)[^&]*", re.IGNORECASE)


def without_password(address: str) -> str:
    """The address as it may be shown: a password in it is replaced by `***`."""
    return _PASSWORD_OPTION.sub(r"\1***", _USER_AND_PASSWORD.sub(r"\1:***@", address))


_PASSWORDS = re.compile(r"://[^:@/]*:(.*)@|[?&][^=&]*password[^=&]*=([^&]*)", re.IGNORECASE | re.DOTALL)


def secrets_in(value: str) -> set[str]:
    """All passwords of an address; a value that is no address is a secret as a whole."""
    if "://" not in value:
        return {value}
    return {text for pair in _PASSWORDS.findall(value) for text in pair if text}


def text(value: str) -> str:
    return value


def address(expected: str, *schemes: str, host: bool = True) -> Callable[[str], str]:
    def read(value: str) -> str:
        try:
            parts = urlsplit(value)
            fits = parts.scheme in schemes and bool(parts.hostname or not host) and _ports_fit(parts.netloc)
        except ValueError:  # its own words may quote the password
            fits = False
        if not fits:
            raise ValueError(expected)
        return value

    return read


def _ports_fit(netloc: str) -> bool:
    """Whether each of the hosts (PostgreSQL takes several) has a port that can be, or none. Raises ValueError."""
    hosts = netloc.rpartition("@")[2].split(",")
    return all(urlsplit(f"//{host}").port != 0 for host in hosts)


postgres = address(
    "an address like postgresql://user:password@host:5432/database", "postgres", "postgresql", host=False
)
smtp = address(
    "an address like smtp://user:password@host:587 (STARTTLS) or smtps://host:465 (TLS)", "smtp", "smtps"
)


def http(value: str) -> str:
    return address("an address like http://localhost:3000", "http", "https")(value).rstrip("/")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return number

    return read


def amount(unit: str, low: float, high: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise ValueError(f"{unit} from {low:g} to {high:g}")
        return number

    return read


def key(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("printable ASCII characters without blanks, as a header can carry them")
    return value


def sender(value: str) -> str:
    if not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", value):
        raise ValueError("one mail address, like jobs@example.com")
    return value


def networks(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(entry.strip()) for entry in value.split(","))
    except ValueError:
        raise ValueError(
            "addresses and networks in CIDR form, separated by commas, like 127.0.0.1, 10.0.0.0/8, ::1"
        ) from None


def one_of(*words: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in words:
            raise ValueError(" or ".join(words))
        return value

    return read


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it. A name other than localhost may be anybody's."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def default_home() -> Path:
    """/var/lib/jobyard as root, else the user's data folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/jobyard")
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "jobyard"
