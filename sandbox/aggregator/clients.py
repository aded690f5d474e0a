"""Fetch a page of a vendor's feed: over HTTP, or from our own feed in this process."""

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from sandbox.domain.address_guard import Network, refusal
from sandbox.domain.clock import milliseconds, render
from sandbox.domain.errors import Problem
from sandbox.domain.ids import LARGEST_ID, SMALLEST_ID, first_id_at
from sandbox.domain.vendor_polling import PAGE_SIZE
from sandbox.domain.webhook_schedule import parse_retry_after
from sandbox.feed.service import FeedService, Span
from sandbox.webhooks.resolver import NameResolver
from sandbox.webhooks.sockets import open_socket

TIMEOUT: Final = 15.0
"""Seconds for everything: name, connection, request, and the whole answer."""
BODY_LIMIT: Final = 2 * 1024 * 1024
OWN: Final = "own:/vendor/v1/transactions"
"""What the record of a fetch says of our own feed."""

_HEADERS: Final = {
    "User-Agent": "PSP-Sandbox-Aggregator/1",
    "Accept": "application/json",
    # A compressed answer could unpack to far more than the limit.
    "Accept-Encoding": "identity",
}


class FetchFailedError(Exception):
    """A call that brought no page; the message is a sentence's end that holds no secret."""

    def __init__(self, message: str, status: int | None = None, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Ask:
    """Whose feed, and which page of what was made since when."""

    merchant_id: str
    url: str | None
    headers: Mapping[str, str]
    since: datetime | None
    page: int

    def address(self) -> str:
        """The address with its query, as it is asked for and recorded; keys are in headers and not here."""
        query = {"page": str(self.page), "limit": str(PAGE_SIZE)}
        if self.since is not None:
            query["startDate"] = render(self.since)
        return str(URL(self.url or OWN).with_query(query))


class VendorClient(Protocol):
    """What can fetch a page."""

    in_order: bool
    """Whether rows appear in the order of their times."""

    async def fetch(self, ask: Ask) -> bytes:
        """The body of a 200. Raises FetchFailedError."""


class OwnVendor:
    """Our own feed, without the way over HTTP: no call of an API key is spent on it."""

    in_order = True

    def __init__(self, feed: FeedService) -> None:
        self._feed = feed

    async def fetch(self, ask: Ask) -> bytes:
        """The page as the API would answer it. Raises FetchFailedError."""
        first = SMALLEST_ID if ask.since is None else first_id_at(milliseconds(ask.since))
        try:
            page = await self._feed.page(ask.merchant_id, Span(first, LARGEST_ID), ask.page, PAGE_SIZE)
        except Problem as problem:
            raise FetchFailedError(problem.detail, problem.status) from None
        return msgspec.json.encode(page)


class HttpVendor:
    """Vendors over one aiohttp session, every wait and every size bounded. Make it inside a running event loop; close it."""

    in_order = False

    def __init__(
        self,
        allowed_networks: Sequence[Network] = (),
        timeout: float = TIMEOUT,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """Take the private networks that may be reached (SANDBOX_WEBHOOK_ALLOW), and the seconds of a whole call.

        `resolver` replaces the system's name servers; it is closed with the client.
        """
        self._allowed = tuple(allowed_networks)
        self._seconds = timeout
        self._resolver = resolver or NameResolver()
        self._session = aiohttp.ClientSession(
            # A connection for each call: calls are twelve seconds apart, and vendors close idle ones when they like.
            # Each merchant has one under way at most, and the worker limits how many merchants do.
            connector=aiohttp.TCPConnector(
                limit=0, resolver=self._resolver, force_close=True, socket_factory=self._guarded_socket
            ),
            timeout=aiohttp.ClientTimeout(total=timeout),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        # aiohttp repeats a GET by itself when its connection is lost, which would be a call that nobody counted. It has no
        # public switch; a test drops a connection and counts the calls.
        self._session._retry_connection = False

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, ask: Ask) -> bytes:
        """The body of the vendor's 200. Raises FetchFailedError; never str(error) of aiohttp, which may hold the URL."""
        try:
            async with self._session.get(URL(ask.address()), headers=ask.headers, allow_redirects=False) as response:
                if response.status != 200:
                    retry_after = parse_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
                    raise FetchFailedError(f"the vendor answered {response.status}", response.status, retry_after)
                return await _read(response.content)
        except TimeoutError:
            raise FetchFailedError(f"timed out after {self._seconds:g} s") from None
        except aiohttp.ClientConnectorError as error:
            # Several addresses' errors come as one, with a text only; it names addresses, and no URL.
            raise FetchFailedError(f"could not connect: {error.os_error.strerror or error.os_error}"[:300]) from None
        except aiohttp.ClientPayloadError:
            raise FetchFailedError("the answer broke off") from None
        except aiohttp.ServerDisconnectedError:
            raise FetchFailedError("the vendor closed the connection without a complete answer") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Too many open files, say: our own trouble, and no answer of the vendor's.
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
            raise FetchFailedError(f"the request failed ({reason})") from None

    def _guarded_socket(self, addr_info: aiohttp.AddrInfoType) -> socket.socket:
        """Open the socket for an address that is about to be connected to, or refuse it.

        Here, and not on the URL, because a name may resolve to something else between a check and the connection.
        """
        family, kind, protocol, _, address = addr_info
        reason = refusal(str(address[0]), self._allowed)
        if reason is not None:
            raise OSError(errno.EACCES, reason)
        return open_socket(family, kind, protocol)


async def _read(content: aiohttp.StreamReader) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while not content.at_eof():
        chunk = await content.read(65_536)
        size += len(chunk)
        if size > BODY_LIMIT:
            raise FetchFailedError(f"the answer is larger than {BODY_LIMIT} bytes", 200)
        chunks.append(chunk)
    return b"".join(chunks)
