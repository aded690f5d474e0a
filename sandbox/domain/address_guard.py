"""Decide which IP addresses a webhook may be delivered to. Pure.

Merchants choose the URLs and see the responses, so an unchecked webhook could read services that only the sandbox's own
network can reach (server-side request forgery). Private addresses need the operator's permission; cloud metadata is never
allowed. Check the address that is about to be connected to, not the text of a URL.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

# Cloud metadata services, which give a machine its credentials. The operator cannot allow these: someone who allows
# 10.0.0.0/8 or ::/0 for tests does not mean to share the machine's identity with every merchant.
_METADATA: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "169.254.0.0/16",  # all of IPv4 link-local: AWS, GCP, Azure, Oracle, DigitalOcean, ECS at .170.2
        "fe80::/10",  # IPv6 link-local
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "168.63.129.16/32",  # Azure's platform: a public address, but the host itself responds
        "fd00:ec2::/32",  # AWS: ::254 metadata, ::23 pod identity
        "fd20:ce::254/128",  # GCP
        "fd00:42::42/128",  # Scaleway
    )
)

_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
_CARRIER_GRADE_NAT = IPv4Network("100.64.0.0/10")


def refusal_reason(address: str, allowed_networks: Iterable[Network]) -> str | None:
    """Return why we must not connect to an address, as the end of an error message; None if we may.

    `address` is numeric, as a resolver returns it, with or without an IPv6 zone. Never raises: an invalid address is refused.
    """
    try:
        outer = ip_address(address)
    except ValueError:
        return f"{address[:64]!r} is not an IP address"
    inner = _unwrapped(outer)
    name = f"address {outer}" if inner is outer else f"address {outer}, which leads to {inner},"
    if _within(outer, _METADATA) or _within(inner, _METADATA):
        return f"{name} is link-local or a cloud metadata service and is never allowed"
    # Check only the embedded address: allowing a NAT64 prefix must not allow all of private IPv4.
    if _within(inner, allowed_networks):
        return None
    kind = _kind(inner)
    return None if kind is None else f"{name} is {kind} and not allowed; the operator can allow its network"


def _unwrapped(address: _Address) -> _Address:
    """Return the IPv4 address embedded in an IPv6 one (mapped, compatible, 6to4, NAT64), or else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is not None:
        return embedded
    compatible = address in _COMPATIBLE and int(address) > 1  # :: and ::1 embed no IPv4 address
    if compatible or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _within(address: _Address, networks: Iterable[Network]) -> bool:
    # `in` ignores a zone ("fe80::1%eth0"), and is False for a network of the other IP version.
    return any(address in network for network in networks)


def _kind(address: _Address) -> str | None:
    """Return what kind of non-public address this is, the most specific kind first; None if it is public."""
    # Each kind is checked, because `is_global` differs between Python releases and counts multicast as global.
    if address.is_unspecified:
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if address.is_multicast:
        return "multicast"
    if isinstance(address, IPv4Address) and address in _CARRIER_GRADE_NAT:
        return "of carrier-grade NAT"
    # The position of the IPv4 address in a local NAT64 address depends on the network's prefix, so it cannot be extracted.
    if isinstance(address, IPv6Address) and address in _LOCAL_NAT64:
        return "private"
    if address.is_reserved or (isinstance(address, IPv6Address) and address.is_site_local):
        return "reserved"
    if address.is_private:
        return "private"
    return None if address.is_global else "not public"
