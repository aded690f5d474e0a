"""A merchant's settings: default scenario, review threshold, rate limit and approval expiry."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.enumerations import DefaultScenario
from sandbox.domain.errors import Problem
from sandbox.domain.fields import AmountOrNull, about
from sandbox.domain.unit import CommandResult, Effect, UnitOfWork
from sandbox.http.body import amount_of
from sandbox.http.operation import get, patch
from sandbox.http.request import Request
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.runner import UnitOfWorkRunner

_SQL: Final = read_statements(__name__)


class Settings(msgspec.Struct, kw_only=True):
    """A merchant's settings. `rate_limit` is in requests per minute, `approvals_expire_after` in seconds of its clock.

    null means: no review by amount, no rate limit, approvals never expire.
    """

    default_scenario: DefaultScenario
    review_threshold: Decimal | None
    rate_limit: int | None
    approvals_expire_after: int | None


# JSON has one type of number: 60 and 60.0 are the same whole number.
PerMinute = Annotated[float, msgspec.Meta(ge=1, le=100_000, multiple_of=1)]
Seconds = Annotated[float, msgspec.Meta(ge=1, le=31_536_000, multiple_of=1)]

_GUARDS: Final = ("review_threshold", "approvals_expire_after")
"""Settings that decide which payouts wait for an admin, and for how long. A member who could change them could pay what only
an admin may approve."""


class ChangeSettingsBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `PATCH /settings`. Omitted fields keep their value."""

    default_scenario: Annotated[DefaultScenario | UnsetType, about("The scenario for payouts that match no other.")] = UNSET
    review_threshold: Annotated[AmountOrNull, about("Review payouts of this amount or more; none for no reviews.")] = (
        msgspec.Raw(b"")
    )
    rate_limit: Annotated[
        PerMinute | UnsetType | None, about("Requests per minute that the API accepts; none for no limit.")
    ] = UNSET
    approvals_expire_after: Annotated[
        Seconds | UnsetType | None, about("Seconds on the merchant's clock to wait for approval; none for no limit.")
    ] = UNSET


@dataclass(frozen=True, slots=True)
class Change:
    """The new values. UNSET keeps the current value."""

    default_scenario: DefaultScenario | UnsetType = UNSET
    review_threshold: Decimal | UnsetType | None = UNSET
    rate_limit: int | UnsetType | None = UNSET
    approvals_expire_after: int | UnsetType | None = UNSET


class SettingsService:
    """Reads and changes settings."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work

    @get("/sandbox/v1/settings", "Get the merchant's settings", {200: Settings}, psp="settings show")
    async def get_settings(self, merchant_id: str) -> Settings:
        """Return a merchant's settings. Raises NOT_FOUND if the merchant was deleted."""
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_SQL["get"], merchant_id)
        if record is None:
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        return _settings(record)

    @patch(
        "/sandbox/v1/settings",
        "Change settings",
        {200: Settings},
        ChangeSettingsBody,
        errors=("FORBIDDEN",),
        example={
            "default_scenario": "PENDING",
            "review_threshold": "50000.00",
            "rate_limit": 60,
            "approvals_expire_after": 86400,
        },
        description="Omitted settings keep their value. `default_scenario`: for payouts that match no other scenario. "
        "`review_threshold`: payouts of this amount or more go to IN_REVIEW (100000.00 by default; null: none). "
        "`rate_limit`: more requests to /api/v1 than this in any 60 seconds get 429 with Retry-After (null by default: no "
        "limit). `approvals_expire_after`: a payout that enters REQUESTED or IN_REVIEW from now on and is not decided "
        "within this many seconds, in the merchant's time, becomes REJECTED or FAILED with failure_code APPROVAL_EXPIRED "
        "(null by default: never). Changing `review_threshold` or `approvals_expire_after` needs a key with the `admin` role. "
        "A reset restores the defaults, except for the rate limit.",
        psp="settings set --review-threshold {review_threshold:text-or-none} --rate-limit "
        "{rate_limit:integer-or-none} --approvals-expire-after {approvals_expire_after:integer-or-none}",
    )
    async def change_settings(self, request: Request, body: ChangeSettingsBody) -> CommandResult:
        """Change settings. Responds with 200 and all settings. A new rate limit applies in every process within a second.

        Raises VALIDATION_ERROR, and FORBIDDEN if the caller is a member and changes what only an admin may change.
        """
        context = request.context
        change = Change(
            body.default_scenario,
            _threshold(body.review_threshold),
            _whole(body.rate_limit),
            _whole(body.approvals_expire_after),
        )
        if not request.caller.is_admin:
            _refuse_guards(change)

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            # Read under the merchant's lock, so that no other request's change is lost.
            settings = _settings(await conn.fetchrow(_SQL["get"], context.merchant_id))
            for name in change.__slots__:
                value = getattr(change, name)
                if value is not UNSET:
                    setattr(settings, name, value)
            after = settings.approvals_expire_after
            expire_after = None if after is None else timedelta(seconds=after)
            scenario = settings.default_scenario.lower()
            await conn.execute(_SQL["set"], context.merchant_id, scenario, settings.review_threshold, expire_after)
            await conn.execute(_SQL["set_rate_limit"], context.merchant_id, settings.rate_limit)
            unit.effects.add(Effect.REQUEST_POLICY_CHANGED)
            return CommandResult(200, msgspec.json.encode(_settings(await conn.fetchrow(_SQL["get"], context.merchant_id))))

        return await self._work.run(context, action)


def _settings(record: Any) -> Settings:
    after: timedelta | None = record["approvals_expire_after"]
    return Settings(
        default_scenario=record["default_scenario"].upper(),
        review_threshold=record["review_threshold"],
        rate_limit=record["rate_limit"],
        approvals_expire_after=None if after is None else int(after.total_seconds()),
    )


def _refuse_guards(change: Change) -> None:
    """Raise FORBIDDEN if a member's change has a setting that only an admin may change."""
    names = [f"`{name}`" for name in _GUARDS if getattr(change, name) is not UNSET]
    if names:
        raise Problem(
            "FORBIDDEN", f"Changing {' and '.join(names)} needs a key with the `admin` role; this key's role is `member`."
        )


def _whole(number: float | UnsetType | None) -> int | UnsetType | None:
    return int(number) if isinstance(number, float | int) else number


def _threshold(raw: msgspec.Raw) -> Decimal | UnsetType | None:
    text = bytes(raw)
    if not text:
        return UNSET
    return None if text == b"null" else amount_of(raw, "review_threshold")
