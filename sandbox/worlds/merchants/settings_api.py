"""`/sandbox/v1/settings`: parse, call the service, render."""

from decimal import Decimal
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.enumerations import DefaultScenario
from sandbox.domain.errors import Problem
from sandbox.domain.fields import AmountOrNull, about
from sandbox.domain.unit import CommandResult
from sandbox.http.body import amount_of
from sandbox.http.operation import get, patch
from sandbox.http.request import Request
from sandbox.worlds.merchants.settings import Change, Settings, SettingsService

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


class SettingsApi:
    """The operations of a merchant's settings."""

    def __init__(self, settings: SettingsService) -> None:
        self._settings = settings

    @get("/sandbox/v1/settings", "Get the merchant's settings", {200: Settings}, psp="settings show")
    async def get_settings(self, request: Request) -> Settings:
        return await self._settings.get(request.merchant_id)

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
        change = Change(
            body.default_scenario,
            _threshold(body.review_threshold),
            _whole(body.rate_limit),
            _whole(body.approvals_expire_after),
        )
        if not request.caller.is_admin:
            _refuse_guards(change)
        return await self._settings.change(request.context, change)


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
