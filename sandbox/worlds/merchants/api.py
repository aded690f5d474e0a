"""`/sandbox/v1/merchants` for the operator, `/sandbox/v1/keys` for a merchant's admin keys."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec

from sandbox.domain.clock_target import moment
from sandbox.domain.enumerations import Role
from sandbox.domain.errors import Problem, invalid, invalid_fields
from sandbox.domain.fields import AmountOrZero, Name, Time, Url, Uuid, about
from sandbox.domain.unit import CommandResult
from sandbox.http.body import amount_of
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import PAGE, delete, get, post
from sandbox.http.paging import Page, page, window
from sandbox.http.request import Request
from sandbox.worlds.merchants.service import ApiKey, Merchant, MerchantService, MerchantSpec, NewApiKey, NewMerchant

MAX_SEED = 2**63 - 1
Seed = Annotated[
    int | float | None,
    msgspec.Meta(
        description="Make ids, jitter and faults repeatable.",
        extra={"must": f"a whole number from 0 to {MAX_SEED}"},
        extra_json_schema={"type": ["integer", "null"], "minimum": 0, "maximum": MAX_SEED},
    ),
]
T = TypeVar("T")


class CreateMerchantBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /merchants`."""

    name: Annotated[Name, about("The merchant's name.")]
    opening_balance: AmountOrZero = msgspec.Raw(b"null")
    webhook_url: Url | None = None
    seed: Seed = None
    frozen_at: Annotated[Time | None, about("Freeze its clock at this time.")] = None


class CreateKeyBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /keys`."""

    role: Annotated[Role, about("The key's role: a member cannot approve, reconcile or manage keys.")]
    name: Annotated[Name, about("A name for the key.")] = "API key"


def _seed(seed: float | None) -> int | None:
    """Return the seed as an int; JSON can write it as 5.0. Raises VALIDATION_ERROR unless it is a whole number in range."""
    if seed is None:
        return None
    if not 0 <= seed <= MAX_SEED or seed != int(seed):
        raise invalid("seed", f"must be a whole number from 0 to {MAX_SEED}")
    return int(seed)


def _spec(body: CreateMerchantBody, webhook_url_error: Callable[[str], str | None]) -> MerchantSpec:
    """Convert a body to a MerchantSpec. Raises VALIDATION_ERROR with every invalid field."""
    errors: list[FieldProblem] = []
    amount = body.opening_balance
    balance = None
    if bytes(amount) != b"null":
        balance = _read(lambda: amount_of(amount, "opening_balance", zero=True), errors)
    seed, frozen_at, more = _validate_optional(msgspec.structs.asdict(body), webhook_url_error)
    errors += more
    if errors:
        raise invalid_fields(errors)
    return MerchantSpec(body.name, balance or None, body.webhook_url, seed, frozen_at)


def _validate_optional(
    fields: Mapping[str, Any], webhook_url_error: Callable[[str], str | None]
) -> tuple[int | None, datetime | None, list[FieldProblem]]:
    """Return the seed, the time at which the clock is frozen, and the errors in these and in the URL. All are optional."""
    errors: list[FieldProblem] = []
    seed = _read(lambda: _seed(fields.get("seed")), errors)
    at, url = fields.get("frozen_at"), fields.get("webhook_url")
    # The limits are those of freezing the clock of a merchant without activity: after 1970, at most ten years ahead.
    frozen_at = None
    if at is not None:
        frozen_at = _read(lambda: moment(at, "frozen_at", may_be_past=True)(datetime.now(UTC)), errors)
    url_error = None if url is None else webhook_url_error(url)
    errors += [] if url_error is None else [("webhook_url", url_error)]
    return seed, frozen_at, errors


def _read(read: Callable[[], T], errors: list[FieldProblem]) -> T | None:
    try:
        return read()
    except Problem as problem:
        errors.extend(problem.errors)
        return None


class MerchantApi:
    """The operator's operations."""

    def __init__(self, merchants: MerchantService) -> None:
        self._merchants = merchants

    def _check(self, fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        return _validate_optional(fields, self._merchants.webhook_url_error)[2]

    @post(
        "/sandbox/v1/merchants",
        "Create a merchant with its own isolated sandbox",
        {201: NewMerchant},
        CreateMerchantBody,
        access="operator",
        example={"name": "CI job 42", "opening_balance": "1000000.00"},
        check=_check,
        description="With `seed`, ids, jitter and faults repeat exactly. With `frozen_at`, the clock is frozen "
        "at that time from the start, and again after each reset.",
        psp="merchants create --seed {seed:integer}",
    )
    async def create_merchant(self, request: Request, body: CreateMerchantBody) -> CommandResult:
        return await self._merchants.create_once(request.context, _spec(body, self._merchants.webhook_url_error))

    @get(
        "/sandbox/v1/merchants",
        "List merchants, newest first",
        {200: list[Merchant]},
        query=PAGE,
        access="operator",
        psp="merchants list",
        columns="merchant_id name seed created_at",
    )
    async def list_merchants(self, request: Request) -> Page:
        part = window(request.query)
        found = await self._merchants.list_all(part.before, part.limit + 1)
        return page(found, part.limit, [merchant.merchant_id for merchant in found])

    @delete(
        "/sandbox/v1/merchants/{merchant_id}",
        "Delete a merchant and all its data",
        {204: None},
        access="operator",
        psp="merchants delete",
    )
    async def delete_merchant(self, request: Request, merchant_id: Uuid) -> CommandResult:
        return await self._merchants.delete(request.context, merchant_id)


class KeyApi:
    """The operations of a merchant's API keys."""

    def __init__(self, merchants: MerchantService) -> None:
        self._merchants = merchants

    @post(
        "/sandbox/v1/keys",
        "Create an API key, which is shown only once",
        {201: NewApiKey},
        CreateKeyBody,
        access="admin",
        example={"role": "member", "name": "checkout service"},
        psp="keys create",
    )
    async def create_key(self, request: Request, body: CreateKeyBody) -> CommandResult:
        return await self._merchants.create_key(request.context, body.role, body.name)

    @get(
        "/sandbox/v1/keys",
        "List active keys, newest first",
        {200: list[ApiKey]},
        query=PAGE,
        access="admin",
        psp="keys list",
        columns="id role name created_at",
    )
    async def list_keys(self, request: Request) -> Page:
        part = window(request.query)
        found = await self._merchants.list_keys(request.merchant_id, part.before, part.limit + 1)
        return page(found, part.limit, [key.id for key in found])

    @delete(
        "/sandbox/v1/keys/{key_id}",
        "Revoke a key",
        {204: None},
        errors=("INVALID_STATE",),
        access="admin",
        description="It stops working within a second. The last admin key cannot be revoked.",
        psp="keys revoke",
    )
    async def delete_key(self, request: Request, key_id: Uuid) -> CommandResult:
        return await self._merchants.revoke_key(request.context, key_id)
