"""Which addresses are public, which are those of this machine, and which are neither.

``ipaddress`` says ``is_global`` of addresses that lead to an IPv4 address inside of them, of which
any may be private (NAT64, 6to4, IPv4-compatible), of site-local ones and of multicast.
"""

from __future__ import annotations

import ipaddress
from enum import Enum, auto

# What is allocated of IPv6 (RFC 4291, 2.4). NAT64 (RFC 6052), IPv4-compatible and site-local
# addresses and multicast are all outside of it.
_UNICAST = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC = (
    ipaddress.ip_network("2002::/16"),  # 6to4, RFC 3056
    ipaddress.ip_network("3fff::/20"),  # documentation, RFC 9637
    ipaddress.ip_network("192.88.99.0/24"),  # relays of 6to4, RFC 7526
    ipaddress.ip_network("192.0.0.0/24"),  # protocol assignments, RFC 6890
)


class AddressScope(Enum):
    """Where an address leads."""

    LOOPBACK = auto()
    PRIVATE = auto()
    PUBLIC = auto()


def scope_of(text: str) -> AddressScope:
    """The scope of an IP address.

    Raises:
        ValueError: The text is no IP address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        return AddressScope.LOOPBACK
    special = any(address.version == net.version and address in net for net in _NOT_PUBLIC)
    unicast = address.version == 4 or address in _UNICAST
    if address.is_global and unicast and not special and not address.is_multicast:
        return AddressScope.PUBLIC
    return AddressScope.PRIVATE
