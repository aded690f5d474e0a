"""The checks before a handler, in the order of this file.

Each is called once per operation at startup. It returns a handler that checks and then proceeds, or `proceed` itself if the
operation does not need the check.
"""

import asyncio
import hmac
import re
from asyncio import sleep
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from sandbox.domain.errors import MEDIA_TYPE, Problem, invalid_fields
from sandbox.domain.idempotency_key import KEY_RULE, MAX_KEY_LENGTH
from sandbox.http.accept import accepts, names_explicitly
from sandbox.http.body import decode
from sandbox.http.operation import JSON, MULTIPART, Operation
from sandbox.http.paging import cursor_errors
from sandbox.http.query_errors import find_query_errors, joined
from sandbox.http.rate_limit import RateLimiter
from sandbox.http.request import ApiKeyLookup, Request
from sandbox.infrastructure.large_work import LARGE_BODY, READS, WRITES, compute
from sandbox.infrastructure.settings import DEVELOPMENT_API_KEYS, LOOPBACK_HOSTS, Settings
from sandbox.infrastructure.tasks import end_tasks

Handler = Callable[[Request], Awaitable[Any]]
Middleware = Callable[[Operation, Handler], Handler]

REFUSAL_SECONDS: Final = 0.1
KEY_CHECK_SECONDS: Final = 0.2
"""Interval between checks of the key of a request that is held. Keys are cached for 0.75 seconds, so what a revoked key waits
for ends within a second."""
_IDEMPOTENCY_KEY: Final = re.compile(rb"[\x20-\x7e]{1,%d}\Z" % MAX_KEY_LENGTH)


def authentication(settings: Settings, keys: ApiKeyLookup) -> Middleware:
    """Look up the caller by API key, or check the operator's key. Raises MISSING_API_KEY or INVALID_API_KEY.

    The console has checked the callers of its own requests.
    """
    rejected_keys = DEVELOPMENT_API_KEYS if settings.host not in LOOPBACK_HOSTS else ()
    operator_key = settings.admin_key.encode()

    def middleware(operation: Operation, proceed: Handler) -> Handler:
        async def by_api_key(request: Request) -> Any:
            if request.signed_in is not None and request.signed_in.caller.merchant_id:
                request.caller = request.signed_in.caller
                return await proceed(request)
            api_key = api_key_of(request)
            if api_key in rejected_keys:
                # Seeding revokes them. Without seeding, the database may still have keys from an earlier run on loopback.
                raise Problem("INVALID_API_KEY", "Use another key: the development keys are accepted on loopback only.")
            request.caller = await keys.caller(api_key)
            if operation.may_wait:
                return await _while_valid(keys, api_key, proceed(request))
            return await proceed(request)

        async def by_operator_key(request: Request) -> Any:
            if request.signed_in is not None and request.signed_in.is_operator:
                return await proceed(request)
            given = _only_key("X-ADMIN-KEY", request.header_list(b"x-admin-key"))
            if not given:
                raise Problem("MISSING_API_KEY", "Send the operator's key in the X-ADMIN-KEY header.")
            if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), operator_key):
                raise Problem("INVALID_API_KEY", "The X-ADMIN-KEY header does not match the operator's key.")
            return await proceed(request)

        if operation.access == "public":
            return proceed
        return by_operator_key if operation.access == "operator" else by_api_key

    return middleware


def content_negotiation(operation: Operation, proceed: Handler) -> Handler:
    """Raise NOT_ACCEPTABLE unless the client accepts JSON, problems or the operation's media type."""
    if operation.access == "public":
        return proceed
    media_types = {JSON, operation.media_type}

    async def negotiate(request: Request) -> Any:
        given = request.accept
        # Problems are JSON too: if the client excludes JSON, a wildcard must not match problems.
        if given is not None and not accepts(given, *media_types) and not names_explicitly(given, MEDIA_TYPE):
            raise Problem("NOT_ACCEPTABLE")
        return await proceed(request)

    return negotiate


def merchant_rate_limit(limiter: RateLimiter) -> Middleware:
    """Raise RATE_LIMITED when the merchant's limit is reached: not for the settings that lift the limit."""

    def middleware(operation: Operation, proceed: Handler) -> Handler:
        async def limit(request: Request) -> Any:
            caller = request.caller
            if caller.rate_limit is not None:
                await limiter.enforce_if_redis_is_up("api", caller.merchant_id, caller.merchant_id, caller.rate_limit)
            return await proceed(request)

        is_limited = operation.dialect or operation.path.startswith("/api/v1/")
        return limit if _requires_api_key(operation) and is_limited else proceed

    return middleware


def fault_injection(inject: Callable[[Request], Awaitable[None]]) -> Middleware:
    """Inject the merchant's API faults. `inject` raises the fault's response, or stores the fault on the request."""

    def middleware(operation: Operation, proceed: Handler) -> Handler:
        async def inject_then_proceed(request: Request) -> Any:
            if request.caller.faults:
                await inject(request)
            return await proceed(request)

        return inject_then_proceed if _requires_api_key(operation) else proceed

    return middleware


