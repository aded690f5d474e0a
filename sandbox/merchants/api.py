"""`/sandbox/v1/merchants` for the operator, `/sandbox/v1/keys` for a merchant's admin."""

from typing import Annotated, Literal

import msgspec
from litestar import Router, delete, get, post, put
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.errors import invalid
from sandbox.fields import Name, Url
from sandbox.http.answers import empty, ok
from sandbox.http.body import amount_of, decode
from sandbox.http.entry import Gate, HttpRequest
from sandbox.http.operation import CURSOR, LIMIT, Operation
from sandbox.http.paging import page, query, window
from sandbox.merchants.service import ApiKey, Approvals, Merchant, MerchantService, NewApiKey, NewMerchant, RateLimit

LARGEST_SEED = 2**63 - 1
# JSON knows one kind of number: 60 and 60.0 are the same whole number.
PerMinute = Annotated[float, msgspec.Meta(ge=1, le=100_000, multiple_of=1)]


class CreateMerchantBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /merchants`."""

    name: Name
    opening_balance: msgspec.Raw = msgspec.Raw(b"null")
    webhook_url: Url | None = None
    seed: int | float | None = None
    rate_limit: PerMinute | None = None


class CreateKeyBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /keys`."""

    role: Literal["admin", "member"]
    name: Name = "API key"


class RateLimitBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `PUT /rate-limit`."""

    requests_per_minute: PerMinute | None


class ApprovalsBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `PUT /approvals`."""

    expire_after_seconds: Annotated[float, msgspec.Meta(ge=1, le=31_536_000, multiple_of=1)] | None


def _seed(seed: float | None) -> int | None:
    """The whole number that a seed is; JSON may write it 5.0. Raises VALIDATION_ERROR."""
    if seed is None:
        return None
    if not 0 <= seed <= LARGEST_SEED or seed != int(seed):
        raise invalid("seed", f"must be a whole number from 0 to {LARGEST_SEED}")
    return int(seed)


def merchants_router(gate: Gate, service: MerchantService) -> Router:
    """The operator's routes."""
    body_decoder = msgspec.json.Decoder(CreateMerchantBody)

    @post(
        "/", operation_id="create_merchant",
        opt={"operation": Operation("Create a merchant: a whole sandbox of its own", {201: NewMerchant},
             CreateMerchantBody, security="operator", example={"name": "CI job 42", "opening_balance": "1000000.00"})},
    )  # fmt: skip
    async def create_merchant(request: HttpRequest) -> ASGIResponse:
        gate.operator(request)
        body = decode(body_decoder, await gate.body(request))
        amount = None
        if bytes(body.opening_balance) != b"null":
            amount = amount_of(body.opening_balance, "opening_balance")
        rate_limit = None if body.rate_limit is None else int(body.rate_limit)
        created = await service.create(body.name, amount, body.webhook_url, _seed(body.seed), rate_limit=rate_limit)
        return ok(created, 201, f"/sandbox/v1/merchants/{created.merchant_id}")

    @get(
        "/", operation_id="list_merchants",
        opt={"operation": Operation("List merchants, newest first", {200: list[Merchant]}, query=(LIMIT, CURSOR),
             security="operator")},
    )  # fmt: skip
    async def list_merchants(request: HttpRequest) -> ASGIResponse:
        gate.operator(request)
        part = window(query(request, ("limit", "cursor")))
        found = await service.list_all(part.before, part.limit + 1)
        return ok(page(found, part.limit, [merchant.merchant_id for merchant in found]))

    @delete(
        "/{merchant_id:str}", operation_id="delete_merchant", status_code=200,
        opt={"operation": Operation("Delete a merchant and all that is its own", {204: None}, errors=("NOT_FOUND",),
             security="operator")},
    )  # fmt: skip
    async def delete_merchant(request: HttpRequest, merchant_id: FromPath[str]) -> ASGIResponse:
        gate.operator(request)
        await service.delete(merchant_id, gate.origin(request))
        return empty()

    return Router("/sandbox/v1/merchants", route_handlers=[create_merchant, list_merchants, delete_merchant])


