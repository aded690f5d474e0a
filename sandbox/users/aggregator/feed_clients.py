"""Fetch a page of a vendor's feed, over HTTP or from the sandbox's own feed in this process."""

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

from sandbox.domain.clock import milliseconds, render
from sandbox.domain.errors import Problem
from sandbox.domain.ids import MAX_ID, MIN_ID, first_id_at
from sandbox.http.retry_after import parse_retry_after
from sandbox.infrastructure.db.engine import db_errors_as_503
from sandbox.users.aggregator.next_poll import PAGE_SIZE
from sandbox.users.vendor_feed.service import FeedService, Span
from sandbox.webhooks.outbound.address_guard import Network, refusal_reason
from sandbox.webhooks.outbound.resolver import NameResolver
from sandbox.webhooks.outbound.sockets import open_socket

TIMEOUT: Final = 15.0
"""Seconds for the whole call: lookup, connection, request and response."""
BODY_LIMIT: Final = 2 * 1024 * 1024
OWN: Final = "own:/vendor/v1/transactions"
"""The address of the sandbox's own feed in the list of fetches."""

_HEADERS: Final = {
    "User-Agent": "PSP-Sandbox-Aggregator/1",
    "Accept": "application/json",
    # A compressed response could decompress to far more than the limit.
    "Accept-Encoding": "identity",
}


class FetchFailedError(Exception):
    """A call that returned no page. The message is stored and shown, so it contains no secrets."""

    def __init__(self, message: str, status: int | None = None, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request for one page of a feed. `url` is None for the sandbox's own feed; `since` is the earliest creation time."""

    merchant_id: str
    url: str | None
    headers: Mapping[str, str]
    since: datetime | None
    page: int

    def address(self) -> str:
        """Return the URL with its query, as requested and recorded. It contains no keys; those are in headers."""
        query = {"page": str(self.page), "limit": str(PAGE_SIZE)}
        if self.since is not None:
            query["startDate"] = render(self.since)
        return str(URL(self.url or OWN).with_query(query))


class VendorClient(Protocol):
    """Fetches pages."""

    in_order: bool
    """Whether rows become visible in the order of their times."""

    async def fetch(self, request: PageRequest) -> bytes:
        """Return the body of a 200 response. Raises FetchFailedError."""


class OwnVendor:
    """Reads the sandbox's own feed without HTTP, so that it does not count in the rate limit of an API key."""

    in_order = True

    def __init__(self, feed: FeedService) -> None:
        self._feed = feed

    async def fetch(self, request: PageRequest) -> bytes:
        """Return the page as the API would. Raises FetchFailedError."""
        first = MIN_ID if request.since is None else first_id_at(milliseconds(request.since))
        try:
            async with db_errors_as_503():
                page = await self._feed.page(request.merchant_id, Span(first, MAX_ID), request.page, PAGE_SIZE)
        except Problem as problem:
            raise FetchFailedError(problem.detail, problem.status) from None
        return msgspec.json.encode(page)


class HttpVendor:
    """Calls vendors over one aiohttp session. Every wait and size is bounded.

    Create it inside a running event loop, and close it.
    """

    in_order = False

    def __init__(
        self,
        allowed_networks: Sequence[Network] = (),
        timeout: float = TIMEOUT,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`allowed_networks` are the private networks that calls can reach (SANDBOX_WEBHOOK_ALLOW).

        `timeout` is in seconds and covers a whole call. `resolver` replaces the system's name servers; the client closes it.
        """
        self._allowed = tuple(allowed_networks)
        self._seconds = timeout
        self._resolver = resolver or NameResolver()
        self._session = aiohttp.ClientSession(
            # One connection per call: calls are twelve seconds apart, and vendors may close idle connections before that.
            # No limit is needed: each merchant has at most one call in progress, and the worker limits the merchants.
            connector=aiohttp.TCPConnector(
                limit=0, resolver=self._resolver, force_close=True, socket_factory=self._guarded_socket
            ),
            timeout=aiohttp.ClientTimeout(total=timeout),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        # aiohttp repeats a GET when its connection is lost, and the repeated call would not be counted. No public option turns
        # this off. A test drops a connection and counts the calls.
        self._session._retry_connection = False

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, request: PageRequest) -> bytes:
        """Return the body of the vendor's 200 response. Raises FetchFailedError."""
        # Error messages never use str(error): aiohttp puts the URL into it.
        try:
            async with self._session.get(URL(request.address()), headers=request.headers, allow_redirects=False) as response:
                if response.status != 200:
                    retry_after = parse_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
                    raise FetchFailedError(f"the vendor responded with {response.status}", response.status, retry_after)
                return await _read(response.content)
        except TimeoutError:
            raise FetchFailedError(f"timed out after {self._seconds:g} s") from None
        except aiohttp.ClientConnectorError as error:
            # If several addresses fail, aiohttp raises one error that has only a text, which names addresses but not the URL.
            raise FetchFailedError(f"could not connect: {error.os_error.strerror or error.os_error}"[:300]) from None
        except aiohttp.ClientPayloadError:
            raise FetchFailedError("the response is incomplete") from None
        except aiohttp.ServerDisconnectedError:
            raise FetchFailedError("the vendor closed the connection without a complete response") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # This can be a local error, such as too many open files, so the message does not blame the vendor.
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
            raise FetchFailedError(f"the request failed ({reason})") from None

    def _guarded_socket(self, addr_info: aiohttp.AddrInfoType) -> socket.socket:
        """Open the socket for a new connection. Raises OSError if the address is not allowed.

        Checking the URL instead would not be safe: the name can resolve to another address between the check and the
        connection (DNS rebinding).
        """
        family, kind, protocol, _, address = addr_info
        reason = refusal_reason(str(address[0]), self._allowed)
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
            raise FetchFailedError(f"the response is larger than {BODY_LIMIT} bytes", 200)
        chunks.append(chunk)
    return b"".join(chunks)
