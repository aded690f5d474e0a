"""`/sandbox/v1/merchants` for the operator, `/sandbox/v1/keys` for a merchant's admin."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.domain.body import amount_of
from sandbox.domain.body_errors import Fault
from sandbox.domain.choices import Role
from sandbox.domain.clock_target import moment
from sandbox.domain.errors import Problem, all_invalid, invalid
from sandbox.domain.fields import AmountOrZero, Name, Time, Url
from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import CURSOR, LIMIT, Operation
from sandbox.http.paging import page, query, window
from sandbox.merchants.service import ApiKey, Merchant, MerchantService, MerchantSpec, NewApiKey, NewMerchant

LARGEST_SEED = 2**63 - 1
Seed = Annotated[int, msgspec.Meta(extra={"must": f"a whole number from 0 to {LARGEST_SEED}"})]
T = TypeVar("T")


class CreateMerchantBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /merchants`."""

    name: Name
    opening_balance: AmountOrZero = msgspec.Raw(b"null")
    webhook_url: Url | None = None
    seed: Seed | float | None = None
    frozen_at: Time | None = None


class CreateKeyBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /keys`."""

    role: Role
    name: Name = "API key"


def _seed(seed: float | None) -> int | None:
    """The whole number that a seed is; JSON may write it 5.0. Raises VALIDATION_ERROR."""
    if seed is None:
        return None
    if not 0 <= seed <= LARGEST_SEED or seed != int(seed):
        raise invalid("seed", f"must be a whole number from 0 to {LARGEST_SEED}")
    return int(seed)


def _spec(body: CreateMerchantBody, webhook_fault: Callable[[str], str | None]) -> MerchantSpec:
    """The merchant that a body asks for. Raises VALIDATION_ERROR, naming every member at fault."""
    faults: list[Fault] = []
    amount = body.opening_balance
    balance = None
    if bytes(amount) != b"null":
        balance = _read(lambda: amount_of(amount, "opening_balance", zero=True), faults)
    seed, frozen_at, more = _rest(msgspec.structs.asdict(body), webhook_fault)
    faults += more
    if faults:
        raise all_invalid(faults)
    return MerchantSpec(body.name, balance or None, body.webhook_url, seed, frozen_at)


def _rest(
    members: Mapping[str, Any], webhook_fault: Callable[[str], str | None]
) -> tuple[int | None, datetime | None, list[Fault]]:
    """The seed and the time at which a merchant begins, and what is wrong with them and the URL, as far as they are there."""
    faults: list[Fault] = []
    seed = _read(lambda: _seed(members.get("seed")), faults)
    at, url = members.get("frozen_at"), members.get("webhook_url")
    # As a clock that is frozen before anything has happened: at any time since 1970, ten years ahead at most.
    frozen_at = None
    if at is not None:
        frozen_at = _read(lambda: moment(at, "frozen_at", may_be_past=True)(datetime.now(UTC)), faults)
    wrong = None if url is None else webhook_fault(url)
    faults += [] if wrong is None else [("webhook_url", wrong)]
    return seed, frozen_at, faults


def _read(member: Callable[[], T], faults: list[Fault]) -> T | None:
    try:
        return member()
    except Problem as problem:
        faults.extend(problem.errors)
        return None


def merchants_router(gate: RequestGuard, service: MerchantService) -> Router:
    """The operator's routes."""
    body_decoder = msgspec.json.Decoder(CreateMerchantBody)

    @post(
        "/", operation_id="create_merchant",
        opt={"operation": Operation("Create a merchant, which is a whole sandbox of its own", {201: NewMerchant},
             CreateMerchantBody, security="operator", idempotency="optional",
             example={"name": "CI job 42", "opening_balance": "1000000.00"},
             description="With `seed`, ids, jitter and faults repeat exactly. With `frozen_at`, the clock is frozen "
             "at that time from the start, and again after each reset.")},
    )  # fmt: skip
    async def create_merchant(request: HttpRequest) -> ASGIResponse:
        gate.operator(request)
        body, key = await gate.parse(
            request, body_decoder, key_required=False, check=lambda members: _rest(members, service.webhook_fault)[2]
        )
        return answered(await service.create_once(gate.context(request, key), _spec(body, service.webhook_fault)))

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
        opt={"operation": Operation("Delete a merchant and all its data", {204: None}, errors=("NOT_FOUND",),
             security="operator", idempotency="optional")},
    )  # fmt: skip
    async def delete_merchant(request: HttpRequest, merchant_id: FromPath[str]) -> ASGIResponse:
        gate.operator(request)
        key = await gate.optional_key(request)
        return answered(await service.delete(gate.context(request, key), merchant_id))

    return Router("/sandbox/v1/merchants", route_handlers=[create_merchant, list_merchants, delete_merchant])


def keys_router(gate: RequestGuard, service: MerchantService) -> Router:
    """The routes of a merchant's own keys; all need an admin's key."""
    body_decoder = msgspec.json.Decoder(CreateKeyBody)

    @post(
        "/", operation_id="create_key",
        opt={"operation": Operation("Create an API key, which is shown only once", {201: NewApiKey}, CreateKeyBody,
             security="admin-key", idempotency="optional", example={"role": "member", "name": "checkout service"})},
    )  # fmt: skip
    async def create_key(request: HttpRequest) -> ASGIResponse:
        await gate.admin(request)
        body, key = await gate.parse(request, body_decoder, key_required=False)
        return answered(await service.create_key(gate.context(request, key), body.role, body.name))

    @get(
        "/", operation_id="list_keys",
        opt={"operation": Operation("List active keys, newest first", {200: list[ApiKey]}, query=(LIMIT, CURSOR),
             security="admin-key")},
    )  # fmt: skip
    async def list_keys(request: HttpRequest) -> ASGIResponse:
        caller = await gate.admin(request)
        part = window(query(request, ("limit", "cursor")))
        found = await service.list_keys(caller.merchant_id, part.before, part.limit + 1)
        return ok(page(found, part.limit, [key.id for key in found]))

    @delete(
        "/{key_id:str}", operation_id="delete_key", status_code=200,
        opt={"operation": Operation("Revoke a key", {204: None}, errors=("NOT_FOUND", "INVALID_STATE"), security="admin-key",
             idempotency="optional", description="It stops working within a second. The last admin key cannot be revoked.")},
    )  # fmt: skip
    async def delete_key(request: HttpRequest, key_id: FromPath[str]) -> ASGIResponse:
        await gate.admin(request)
        key = await gate.optional_key(request)
        return answered(await service.revoke_key(gate.context(request, key), key_id))

    return Router("/sandbox/v1/keys", route_handlers=[create_key, list_keys, delete_key])
