"""Looks up host names for outgoing calls without the event loop's thread pool.

uvloop resolves names in libuv's pool of four threads, which every new connection passes, even one to a numeric address: four
slow names would stall all of them. c-ares (aiodns) waits for any number of answers in one thread of its own, reads
/etc/hosts and /etc/resolv.conf, and follows changes to both.
"""

import asyncio
import socket
from typing import Any, Final

from aiodns.error import ARES_ETIMEOUT, DNSError
from aiohttp import AsyncResolver
from aiohttp.abc import AbstractResolver, ResolveResult

SECONDS: Final = 5.0
"""How long one name may take, of the 15 s of a call."""
_SERVER_SECONDS: Final = 2.0
"""How long one name server may take at first; a second try waits twice as long."""
_TRIES: Final = 2
LOOKUPS_AT_MOST: Final = 10_000
"""Lookups after which c-ares' own cache is dropped: it forgets names when they expire, but has no limit of its own."""


class LookupTimeoutError(OSError):
    """No name server answered in time."""


class NameResolver(AbstractResolver):
    """Resolves names for one aiohttp connector, which caches the answers and asks for a name once at a time.

    So what a merchant has under way here is at most one lookup for each name that its calls go to, and no lookup waits for
    another. Make it inside a running event loop; close it.
    """

    def __init__(self, seconds: float = SECONDS, **options: Any) -> None:
        """Take how long a name may take, and options of `aiodns.DNSResolver`, such as `nameservers`, for tests."""
        self._seconds = seconds
        self._options = {"timeout": _SERVER_SECONDS, "tries": _TRIES, **options}
        self._resolver = AsyncResolver(**self._options)
        self._lookups = 0

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Give a host's addresses. Raises OSError; LookupTimeoutError if no name server answered."""
        self._lookups += 1
        if self._lookups > LOOKUPS_AT_MOST:
            # Lookups under way keep the old one alive until they end.
            self._lookups, self._resolver = 1, AsyncResolver(**self._options)
        # c-ares knows localhost by itself, but not with the root's full stop.
        name = "localhost" if host.lower() == "localhost." else host
        try:
            async with asyncio.timeout(self._seconds):
                return await self._resolver.resolve(name, port, family)
        except TimeoutError:
            raise LookupTimeoutError(None, f"no name server answered within {self._seconds:g} s") from None
        except OSError as error:
            cause = error.__cause__
            if isinstance(cause, DNSError) and cause.args[0] == ARES_ETIMEOUT:
                raise LookupTimeoutError(None, "no name server answered") from None
            raise

    async def close(self) -> None:
        """Cancel the lookups under way."""
        await self._resolver.close()
