"""Name servers for tests: one with given addresses, and one that never responds."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence

from aiohttp.abc import AbstractResolver, ResolveResult


class StubResolver(AbstractResolver):
    """Resolves names to `addresses`, as a merchant's own name server could.

    Other names resolve to `anything`, or do not exist without it.
    """

    def __init__(self, addresses: Mapping[str, Sequence[str]] | None = None, anything: str | None = None) -> None:
        self.addresses = dict(addresses or {})
        self._anything = anything

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Return the host's addresses. Raises OSError if it has none."""
        found = self.addresses.get(host, [self._anything] if self._anything else [])
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
        """Nothing to do."""


class SilentNameServer(asyncio.DatagramProtocol):
    """A name server on loopback that never responds. It records the names of all queries in `names`."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.more = asyncio.Event()

    def datagram_received(self, data: bytes, address: object) -> None:
        """Record the name in the question: labels prefixed by their length, after a header of twelve bytes."""
        labels, rest = [], data[12:]
        while rest and rest[0]:
            labels.append(rest[1 : rest[0] + 1].decode())
            rest = rest[rest[0] + 1 :]
        self.names.add(".".join(labels))
        self.more.set()

    async def wait_for_queries(self, names: set[str]) -> None:
        """Wait until it has been asked for all of these names."""
        while not names <= self.names:
            await self.more.wait()
            self.more.clear()


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Yield a bound UDP port on loopback that nobody reads from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
