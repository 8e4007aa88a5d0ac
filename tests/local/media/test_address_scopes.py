"""Addresses that lead inside count as private, in whatever form they come."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarigrpc.local.media.address_scopes import AddressScope, scope_of
from clarigrpc.local.media.url_fetching import Fetcher
from clarigrpc.local.service_errors import ServiceError

_PRIVATE = [
    "10.1.2.3",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "192.88.99.1",
    "192.0.0.8",
    "::",
    "::169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "2001:0:a9fe:a9fe::",
    "2002:a9fe:a9fe::1",
    "2001:db8::1",
    "3fff::1",
    "fc00::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff0e::1",
]


@pytest.mark.parametrize("text", _PRIVATE)
def test_private(text: str) -> None:
    assert scope_of(text) is AddressScope.PRIVATE


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback(text: str) -> None:
    assert scope_of(text) is AddressScope.LOOPBACK


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "2a00:1450::1"])
def test_public(text: str) -> None:
    assert scope_of(text) is AddressScope.PUBLIC


@given(st.ip_addresses(v=4))
def test_no_form_of_an_ipv4_address_is_more_public(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for form in (number, (0x64FF9B << 96) | number, (0x2002 << 112) | (number << 80)):
        assert scope_of(str(ipaddress.IPv6Address(form))) is not AddressScope.PUBLIC
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
    assert scope_of(str(mapped)) is scope_of(str(address))


@pytest.mark.parametrize(
    "host", ["[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::7f00:2]", "[fec0::1]"]
)
def test_they_are_not_fetched(host: str) -> None:
    with pytest.raises(ServiceError, match="private address"):
        Fetcher(timeout=2).get(f"http://{host}:9/a.png")