def slow_refusals(operation: Operation, proceed: Handler) -> Handler:
    """Delay RATE_LIMITED. Clients that retry immediately would otherwise use all CPU with refusals.

    The simulated limits of merchants and faults come before this, and stay fast.
    """

    async def refuse_slowly(request: Request) -> Any:
        try:
            return await proceed(request)
        except Problem as problem:
            if problem.code == "RATE_LIMITED":
                await sleep(REFUSAL_SECONDS)
            raise

    return refuse_slowly


def role(operation: Operation, proceed: Handler) -> Handler:
    """For admin operations, raise FORBIDDEN unless the key's role is admin."""

    async def require_admin(request: Request) -> Any:
        if not request.caller.is_admin:
            raise Problem("FORBIDDEN", "This needs a key with the `admin` role; this key's role is `member`.")
        return await proceed(request)

    return require_admin if operation.access == "admin" else proceed


def key_rate_limit(limiter: RateLimiter) -> Middleware:
    """Raise RATE_LIMITED when the operation's limit per key is reached. Requests that later checks reject count too."""

    def middleware(operation: Operation, proceed: Handler) -> Handler:
        per_minute = operation.key_rate_limit
        if per_minute is None:
            return proceed

        async def limit(request: Request) -> Any:
            caller = request.caller
            await limiter.enforce(operation.id, caller.key_id, caller.merchant_id, per_minute)
            return await proceed(request)

        return limit

    return middleware


def idempotency_key(operation: Operation, proceed: Handler) -> Handler:
    """Read the request's idempotency key. Raises MISSING_IDEMPOTENCY_KEY or INVALID_IDEMPOTENCY_KEY."""
    is_required = operation.idempotency == "required"

    async def read_key(request: Request) -> Any:
        keys = {_unquote(value) for value in request.header_list(b"x-idempotency-key", b"idempotency-key")}
        if not keys and is_required:
            raise Problem("MISSING_IDEMPOTENCY_KEY")
        if len(keys) > 1:
            # If we picked one and the client meant the other, a retry could run twice.
            raise Problem("INVALID_IDEMPOTENCY_KEY", "The request has two different keys. Send one of them.")
        if keys:
            request.set_key(keys.pop())
        return await proceed(request)

    return proceed if operation.idempotency == "none" else read_key


def query_parameters(operation: Operation, proceed: Handler) -> Handler:
    """Check the query against the declared parameters. Raises VALIDATION_ERROR listing every invalid parameter."""
    allowed = [parameter.name for parameter in operation.query]
    schemas = {parameter.name: parameter.schema for parameter in operation.query}

    async def check(request: Request) -> Any:
        if request.query_string:
            given = parse_qsl(request.query_string.decode("latin-1"), keep_blank_values=True)
            if operation.dialect:
                given = joined([(name, value) for name, value in given if name in schemas and value], schemas)
            errors, request.query = find_query_errors(given, allowed, schemas)
            errors += cursor_errors(request.query)
            if errors:
                raise invalid_fields(errors)
        return await proceed(request)

    return proceed if operation.access == "public" else check


def request_body(operation: Operation, proceed: Handler) -> Handler:
    """Decode the body into the declared type.

    Raises UNSUPPORTED_MEDIA_TYPE, PAYLOAD_TOO_LARGE, MALFORMED_JSON or VALIDATION_ERROR.
    """
    receive = operation.receive
    if receive is not None:

        async def form(request: Request) -> Any:
            _require_identity_encoding(request)
            if operation.body_media_type != MULTIPART:
                _require_json(request)
            request.body = await receive(request)
            request.fingerprinted_body = request.body.digest
            return await proceed(request)

        return form
    if operation.body is None:

        async def fingerprinted(request: Request) -> Any:
            request.fingerprinted_body = await request.read()
            return await proceed(request)

        return proceed if operation.idempotency == "none" else fingerprinted
    decoder = msgspec.json.Decoder(operation.body)
    requires_body = operation.requires_body

    async def json(request: Request) -> Any:
        if requires_body or await request.read():
            _require_identity_encoding(request)
            _require_json(request)
            request.json = request.fingerprinted_body = await request.read()
        else:
            request.fingerprinted_body = b"{}"
        content = request.fingerprinted_body

        def decoded() -> Any:
            request.compute_fingerprint()
            return decode(decoder, content, operation.check)

        request.body = await compute(request.merchant_id, decoded, is_large=len(content) > LARGE_BODY)
        request.is_validated = True
        return await proceed(request)

    return json


def path_parameters(operation: Operation, proceed: Handler) -> Handler:
    """Raise NOT_FOUND for a path parameter that does not match its type: nothing has such an id."""
    types = {name: kind for name, kind in operation.path_types.items() if kind is not str}

    async def check(request: Request) -> Any:
        for name, kind in types.items():
            try:
                msgspec.convert(request.path_parameters[name], kind)
            except msgspec.ValidationError:
                noun = name.removesuffix("_id")
                must = kind.__metadata__[0].extra["must"]
                raise Problem("NOT_FOUND", f"{noun.capitalize()} not found; {name} must be {must}.") from None
        return await proceed(request)

    return check if types else proceed


