"""Which addresses are out in the internet, rather than of this machine, of its network, or of nobody.

Python's `is_global` alone does not say it: multicast may be global, and versions of Python differ. What is refused here
is what IANA's registries of special-purpose addresses call not globally reachable, and a little more.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # a provider's own, and Alibaba Cloud's metadata
            "127.0.0.0/8",
            "168.63.129.16/32",  # looks public, and is every virtual machine's own platform in Azure
            "169.254.0.0/16",  # link-local, and the metadata of most clouds
            "172.16.0.0/12",
            "192.0.0.0/24",  # and Oracle Cloud's metadata
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)

# Of IPv6 only what was given to the internet. Loopback, link-local, unique local and multicast lie outside of it, as do
# most of the forms that hold an IPv4 address.
_V6 = ipaddress.IPv6Network("2000::/3")
_V6_NOT = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocols' own, Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4: leads to the IPv4 address that it holds
            "3fff::/20",
        ),
    )
)
# A network without IPv4 reaches hosts that have nothing else by such an address (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether this is an address of a host in the internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not _within(address, _V4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _V6 and not _within(address, _V6_NOT)


def _within(address: Address, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(address in network for network in networks)
