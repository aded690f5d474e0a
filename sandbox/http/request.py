"""A request on its way through the checks to its handler: what came with it, and what the checks found."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sandbox.domain.errors import Problem
from sandbox.domain.fault import Fault, Hit
from sandbox.domain.fingerprint import digest, fingerprint
from sandbox.domain.unit import IdempotencyKey, RequestContext
from sandbox.http.operation import Operation

Receive = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key the request came with."""

    merchant_id: str
    key_id: str
    role: str
    rate_limit: int | None = None
    """Requests a minute that the merchant's API takes; None for no limit."""
    faults: tuple[Fault, ...] = ()
    """The merchant's faults of the API."""

    @property
    def is_admin(self) -> bool:
        """Whether the key's role is admin."""
        return self.role == "admin"


NOBODY: Final = Caller("", "", "")
"""The caller of a request without a merchant's key."""


class Keys(Protocol):
    """Knows API keys."""

    async def caller(self, api_key: str) -> Caller:
        """Whose key it is. Raises INVALID_API_KEY, or UNAVAILABLE."""


class PayloadTooLarge(Problem):
    """The body has more bytes than its operation takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            "PAYLOAD_TOO_LARGE",
            f"The body may have at most {limit} bytes. Send less in one request, such as fewer items of a batch.",
        )


class Request:
    """One request of one operation."""

    __slots__ = (
        "_body_limit", "_first", "_key", "_public_url", "_raw", "_receive", "as_declared", "body", "caller", "content", "fault",
        "headers", "is_head", "json", "method", "operation", "path", "path_parameters", "query", "query_string", "request_id",
    )  # fmt: skip

    def __init__(
        self, operation: Operation, scope: Mapping[str, Any], receive: Receive, public_url: str, body_limit: int
    ) -> None:
        """Take an ASGI scope whose state has the `request_id` and the `method` that the client sent."""
        state = scope["state"]
        self.operation = operation
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query_string: bytes = scope["query_string"]
        self.path_parameters: Mapping[str, str] = scope["path_params"]
        self.headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self.request_id: str = state["request_id"]
        self.is_head: bool = state["method"] == "HEAD"
        """Whether the client sent HEAD, which is served as GET without its body: it has nothing to wait for."""
        self.caller = NOBODY
        self.fault: Hit | None = None
        """The fault that hit; it may harm the answer as well."""
        self.query: Mapping[str, str] = {}
        """The query's parameters, as the operation documents them."""
        self.body: Any = None
        """The decoded body."""
        self.as_declared = False
        """Whether the body is what the operation declares, so that its members are known."""
        self.json: bytes = b""
        """The body's bytes, if they are said to be JSON."""
        self.content: bytes = b""
        """What of the body counts for its idempotency key."""
        self._receive = receive
        self._public_url = public_url
        self._body_limit = body_limit
        self._raw: bytes | None = None
        self._key: str | None = None
        # Reversed, so that the first of several counts.
        self._first = dict(reversed(self.headers))

    @property
    def merchant_id(self) -> str:
        """The caller's merchant; empty for a request without a merchant's key."""
        return self.caller.merchant_id

    @property
    def context(self) -> RequestContext:
        """Whose request it is, its idempotency key, and where it comes from: for problems, logs and timelines."""
        caller = self.caller
        return RequestContext(
            caller.merchant_id, self._idempotency_key(), self.request_id, self.path, self._public_url, caller.key_id or None
        )

    def _idempotency_key(self) -> IdempotencyKey | None:
        if self._key is None:
            return None
        of_body = fingerprint if self.operation.receive is None else digest
        return IdempotencyKey(self._key, of_body(self.method, self.path, self.query_string, self.content))

    def set_key(self, key: str) -> None:
        """Take the idempotency key that the request came with."""
        self._key = key

    def header(self, name: str) -> str | None:
        """A header by its name in lower case; the first if it came more than once."""
        value = self._first.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def header_list(self, *names: bytes) -> list[str]:
        """All values of the headers with these names in lower case."""
        return [value.decode("latin-1") for name, value in self.headers if name in names]

    @property
    def accept(self) -> str | None:
        """The Accept header, None if there is none; several are one list (RFC 9110, 5.3)."""
        given = self.header_list(b"accept") if b"accept" in self._first else None
        return None if given is None else ", ".join(given)

    async def read(self) -> bytes:
        """The body's bytes. Raises PAYLOAD_TOO_LARGE, or VALIDATION_ERROR if the client left in the middle."""
        if self._raw is None:
            self._raw = b"".join([chunk async for chunk in self.stream()])
        return self._raw

    async def stream(self) -> AsyncIterator[bytes]:
        """The body in parts, as they arrive. Raises as `read`."""
        if self._raw is not None:
            yield self._raw
            return
        length = self._first.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._body_limit:
            raise PayloadTooLarge(self._body_limit)
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                # Nobody is there to read it; and it is no defect of ours.
                raise Problem(
                    "VALIDATION_ERROR",
                    "The client disconnected before the request was complete.",
                    errors=[("body", "is cut off")],
                )
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._body_limit:
                raise PayloadTooLarge(self._body_limit)
            if chunk:
                yield chunk
            more = message.get("more_body", False)
