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
        "fd00:a9fe:a9fe::1/128",  # Linode
    )
)
_METADATA_NAMES = frozenset(
    (
        "metadata", "metadata.google.internal", "metadata.goog",  # GCP
        "instance-data", "instance-data.ec2.internal",  # AWS
        "metadata.azure.internal",
        "metadata.tencentyun.com",
        "metadata.packet.net", "metadata.platformequinix.com",  # Equinix, at a public address
        "rancher-metadata",
    )
)  # fmt: skip

_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_CARRIER_GRADE_NAT = IPv4Network("100.64.0.0/10")
_RESERVED: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments; Python 3.11 counts most of it as public
        "192.88.99.0/24",  # former 6to4 relays
        "3fff::/20",  # documentation; Python 3.11 counts it as public
    )
)


def refusal_reason(address: str, allowed_networks: Iterable[Network]) -> str | None:
    """Return why we must not connect to an address, as the end of an error message; None if we may.

    `address` is numeric, as a resolver returns it, with or without an IPv6 zone. Never raises: an invalid address is refused.
    """
    try:
        outer = ip_address(address)
    except ValueError:
        return f"{address[:64]!r} is not an IP address"
    ends = _ends(outer)
    if any(_within(end, _METADATA) for end in (outer, *ends, *_possible_ends(outer))):
        return f"{_name(outer, ends[-1])} is link-local or a cloud metadata service and is never allowed"
    for end in ends:
        # Check only where packets end: allowing a NAT64 prefix must not allow all of private IPv4.
        kind = None if _within(end, allowed_networks) else _kind(end)
        if kind is not None:
            return f"{_name(outer, end)} is {kind} and not allowed; the operator can allow its network"
    return None


def is_metadata_name(host: str) -> bool:
    """Return whether a host name is that of a cloud metadata service. Case and a trailing full stop do not matter."""
    return host.lower().removesuffix(".") in _METADATA_NAMES


def _name(outer: _Address, end: _Address) -> str:
    return f"address {outer}" if end is outer else f"address {outer}, which leads to {end},"


def _ends(address: _Address) -> tuple[_Address, ...]:
    """Return where packets to an address end: the IPv4 address embedded in an IPv6 one, or else the address itself.

    Mapped, compatible, translated, 6to4 and NAT64 addresses embed one. An ISATAP address has two ends: its router, which has
    the same prefix, and the IPv4 address.
    """
    if isinstance(address, IPv4Address):
        return (address,)
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is not None:
        return (embedded,)
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    compatible = address in _COMPATIBLE and int(address) > 1  # :: and ::1 embed no IPv4 address
    if compatible or address in _NAT64 or address in _TRANSLATED:
        return (last,)
    # The interface identifier is 0:5efe and the IPv4 address, or 200:5efe and a public one.
    if int(address) >> 32 & 0xFDFFFFFF == 0x5EFE:
        return address, last
    return (address,)


def _possible_ends(address: _Address) -> tuple[IPv4Address, ...]:
    """Return more IPv4 addresses where packets might end: those of Teredo, and each position in a local NAT64 address."""
    if isinstance(address, IPv4Address):
        return ()
    if address in _LOCAL_NAT64:
        # RFC 6052, for prefixes of 48, 56 and 64 bits; byte 8 is not part of the address. With 96 bits, the last four bytes.
        packed = address.packed
        return (*(IPv4Address(packed[start:8] + packed[9 : start + 5]) for start in (6, 7, 8)), IPv4Address(packed[12:]))
    return address.teredo or ()


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
        return "a carrier-grade NAT address"
    # The position of the IPv4 address in a local NAT64 address depends on the network's prefix, so it cannot be extracted.
    if isinstance(address, IPv6Address) and address in _LOCAL_NAT64:
        return "private"
    if _within(address, _RESERVED) or address.is_reserved or (isinstance(address, IPv6Address) and address.is_site_local):
        return "reserved"
    if address.is_private:
        return "private"
    return None if address.is_global else "not public"
