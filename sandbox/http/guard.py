"""What every request passes first: the API key, the role, the idempotency key, and its own name in the logs."""

import asyncio
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request

from sandbox.db.engine import connection, db_errors_as_503
from sandbox.domain.body import Check, decode
from sandbox.domain.errors import MEDIA_TYPE, Problem
from sandbox.domain.fault import Fault, to_fault
from sandbox.domain.fingerprint import digest, fingerprint
from sandbox.domain.unit import Effect, IdempotencyKey, RequestContext, UnitOfWork
from sandbox.faults.injection import inject_before
from sandbox.faults.store import FAULTS_OF
from sandbox.http.accept import accepts, names
from sandbox.http.rate_limit import RateLimiter
from sandbox.infrastructure.settings import DEVELOPMENT_API_KEYS, LOOPBACK_HOSTS, Settings

_KEY_HEADERS: Final = (b"x-idempotency-key", b"idempotency-key")
_KEY: Final = re.compile(rb"[\x20-\x7e]{1,255}\Z")
_FORGET_AFTER: Final = 0.5
"""Seconds that a key is remembered: a revoked one must stop working within one second in every process."""
_REMEMBER: Final = 10_000
_CHANGE_CALLERS: Final = {Effect.CALLERS_CHANGED, Effect.WORLD_RESET, Effect.WORLD_RESTORED}

_LOOKUP: Final = f"""
SELECT k.merchant_id::text AS merchant_id, k.id::text AS id, k.role, m.rate_limit,
    ARRAY({FAULTS_OF.format(merchant="k.merchant_id", target="api")}) AS faults
FROM (SELECT merchant_id, id, role FROM api_keys WHERE key_hash = $1 AND revoked_at IS NULL OFFSET 0) k
CROSS JOIN LATERAL (SELECT rate_limit FROM merchants WHERE merchant_id = k.merchant_id OFFSET 0) m
"""  # noqa: S608 -- constants

