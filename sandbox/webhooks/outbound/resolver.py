"""Look up host names for outgoing calls without the event loop's thread pool.

uvloop resolves names in libuv's pool of four threads. Every new connection uses that pool, even one to a numeric address, so
four slow names would stall all connections. c-ares (aiodns) waits for any number of responses in a single thread, reads
/etc/hosts and /etc/resolv.conf, and follows changes to both.
"""

import asyncio
import socket
from typing import Any, Final

from aiodns.error import ARES_ENODATA, ARES_ENOTFOUND, ARES_ETIMEOUT, DNSError
from aiohttp import AsyncResolver
from aiohttp.abc import AbstractResolver, ResolveResult

from sandbox.webhooks.outbound.address_guard import is_metadata_name

TIMEOUT_SECONDS: Final = 5.0
"""Timeout of one lookup. It is part of a call's 15 s."""
_SERVER_SECONDS: Final = 2.0
"""Timeout of a name server's first try; the second try waits twice as long."""
_TRIES: Final = 2
_UNKNOWN_SECONDS: Final = 1.0
"""How long an unknown name is not looked up again. Otherwise an endpoint with many deliveries causes as many lookups."""
_MAX_UNKNOWN: Final = 10_000
LOOKUPS_PER_CACHE: Final = 10_000
"""Number of lookups after which c-ares' cache is dropped. The cache removes expired names, but its size is unlimited."""


class LookupTimeoutError(OSError):
    """No name server responded in time."""


class MetadataNameError(OSError):
    """The name is that of a cloud metadata service, which is never looked up."""


class NameResolver(AbstractResolver):
    """Resolves names for one aiohttp connector.

    The connector caches the addresses, and a merchant has at most one lookup in progress per host name. No lookup
    waits for another. Create it inside a running event loop, and close it.
    """

    def __init__(self, seconds: float = TIMEOUT_SECONDS, **options: Any) -> None:
        """`seconds` is the timeout of one lookup. `options` go to `aiodns.DNSResolver`; tests pass `nameservers`."""
        self._seconds = seconds
        self._options = {"timeout": _SERVER_SECONDS, "tries": _TRIES, **options}
        self._resolver = AsyncResolver(**self._options)
        self._lookups = 0
        self._unknown: dict[str, float] = {}
        """When each unknown name may be looked up again, on the loop's clock."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Return a host's addresses. Raises OSError; LookupTimeoutError if no name server responded in time."""
        # Its address is not enough: in a network of its own, a metadata service can have any address.
        if is_metadata_name(host):
            raise MetadataNameError(None, "the host is a cloud metadata service, which is never allowed")
        now = asyncio.get_running_loop().time()
        if self._unknown.get(host, now) > now:
            raise OSError(None, "the name was unknown a moment ago")
        self._lookups += 1
        if self._lookups > LOOKUPS_PER_CACHE:
            # Lookups in progress keep the old resolver alive until they end.
            self._lookups, self._resolver = 1, AsyncResolver(**self._options)
        # c-ares resolves localhost without a name server, but not with a trailing dot.
        name = "localhost" if host.lower() == "localhost." else host
        try:
            async with asyncio.timeout(self._seconds):
                return await self._resolver.resolve(name, port, family)
        except TimeoutError:
            raise LookupTimeoutError(None, f"no name server responded within {self._seconds:g} s") from None
        except OSError as error:
            cause = error.__cause__
            if isinstance(cause, DNSError) and cause.args[0] == ARES_ETIMEOUT:
                raise LookupTimeoutError(None, "no name server responded") from None
            if isinstance(cause, DNSError) and cause.args[0] in (ARES_ENOTFOUND, ARES_ENODATA):
                if len(self._unknown) >= _MAX_UNKNOWN:
                    self._unknown.clear()
                self._unknown[host] = now + _UNKNOWN_SECONDS
            raise

    async def close(self) -> None:
        """Cancel the lookups in progress."""
        await self._resolver.close()