def keys_router(gate: Gate, service: MerchantService) -> Router:
    """The routes of a merchant's own keys; all need an admin's key."""
    body_decoder = msgspec.json.Decoder(CreateKeyBody)

    @post(
        "/", operation_id="create_key",
        opt={"operation": Operation("Create an API key; it is shown this once", {201: NewApiKey}, CreateKeyBody,
             security="admin-key", example={"role": "member", "name": "checkout service"})},
    )  # fmt: skip
    async def create_key(request: HttpRequest) -> ASGIResponse:
        caller = await gate.admin(request)
        body = decode(body_decoder, await gate.body(request))
        created = await service.create_key(caller.merchant_id, body.role, body.name)
        return ok(created, 201, f"/sandbox/v1/keys/{created.id}")

    @get(
        "/", operation_id="list_keys",
        opt={"operation": Operation("List the keys that work, newest first", {200: list[ApiKey]}, query=(LIMIT, CURSOR),
             security="admin-key")},
    )  # fmt: skip
    async def list_keys(request: HttpRequest) -> ASGIResponse:
        caller = await gate.admin(request)
        part = window(query(request, ("limit", "cursor")))
        found = await service.list_keys(caller.merchant_id, part.before, part.limit + 1)
        return ok(page(found, part.limit, [key.id for key in found]))

    @delete(
        "/{key_id:str}", operation_id="delete_key", status_code=200,
        opt={"operation": Operation("Revoke a key", {204: None}, errors=("NOT_FOUND",), security="admin-key")},
    )  # fmt: skip
    async def delete_key(request: HttpRequest, key_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.admin(request)
        await service.revoke_key(caller.merchant_id, key_id)
        return empty()

    return Router("/sandbox/v1/keys", route_handlers=[create_key, list_keys, delete_key])


def rate_limit_router(gate: Gate, service: MerchantService) -> Router:
    """The routes of the limit that a merchant's own API has when it is asked for, to test a client's patience."""
    body_decoder = msgspec.json.Decoder(RateLimitBody)

    @get(
        "/", operation_id="get_rate_limit",
        opt={"operation": Operation("Get the limit of the merchant's API", {200: RateLimit})},
    )  # fmt: skip
    async def get_rate_limit(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.rate_limit(caller.merchant_id))

    @put(
        "/", operation_id="set_rate_limit",
        opt={"operation": Operation("Limit the merchant's API, or lift the limit", {200: RateLimit}, RateLimitBody,
             security="admin-key", example={"requests_per_minute": 60},
             description="Requests to /api/v1 beyond it, in any 60 seconds, are answered 429 with Retry-After.")},
    )  # fmt: skip
    async def set_rate_limit(request: HttpRequest) -> ASGIResponse:
        caller = await gate.admin(request)
        body = decode(body_decoder, await gate.body(request))
        limit = None if body.requests_per_minute is None else int(body.requests_per_minute)
        return ok(await service.set_rate_limit(caller.merchant_id, limit))

    return Router("/sandbox/v1/rate-limit", route_handlers=[get_rate_limit, set_rate_limit])


def approvals_router(gate: Gate, service: MerchantService) -> Router:
    """The routes of how long a payout waits for somebody to approve it."""
    body_decoder = msgspec.json.Decoder(ApprovalsBody)

    @get(
        "/", operation_id="get_approvals",
        opt={"operation": Operation("Get how long payouts wait for approval", {200: Approvals})},
    )  # fmt: skip
    async def get_approvals(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.approvals(caller.merchant_id))

    @put(
        "/", operation_id="set_approvals",
        opt={"operation": Operation("Let approvals expire, or let payouts wait as long as it takes", {200: Approvals},
             ApprovalsBody, security="admin-key", example={"expire_after_seconds": 86400},
             description="A payout that is REQUESTED or put IN_REVIEW by its scenario from now on, and that nobody has "
             "decided about so many seconds later, in the merchant's time, becomes REJECTED or FAILED, with failure_code "
             "APPROVAL_EXPIRED. null, as it is at first: never.")},
    )  # fmt: skip
    async def set_approvals(request: HttpRequest) -> ASGIResponse:
        caller = await gate.admin(request)
        body = decode(body_decoder, await gate.body(request))
        seconds = None if body.expire_after_seconds is None else int(body.expire_after_seconds)
        return ok(await service.set_approvals(caller.merchant_id, seconds))

    return Router("/sandbox/v1/approvals", route_handlers=[get_approvals, set_approvals])