HttpRequest = Request[Any, Any, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key the request came with."""

    merchant_id: str
    key_id: str
    role: str
    rate_limit: int | None = None
    """Requests a minute that the merchant's API takes; None for as many as come."""
    faults: tuple[Fault, ...] = ()
    """The merchant's faults of the API, if it has any."""

    @property
    def is_admin(self) -> bool:
        """Whether the key's role is admin."""
        return self.role == "admin"

    def require_admin(self) -> None:
        """Raise FORBIDDEN unless the key's role is admin."""
        if not self.is_admin:
            raise Problem("FORBIDDEN", "This needs a key with the `admin` role; this key's role is `member`.")


class KeyRing:
    """API keys by their SHA-256, remembered for half a second; only hashes are kept."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[float, Caller]] = {}
        self._asked: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._forgotten = 0

    async def caller(self, api_key: str) -> Caller:
        """A name for the key. Raises INVALID_API_KEY, or UNAVAILABLE if PostgreSQL is away."""
        # The comparison is of SHA-256 values, inside an index: its time tells nothing about a key.
        digest = hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        task = self._asked.get(digest)
        if task is None:
            # Requests that come together with a forgotten key ask once.
            task = self._asked[digest] = asyncio.create_task(self._look_up(digest))
            task.add_done_callback(lambda done: self._asked.get(digest) is done and self._asked.pop(digest))
        found = await asyncio.shield(task)
        if found is None:
            raise Problem("INVALID_API_KEY")
        return found

    async def committed(self, unit: UnitOfWork) -> None:
        """Ask anew for a merchant's keys where a unit changed what is known with them."""
        if unit.effects & _CHANGE_CALLERS:
            self.forget(unit.merchant_id)

    def forget(self, merchant_id: str) -> None:
        """Ask anew for a merchant's keys: what is known with them has changed."""
        self._known = {digest: known for digest, known in self._known.items() if known[1].merchant_id != merchant_id}
        # Whose answer is under way may have been asked for before the change: nobody else joins it, and it is not kept.
        self._asked.clear()
        self._forgotten += 1

    async def _look_up(self, digest: bytes) -> Caller | None:
        asked, forgotten = time.monotonic(), self._forgotten
        async with db_errors_as_503(), connection() as conn:
            record = await conn.fetchrow(_LOOKUP, digest)
        if record is None:
            self._known.pop(digest, None)
            return None
        found = Caller(
            record["merchant_id"],
            record["id"],
            record["role"],
            record["rate_limit"],
            tuple(to_fault(*fault) for fault in record["faults"]),
        )
        if len(self._known) >= _REMEMBER:
            self._known.clear()
        if forgotten == self._forgotten:
            # Counted from before the question was asked, so that the answer's own way does not lengthen a key's life.
            self._known[digest] = (asked + _FORGET_AFTER, found)
        return found


@dataclass(frozen=True, slots=True)
class RequestGuard:
    """The checks of a request, in their order: authenticate, key, validate, execute."""

    settings: Settings
    keys: KeyRing
    limiter: RateLimiter

    async def caller(self, request: HttpRequest, also: str = "") -> Caller:
        """Whose request it is. `also` is a media type that the client may accept in place of JSON.

        Raises MISSING_API_KEY, INVALID_API_KEY, NOT_ACCEPTABLE or RATE_LIMITED, or what a fault answers.
        """
        api_key = api_key_of(request)
        if api_key in DEVELOPMENT_API_KEYS and self.settings.host not in LOOPBACK_HOSTS:
            # The seeds revoke them, but a run without seeds finds those that one on loopback made.
            raise Problem("INVALID_API_KEY", "Use a key of your own: the development keys are accepted on loopback only.")
        caller = await self.keys.caller(api_key)
        request.scope["state"]["caller"] = caller
        _require_accepted(request, also)
        # A merchant's limit is of its own API: the sandbox's controls go on working, or it could not be lifted.
        if caller.rate_limit is not None and request.scope["path"].startswith("/api/v1/"):
            await self.limiter.check("api", caller.merchant_id, caller.merchant_id, caller.rate_limit)
        if caller.faults:
            await inject_before(request.scope, caller.merchant_id, caller.faults, request.body)
        return caller

    async def admin(self, request: HttpRequest) -> Caller:
        """As `caller`, for an admin's key only. Raises FORBIDDEN for another."""
        caller = await self.caller(request)
        caller.require_admin()
        return caller

    def operator(self, request: HttpRequest) -> None:
        """Check the operator's key, in constant time. Raises MISSING_API_KEY, INVALID_API_KEY or NOT_ACCEPTABLE."""
        given = header(request, b"x-admin-key")
        if not given:
            raise Problem("MISSING_API_KEY", "Send the operator's key in the X-ADMIN-KEY header.")
        if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.settings.admin_key.encode()):
            raise Problem("INVALID_API_KEY", "Check the X-ADMIN-KEY header: it is not the operator's key.")
        _require_accepted(request)

    def context(self, request: HttpRequest, key: IdempotencyKey | None = None) -> RequestContext:
        """Whose request it is, its key, and where it comes from: for problems, logs and timelines."""
        caller: Caller | None = request.scope["state"].get("caller")
        merchant_id, actor = ("", None) if caller is None else (caller.merchant_id, caller.key_id)
        return RequestContext(merchant_id, key, request_id(request), request.scope["path"], self.settings.public_url, actor)

    async def body(self, request: HttpRequest) -> bytes:
        """The raw body. Raises UNSUPPORTED_MEDIA_TYPE unless it is JSON without a coding, PAYLOAD_TOO_LARGE past the limit."""
        require_no_coding(request)
        kind = (header(request, b"content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            wrong = f", not {kind[:100]!r}" if kind else "; this request names no content type"
            raise Problem("UNSUPPORTED_MEDIA_TYPE", f"Send Content-Type: application/json{wrong}.")
        body = await request.body()
        request.scope["state"]["body"] = body
        return body

    async def parse(
        self,
        request: HttpRequest,
        decoder: "msgspec.json.Decoder[T]",
        *,
        key_required: bool = True,
        body_required: bool = True,
        check: Check | None = None,
    ) -> tuple[T, IdempotencyKey | None]:
        """The body as the decoder's type, and the request's key; where no body is required, none is as good as `{}`.

        Raises as `idempotency_key`, `body` and `decode` do, in this order.
        """
        _given_key(request, key_required)  # a missing key is reported before anything about the body
        body = await self.body(request) if body_required or await request.body() else b"{}"
        key = self.idempotency_key(request, body, required=key_required)
        decoded = decode(decoder, body, check)
        request.scope["state"]["as_declared"] = True
        return decoded, key

    async def optional_key(self, request: HttpRequest) -> IdempotencyKey | None:
        """The key of a request that takes no body, if it came with one. Raises INVALID_IDEMPOTENCY_KEY."""
        return self.idempotency_key(request, await request.body(), required=False)

    def idempotency_key(
        self, request: HttpRequest, body: bytes, *, required: bool = True, is_json: bool = True
    ) -> IdempotencyKey | None:
        """The request's key with the fingerprint of what came with it; a body that is not JSON counts byte for byte.

        Raises MISSING_IDEMPOTENCY_KEY or INVALID_IDEMPOTENCY_KEY.
        """
        given = _given_key(request, required)
        if given is None:
            return None
        scope = request.scope
        of_body = fingerprint if is_json else digest
        return IdempotencyKey(given, of_body(scope["method"], scope["path"], scope["query_string"], body))


def api_key_of(request: HttpRequest) -> str:
    """The API key of a request: its X-API-KEY, or its bearer token.

    Raises MISSING_API_KEY, or INVALID_API_KEY if both are there and differ.
    """
    given = header(request, b"x-api-key")
    scheme, _, token = (header(request, b"authorization") or "").strip().partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    if given and bearer and not hmac.compare_digest(given.encode(), bearer.encode()):
        raise Problem("INVALID_API_KEY", "X-API-KEY and the bearer token are two different keys. Send one of them.")
    key = given or bearer
    if not key:
        raise Problem("MISSING_API_KEY")
    return key


def require_no_coding(request: HttpRequest) -> None:
    """Raise UNSUPPORTED_MEDIA_TYPE for a body that is compressed or otherwise encoded."""
    coding = (header(request, b"content-encoding") or "identity").strip()
    if coding.lower() != "identity":
        raise Problem(
            "UNSUPPORTED_MEDIA_TYPE",
            f"Content-Encoding {coding[:50]!r} is not supported: send the body as it is, without compression.",
            headers={"Accept-Encoding": "identity"},
        )


def _require_accepted(request: HttpRequest, also: str = "") -> None:
    given = accepted(request)
    # Problems are JSON too: a wildcard does not mean them where JSON is refused.
    if not accepts(given, "application/json", *([also] if also else [])) and not names(given, MEDIA_TYPE):
        raise Problem("NOT_ACCEPTABLE")


def _given_key(request: HttpRequest, required: bool) -> str | None:
    keys = {_unquote(value.decode("latin-1")) for name, value in request.scope["headers"] if name in _KEY_HEADERS}
    if not keys and required:
        raise Problem("MISSING_IDEMPOTENCY_KEY")
    if len(keys) > 1:
        # To take one of them would execute a retry again whose sender means the other.
        raise Problem("INVALID_IDEMPOTENCY_KEY", "The request has two different keys. Send one of them.")
    return keys.pop() if keys else None


def _unquote(given: str) -> str:
    """The key that a header's value means: a structured-field string (RFC 8941, 3.3.3) means what is inside its quotes."""
    key = given.strip(" \t")
    if len(key) >= 2 and key[0] == key[-1] == '"':
        inner = re.sub(r'\\(["\\])', r"\1", key[1:-1])
        # A quote inside that is not escaped means that the value was no structured-field string at all.
        if not re.search(r'(?<!\\)"', key[1:-1]):
            key = inner
    try:
        if not _KEY.match(key.encode("latin-1")):
            raise ValueError
    except ValueError:
        raise Problem(
            "INVALID_IDEMPOTENCY_KEY",
            "The idempotency key must be 1 to 255 printable ASCII characters, such as a UUID.",
        ) from None
    return key


def header(request: HttpRequest, name: bytes) -> str | None:
    """A header by its name in lower case; the first if it came more than once.

    A few are read of each request: looking through what the server parsed costs a tenth of making a mapping of it.
    """
    return next((value.decode("latin-1") for given, value in request.scope["headers"] if given == name), None)


def accepted(request: HttpRequest) -> str | None:
    """The Accept header, None if there is none; several are one list (RFC 9110, 5.3)."""
    given = [value.decode("latin-1") for name, value in request.scope["headers"] if name == b"accept"]
    return ", ".join(given) if given else None


def is_head(request: HttpRequest) -> bool:
    """Whether the client sent HEAD, which is served as GET without its body: it has nothing to wait for."""
    return bool(request.scope["state"]["method"] == "HEAD")


def request_id(request: HttpRequest) -> str:
    """The request's id, the caller's own or a new one, as the outermost middleware chose it."""
    found: str = request.scope["state"]["request_id"]
    return found