def turns(operation: Operation, proceed: Handler) -> Handler:
    """Wait for the merchant's turn, if the operation takes turns. Raises RATE_LIMITED if too many of its requests wait."""
    places = READS if operation.method == "GET" else WRITES

    async def wait_for_turn(request: Request) -> Any:
        async with places.place(request.merchant_id):
            return await proceed(request)

    return wait_for_turn if operation.takes_turns else proceed


PARSING: Final = (idempotency_key, query_parameters, request_body, path_parameters, turns)
"""Checks shared by all applications. In the API, authentication comes before them."""


def api_middleware(
    settings: Settings, keys: ApiKeyLookup, limiter: RateLimiter, inject: Callable[[Request], Awaitable[None]]
) -> tuple[Middleware, ...]:
    """Return all checks of the API, in order."""
    return (
        authentication(settings, keys),
        content_negotiation,
        merchant_rate_limit(limiter),
        fault_injection(inject),
        slow_refusals,
        role,
        key_rate_limit(limiter),
        *PARSING,
    )


def api_key_of(request: Request) -> str:
    """Return a request's API key: its X-API-KEY or its bearer token.

    Raises MISSING_API_KEY, or INVALID_API_KEY if several were sent and differ.
    """
    given = request.header_list(b"x-api-key")
    if request.header("authorization") is not None:
        for value in request.header_list(b"authorization"):
            scheme, _, token = value.strip().partition(" ")
            if scheme.lower() == "bearer":
                given.append(token.strip())
    key = _only_key("X-API-KEY (or a bearer token)", given)
    if not key:
        raise Problem("MISSING_API_KEY")
    return key


async def _while_valid(keys: ApiKeyLookup, api_key: str, response: Awaitable[Any]) -> Any:
    """Return the awaited response. Cancel it and raise INVALID_API_KEY if the key is revoked meanwhile."""
    loop = asyncio.get_running_loop()
    held = asyncio.timeout(None)
    checks: set[asyncio.Task[None]] = set()

    async def check() -> None:
        while True:
            try:
                await keys.caller(api_key)
            except Problem as problem:
                # Any other problem means that PostgreSQL is down, so no key can be revoked.
                if problem.code == "INVALID_API_KEY":
                    held.reschedule(loop.time())
                    return
            await asyncio.sleep(KEY_CHECK_SECONDS)

    # Most requests do not wait, so that they are over before the first check.
    first = loop.call_later(KEY_CHECK_SECONDS, lambda: checks.add(loop.create_task(check())))
    try:
        async with held:
            return await response
    except TimeoutError:
        if held.expired():
            raise Problem("INVALID_API_KEY", "This key was revoked while the request waited.") from None
        raise
    finally:
        first.cancel()
        await end_tasks(*checks)


def _only_key(header: str, given: Sequence[str]) -> str:
    """Return the key that a request was sent with, or an empty string.

    Raises INVALID_API_KEY if it has different keys: a proxy and the sandbox could each take another one of them.
    """
    keys = [key for key in given if key]
    if any(not hmac.compare_digest(keys[0].encode(), other.encode()) for other in keys[1:]):
        raise Problem("INVALID_API_KEY", f"The request has two different keys in {header}. Send one of them.")
    return keys[0] if keys else ""


def _requires_api_key(operation: Operation) -> bool:
    return operation.access in ("member", "admin")


def _require_identity_encoding(request: Request) -> None:
    coding = (request.header("content-encoding") or "identity").strip()
    if coding.lower() != "identity":
        raise Problem(
            "UNSUPPORTED_MEDIA_TYPE",
            f"Content-Encoding {coding[:50]!r} is not supported: send the body without compression.",
            headers={"Accept-Encoding": "identity"},
        )


def _require_json(request: Request) -> None:
    kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        difference = f", not {kind[:100]!r}" if kind else "; this request has no Content-Type"
        raise Problem("UNSUPPORTED_MEDIA_TYPE", f"Send Content-Type: application/json{difference}.")


def _unquote(given: str) -> str:
    """Return the key in a header value, unquoting structured-field strings (RFC 8941, 3.3.3)."""
    key = given.strip(" \t")
    if len(key) >= 2 and key[0] == key[-1] == '"':
        inner = re.sub(r'\\(["\\])', r"\1", key[1:-1])
        # An unescaped quote means that the value is not a structured-field string.
        if not re.search(r'(?<!\\)"', key[1:-1]):
            key = inner
    try:
        if not _IDEMPOTENCY_KEY.match(key.encode("latin-1")):
            raise ValueError
    except ValueError:
        raise Problem(
            "INVALID_IDEMPOTENCY_KEY",
            f"The idempotency key must be {KEY_RULE}, such as a UUID.",
        ) from None
    return key
