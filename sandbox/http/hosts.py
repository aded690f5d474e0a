"""The host names that the servers answer to. Pure.

A web page can point its own name at 127.0.0.1 (DNS rebinding), and its visitor's browser then treats the sandbox as part of
that page. The browser still sends the page's name as Host, so requests to names that are not the sandbox's are refused.
"""

import functools
import ipaddress
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from sandbox.domain.errors import Problem

SETTING: Final = "SANDBOX_ALLOWED_HOSTS"
_OF_THIS_MACHINE: Final = ("localhost", ".localhost", "host.docker.internal", "host.containers.internal")
"""Names that resolve to this machine by definition (RFC 6761, 6.3), or by the container's own configuration: no site controls
them."""
_CACHED_NAMES: Final = 256
_MAX_LENGTH: Final = 260
"""In bytes: the longest domain name with a port."""

HostCheck = Callable[[Iterable[tuple[bytes, bytes]], str], Problem | None]
"""Takes a request's headers and its HTTP version. Returns why the request is refused, or None."""


def host_check(names: Iterable[str] = ()) -> HostCheck:
    """Return a check that accepts addresses, names of this machine, and these names.

    A name that starts with a dot stands for all names that end in it, and `*` for all names. An address needs no name, so
    nobody can rebind it.
    """
    allowed = frozenset(name.lower() for name in (*_OF_THIS_MACHINE, *names))
    suffixes = tuple(name for name in allowed if name.startswith("."))

    # Almost all requests of a process have one Host.
    @functools.lru_cache(_CACHED_NAMES)
    def is_own(host: bytes) -> bool:
        try:
            name = (urlsplit(f"//{host.decode('ascii')}").hostname or "").rstrip(".")
        except ValueError:  # not ASCII, or brackets that do not match
            return False
        return "*" in allowed or name in allowed or name.endswith(suffixes) or _is_address(name)

    def check(headers: Iterable[tuple[bytes, bytes]], http_version: str) -> Problem | None:
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and http_version != "1.0"):
            # RFC 9112, 3.2: the response to both is 400.
            text = "must have exactly one Host header"
            return Problem("VALIDATION_ERROR", f"The request {text}.", errors=[("request", text)])
        if not hosts or (len(hosts[0]) <= _MAX_LENGTH and is_own(hosts[0])):
            return None
        shown = hosts[0][:100].decode("latin-1")
        return Problem(
            "FORBIDDEN", f"The sandbox does not answer to the host name {shown!r}. If it is yours, add it to {SETTING}."
        )

    return check


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
