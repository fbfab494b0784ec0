"""Which addresses the guard lets through, by table and against the standard library."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobyard.outgoing.guard import Guard

REFUSED = {
    "loopback": "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 ::ffff:7f00:1",
    "unspecified": "0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0",
    "cloud metadata": "169.254.169.254 ::ffff:a9fe:a9fe 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254",
    "link-local": "169.254.0.1 169.254.170.2 fe80::1 febf:ffff::1 fe80::1%eth0",
    "private": "10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 fc00::1 fdff::1 fec0::1 ::ffff:10.0.0.1",
    "carrier-grade NAT": "100.64.0.1 100.127.255.255",
    "multicast": "224.0.0.1 239.255.255.255 ff02::1 ff0e::1",
    "IPv4 inside IPv6": "::127.0.0.1 ::8.8.8.8 64:ff9b::7f00:1 64:ff9b::808:808 64:ff9b:1::1 2002:7f00:1:: 2001::1",
    "documentation": "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1",
    "reserved": "192.0.0.1 192.88.99.1 198.18.0.1 198.19.255.255 240.0.0.1 255.255.255.255 2001:2::1 2001:20::1 100::1"
    " 5f00::1 4000::1 8000::1 c000::1 fe00::1 200::1",
}  # fmt: skip
PUBLIC = (
    "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255"
    " 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255"
    " 168.63.129.15 2001:200::1 2001:4860:4860::8888 2606:4700::1111 2a00:1450::1 3ffe::1 ::ffff:8.8.8.8"
)


@pytest.mark.parametrize(
    ("kind", "address"), [(kind, a) for kind, held in REFUSED.items() for a in held.split()]
)
def test_an_address_that_is_not_public_is_refused_by_its_kind(kind: str, address: str) -> None:
    assert Guard().refusal(ip_address(address)) == kind


@pytest.mark.parametrize("address", PUBLIC.split())
def test_a_public_address_is_let_through(address: str) -> None:
    assert Guard().refusal(ip_address(address)) is None


@settings(deadline=None)
@given(st.ip_addresses())
def test_nothing_is_let_through_that_the_standard_library_does_not_call_global(address) -> None:
    if Guard().refusal(address) is None:
        address = getattr(address, "ipv4_mapped", None) or address
        assert address.is_global
        assert not address.is_multicast


@pytest.mark.parametrize(
    ("allowed", "through", "refused"),
    [
        ("127.0.0.0/8", "127.1.2.3 ::ffff:127.0.0.1", "10.0.0.1 ::1 ::127.0.0.1 64:ff9b::7f00:1"),
        ("127.0.0.1/32", "127.0.0.1", "127.0.0.2"),
        ("::1/128", "::1", "127.0.0.1 ::"),
        ("fd00::/8", "fd00::1 fd00:ec2::254", "fc00::1"),
        ("0.0.0.0/0", "127.0.0.1 169.254.169.254", "::1"),
    ],
)  # fmt: skip
def test_the_ranges_of_the_operator_are_let_through_and_nothing_beside_them(
    allowed: str, through: str, refused: str
) -> None:
    guard = Guard([ip_network(allowed)])
    assert [address for address in through.split() if guard.refusal(ip_address(address))] == []
    assert [address for address in refused.split() if not guard.refusal(ip_address(address))] == []
