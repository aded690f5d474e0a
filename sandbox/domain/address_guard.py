"""Decides which IP addresses a webhook may be delivered to.

Merchants choose the URLs and see the answers, so without this a webhook could read what only the sandbox's own
network can reach (server-side request forgery). Source: the wire contract, section 3: private addresses only when
the operator allows them, cloud metadata never. Judged is the address about to be connected to, never a URL's text.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

# Where clouds hand a machine its credentials. Not even an operator's allowance opens these: whoever allows
# 10.0.0.0/8 or ::/0 for tests does not mean to give the machine's own identity to every merchant.
_METADATA: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local at large: AWS, GCP, Azure, Oracle, DigitalOcean, ECS at .170.2
        "fe80::/10",  # link-local of IPv6
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "168.63.129.16/32",  # Azure's platform; a public address, yet answered by the host itself
        "fd00:ec2::/32",  # AWS: ::254 metadata, ::23 pod identity
        "fd20:ce::254/128",  # GCP
        "fd00:42::42/128",  # Scaleway
    )
)

_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
_CARRIER_GRADE_NAT = IPv4Network("100.64.0.0/10")


def refusal(address: str, allowed_networks: Iterable[Network]) -> str | None:
    """Say why an address must not be connected to, as the end of an error's sentence; None when it may be.

    `address` is numeric, as a resolver gives it (an IPv6 zone may follow). Never raises: what is no address is refused.
    """
    try:
        outer = ip_address(address)
    except ValueError:
        return f"{address[:64]!r} is not an IP address"
    inner = _unwrapped(outer)
    name = f"address {outer}" if inner is outer else f"address {outer}, which stands for {inner},"
    if _within(outer, _METADATA) or _within(inner, _METADATA):
        return f"{name} is link-local or a cloud metadata service and is never allowed"
    # Only the address inside a wrapping counts: allowing a NAT64 prefix must not open all of private IPv4.
    if _within(inner, allowed_networks):
        return None
    kind = _kind(inner)
    return None if kind is None else f"{name} is {kind} and not allowed; the operator can allow its network"


def _unwrapped(address: _Address) -> _Address:
    """Give the IPv4 address that an IPv6 one leads to (mapped, compatible, 6to4, NAT64), else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    wrapped = address.ipv4_mapped or address.sixtofour
    if wrapped is not None:
        return wrapped
    compatible = address in _COMPATIBLE and int(address) > 1  # :: and ::1 are addresses of their own
    if compatible or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _within(address: _Address, networks: Iterable[Network]) -> bool:
    # A zone ("fe80::1%eth0") plays no part in membership; of another version, `in` answers False.
    return any(address in network for network in networks)


def _kind(address: _Address) -> str | None:
    """Name what keeps an address from being a public one; the more telling names come first."""
    # Asked one by one, as `is_global` changed its answers between Python releases and takes multicast for global.
    if address.is_unspecified:
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if address.is_multicast:
        return "multicast"
    if isinstance(address, IPv4Address) and address in _CARRIER_GRADE_NAT:
        return "of carrier-grade NAT"
    # Where a network's own NAT64 puts the IPv4 address depends on its prefix, so it cannot be unwrapped.
    if isinstance(address, IPv6Address) and address in _LOCAL_NAT64:
        return "private"
    if address.is_reserved or (isinstance(address, IPv6Address) and address.is_site_local):
        return "reserved"
    if address.is_private:
        return "private"
    return None if address.is_global else "not public"
