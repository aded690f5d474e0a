"""Check the URL of a webhook endpoint or a vendor before it is stored. Pure.

Refuse URLs to which no request is possible. A host name can resolve to another address later, so `address_guard` checks the
address when connecting.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from yarl import URL

from sandbox.webhooks.outbound.address_guard import Network, is_metadata_name, refusal_reason

_MAX_NAME_LENGTH: Final = 253
_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")
# URL parsers treat a host whose last label is a number as an IPv4 address (WHATWG URL, "ends in a number"). The HTTP client
# does so only for four decimal numbers.
_NUMBER: Final = re.compile(r"([0-9]+|0[Xx][0-9A-Fa-f]*)\Z")
_PORT: Final = re.compile(r"[0-9]{1,5}\Z")
# The HTTP client's parser rewrites an IPv6 address and drops what it does not understand, so also check the authority as
# it was written.
_AUTHORITY: Final = re.compile(r"https?://(?!:[0-9]*(?:[/?#]|\Z))([^/?#]*)", re.IGNORECASE)


def url_error(url: str, allowed_networks: Iterable[Network]) -> str | None:
    """Return why no request to `url` is possible, as text that follows the field's name; None if a request is possible.

    `url` is printable ASCII. `allowed_networks` are the private networks that the operator allows. Never raises.
    """
    written = _AUTHORITY.match(url)
    if written is None:
        return "must begin with http:// or https:// and name a host"
    authority = written[1]
    if "@" in authority:
        return "must not contain a user name or password"
    # Use the HTTP client's parser: two parsers could see two different hosts in one URL.
    try:
        target = URL(url)
        host, port = target.raw_host, target.port
        target.host  # noqa: B018 -- decodes an international name, and raises if it is not valid
    except ValueError as error:
        if "port" in str(error).lower():
            return _BAD_PORT
        return "is not a valid URL: its host is not valid"
    if not host:
        return "must begin with http:// or https:// and name a host"
    port_error = _port_error(authority, port)
    if port_error is not None:
        return port_error
    if authority.startswith("["):
        return _ipv6_error(host, allowed_networks)
    return _host_error(host, allowed_networks)


_BAD_PORT: Final = "must have a port from 1 to 65535, or none"


def _port_error(authority: str, port: int | None) -> str | None:
    written = authority.rpartition("]")[2].partition(":")[2]
    if not port or (written and not _PORT.match(written)):
        return _BAD_PORT
    return None


def _ipv6_error(host: str, allowed_networks: Iterable[Network]) -> str | None:
    try:
        address = IPv6Address(host)
    except ValueError:
        return "must name a valid IPv6 address between the brackets"
    if address.scope_id is not None:
        return "must name an IPv6 address without a zone, because zones have a meaning on one machine only"
    return _address_error(str(address), allowed_networks)


def _host_error(host: str, allowed_networks: Iterable[Network]) -> str | None:
    name = host.removesuffix(".")  # a name may end with the root's empty label
    if is_metadata_name(name):
        return "must not name a cloud metadata service"
    labels = name.split(".")
    if "" in labels:
        return "must name a host without empty labels: no full stop at the start, and no two in a row"
    if _NUMBER.match(labels[-1]):
        try:
            return _address_error(str(IPv4Address(host)), allowed_networks)
        except ValueError:
            return "must write an IPv4 address as four decimal numbers from 0 to 255, such as 203.0.113.7"
    if len(name) > _MAX_NAME_LENGTH or not all(_LABEL.match(label) for label in labels):
        return (
            "must name a host in letters, digits, hyphens and underscores, with at most 63 characters between full stops "
            f"and {_MAX_NAME_LENGTH} in all"
        )
    return None


def _address_error(address: str, allowed_networks: Iterable[Network]) -> str | None:
    refused = refusal_reason(address, allowed_networks)
    return None if refused is None else f"cannot be connected to: {refused}"
