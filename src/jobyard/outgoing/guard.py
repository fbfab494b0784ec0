"""Which addresses a request may go to: public ones, and the ranges that the operator lets through."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA = "cloud metadata"
"""Where a cloud gives a machine its credentials."""

# By IANA's registries of special-purpose addresses; Python's `is_global` and its kin differ from release to release.
# The first that fits names the reason, so the last IPv6 ranges (all but 2000::/3) hold whatever is left.
_NOT_PUBLIC = {
    "loopback": "127.0.0.0/8 ::1/128",
    "unspecified": "0.0.0.0/8 ::/128",
    METADATA: "169.254.169.254/32 168.63.129.16/32 100.100.100.200/32 192.0.0.192/32 fd00:ec2::254/128",
    "link-local": "169.254.0.0/16 fe80::/10",
    "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10",
    "carrier-grade NAT": "100.64.0.0/10",
    "multicast": "224.0.0.0/4 ff00::/8",
    "IPv4 inside IPv6": "::/96 64:ff9b::/96 64:ff9b:1::/48 2001::/32 2002::/16",
    "documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
    "reserved": "192.0.0.0/24 192.88.99.0/24 198.18.0.0/15 240.0.0.0/4 2001::/23 ::/3 4000::/2 8000::/1",
}
_RANGES: list[tuple[Network, str]] = [
    (ip_network(range), kind) for kind, ranges in _NOT_PUBLIC.items() for range in ranges.split()
]


class Guard:
    """Judges addresses. What `allow` holds is let through; nothing else that is not public is."""

    def __init__(self, allow: Sequence[Network] = ()) -> None:
        self._allow = allow

    def refusal(self, address: Address) -> str | None:
        """Why the address is refused, or None. An IPv4-mapped IPv6 address is the IPv4 address that it connects to."""
        target = getattr(address, "ipv4_mapped", None) or address
        if any(target in allowed for allowed in self._allow):
            return None
        return next((kind for network, kind in _RANGES if target in network), None)
