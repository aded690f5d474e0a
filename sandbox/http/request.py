"""A request on its way through the middleware, and the values that the checks add to it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sandbox.domain import trace
from sandbox.domain.errors import Problem
from sandbox.domain.unit import IdempotencyKey, RequestContext
from sandbox.http.fault import Fault, InjectedFault
from sandbox.http.fingerprint import digest, fingerprint
from sandbox.http.operation import Operation

Receive = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of the request's API key."""

    merchant_id: str
    key_id: str
    role: str
    rate_limit: int | None = None
    """Maximum requests per minute for the merchant; None for no limit."""
    faults: tuple[Fault, ...] = ()
    """The merchant's API faults."""

    @property
    def is_admin(self) -> bool:
        """Whether the key's role is admin."""
        return self.role == "admin"


ANONYMOUS: Final = Caller("", "", "")
"""The caller of a request without a merchant's API key."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The caller of a request that this process makes itself, for someone who signed in to the console.

    It is in the `signed_in` of the scope's state, where no client can put it, and takes the place of a key.
    """

    caller: Caller = ANONYMOUS
    is_operator: bool = False


class ApiKeyLookup(Protocol):
    """Looks up API keys."""

    async def caller(self, api_key: str) -> Caller:
        """Return the caller that owns the key. Raises INVALID_API_KEY or UNAVAILABLE."""


class PayloadTooLarge(Problem):
    """The body is larger than its operation allows."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            "PAYLOAD_TOO_LARGE",
            f"The body is limited to {limit} bytes. Send less in one request, such as fewer items in a batch.",
        )


class Request:
    """One request to one operation."""

    __slots__ = (
        "_body_limit",
        "_body_size",
        "_fingerprint",
        "_header_by_name",
        "_key",
        "_more_body",
        "_public_url",
        "_raw",
        "_receive",
        "body",
        "caller",
        "ends_in_slash",
        "fault",
        "fingerprinted_body",
        "headers",
        "is_head",
        "is_validated",
        "json",
        "method",
        "operation",
        "path",
        "path_parameters",
        "query",
        "query_string",
        "request_id",
        "signed_in",
    )  # fmt: skip

    def __init__(
        self, operation: Operation, scope: Mapping[str, Any], receive: Receive, public_url: str, body_limit: int
    ) -> None:
        """Read an ASGI scope. Its state must contain the `request_id` and the `method` that the client sent."""
        state = scope["state"]
        self.operation = operation
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.ends_in_slash: bool = scope["raw_path"].endswith(b"/")
        """Whether the client's path ends in a slash, which the router removes."""
        self.query_string: bytes = scope["query_string"]
        self.path_parameters: Mapping[str, str] = scope["path_params"]
        self.headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self.request_id: str = state["request_id"]
        self.signed_in: SignedIn | None = state.get("signed_in")
        self.is_head: bool = state["method"] == "HEAD"
        """Whether the client sent HEAD, which is served as GET without a body, and never waits (`wait_for`)."""
        self.caller = ANONYMOUS
        self.fault: InjectedFault | None = None
        """The injected fault, if any; it may also alter the response."""
        self.query: Mapping[str, str] = {}
        """The query parameters, checked against the operation's declaration."""
        self.body: Any = None
        """The decoded body."""
        self.is_validated = False
        """Whether the body passed validation, so that it has declared fields only."""
        self.json: bytes = b""
        """The body's bytes, if the Content-Type is JSON."""
        self.fingerprinted_body: bytes = b""
        """The bytes that the idempotency fingerprint covers."""
        self._receive = receive
        self._public_url = public_url
        self._body_limit = body_limit
        self._body_size = 0
        self._more_body = True
        self._raw: bytes | None = None
        self._key: str | None = None
        self._fingerprint: bytes | None = None
        # Reversed, so that the first of duplicate headers wins.
        self._header_by_name = dict(reversed(self.headers))

    @property
    def merchant_id(self) -> str:
        """The id of the caller's merchant; empty for a request without a merchant's API key."""
        return self.caller.merchant_id

    @property
    def context(self) -> RequestContext:
        """The merchant, the idempotency key and the request's origin, for problems, logs and timelines."""
        caller = self.caller
        return RequestContext(
            caller.merchant_id,
            self._idempotency_key(),
            self.request_id,
            self.path,
            self._public_url,
            caller.key_id or None,
            trace.given(self.headers) if b"traceparent" in self._header_by_name else None,
            len(self.fingerprinted_body),
        )

    @property
    def traceparent(self) -> str:
        """The trace that the request belongs to."""
        return trace.given(self.headers) or trace.derive(self.request_id)

    def _idempotency_key(self) -> IdempotencyKey | None:
        if self._key is None:
            return None
        if self._fingerprint is None:
            self.compute_fingerprint()
        assert self._fingerprint is not None
        return IdempotencyKey(self._key, self._fingerprint)

    def compute_fingerprint(self) -> None:
        """Compute the fingerprint for the request's idempotency key, if it has one. For a large body, this takes long."""
        if self._key is not None:
            of_body = fingerprint if self.operation.receive is None else digest
            self._fingerprint = of_body(self.method, self.path, self.query_string, self.fingerprinted_body)

    def set_key(self, key: str) -> None:
        """Set the request's idempotency key."""
        self._key = key

    def header(self, name: str) -> str | None:
        """Return a header by its lower-case name; the first if it was sent more than once, None if it was not sent."""
        value = self._header_by_name.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def header_list(self, *names: bytes) -> list[str]:
        """Return all values of the headers with these lower-case names."""
        return [value.decode("latin-1") for name, value in self.headers if name in names]

    @property
    def accept(self) -> str | None:
        """The Accept header, or None; multiple headers are joined into one list (RFC 9110, 5.3)."""
        given = self.header_list(b"accept") if b"accept" in self._header_by_name else None
        return None if given is None else ", ".join(given)

    async def read(self) -> bytes:
        """Return the whole body. Raises PAYLOAD_TOO_LARGE, or VALIDATION_ERROR if the client disconnected mid-body."""
        if self._raw is None:
            # Not a loop over `stream`: registering an async generator with the event loop costs more than the rest.
            chunks = []
            while self._more_body:
                chunks.append(await self._receive_chunk())
            self._raw = b"".join(chunks)
        return self._raw

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the body's chunks as they arrive. Raises the same errors as `read`."""
        if self._raw is not None:
            yield self._raw
            return
        while self._more_body:
            if chunk := await self._receive_chunk():
                yield chunk

    async def wait_for_disconnect(self) -> None:
        """Return when the client disconnects. Call it after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _receive_chunk(self) -> bytes:
        length = self._header_by_name.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._body_limit:
            raise PayloadTooLarge(self._body_limit)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            # No one will read this response. Raise a client error, so that it is not logged as our failure.
            raise Problem(
                "VALIDATION_ERROR",
                "The client disconnected before the request was complete.",
                errors=[("body", "is cut off")],
            )
        chunk: bytes = message.get("body", b"")
        self._body_size += len(chunk)
        if self._body_size > self._body_limit:
            raise PayloadTooLarge(self._body_limit)
        self._more_body = message.get("more_body", False)
        return chunk
