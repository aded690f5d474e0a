"""DNS for tests: a resolver with given addresses, and a name server that never responds."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence

from aiohttp.abc import AbstractResolver, ResolveResult


class StubResolver(AbstractResolver):
    """Resolves names to `addresses`, which tests may change at any time.

    All other names resolve to `default`, or do not exist if it is None.
    """

    def __init__(self, addresses: Mapping[str, Sequence[str]] | None = None, default: str | None = None) -> None:
        self.addresses = dict(addresses or {})
        self._default = default

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Return the host's addresses. Raises OSError if it has none."""
        found = self.addresses.get(host, [self._default] if self._default else [])
        if not found:
            raise OSError(None, "no such name")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Do nothing."""


class SilentNameServer(asyncio.DatagramProtocol):
    """A name server on loopback that never responds. It records the queried names in `names`."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._query_arrived = asyncio.Event()

    def datagram_received(self, data: bytes, address: object) -> None:
        """Record the queried name: a header of twelve bytes, then labels, each after its length."""
        labels, rest = [], data[12:]
        while rest and rest[0]:
            labels.append(rest[1 : rest[0] + 1].decode())
            rest = rest[rest[0] + 1 :]
        self.names.add(".".join(labels))
        self._query_arrived.set()

    async def wait_for_queries(self, names: set[str]) -> None:
        """Wait until all of these names have been queried."""
        while not names <= self.names:
            await self._query_arrived.wait()
            self._query_arrived.clear()


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Yield a bound UDP port on loopback that never responds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
