"""From the text of a URL to the parts a request needs, and the one form in which an address may be shown."""

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpx

from jobyard.outgoing.errors import InvalidAddress

# No percent sign and no backslash: in a host they mean something else to each reader.
_HOST = re.compile(r"[a-z0-9_.-]{1,253}")


def read_url(text: str) -> httpx.URL:
    """The URL, with its host in ASCII and its path percent-encoded. Raises InvalidAddress, which never quotes it."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise InvalidAddress("this is not a URL; expected one like https://example.com/path") from None
    if url.scheme not in ("http", "https"):
        raise InvalidAddress("only http:// and https:// addresses can be called")
    if url.userinfo:
        raise InvalidAddress(
            "user and password cannot stand in an address; send them in an Authorization header"
        )
    host = host_of(url)
    if not (_HOST.fullmatch(host) or literal(host)):
        raise InvalidAddress("the host is neither a name nor an IP address that can be called")
    if url.port is not None and not 1 <= url.port <= 65535:
        raise InvalidAddress("the port is not a number from 1 to 65535")
    return url


def host_of(url: httpx.URL) -> str:
    """The host as it goes over the wire: names outside ASCII in their `xn--` form, IPv6 without brackets."""
    return url.raw_host.decode("ascii")


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that the host itself is, if it is one in its usual spelling."""
    with suppress(ValueError):
        address = ip_address(host)
        return None if "%" in host else address
    return None


def shown(url: httpx.URL) -> str:
    """Scheme, host and port. A path is left out too: in the addresses of chat webhooks it is the credential."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"
