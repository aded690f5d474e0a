"""A merchant's settings."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from typing import Literal

from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import OMITTED, Amount, Call, Omitted, given, new_key
from psp_sandbox.client.models.settings import Settings


class SettingsApi:
    """A merchant's settings."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get(self) -> Settings:
        """Get the merchant's settings."""
        return self._caller.send(Call(Settings, "GET", "/sandbox/v1/settings"))

    def change(
        self,
        *,
        default_scenario: Literal["FAILED", "PENDING", "SUCCESS"] | None = None,
        review_threshold: Amount | Omitted | None = OMITTED,
        rate_limit: int | Omitted | None = OMITTED,
        approvals_expire_after: int | Omitted | None = OMITTED,
        idempotency_key: str | None = None,
    ) -> Settings:
        """Change settings.

        Omitted settings keep their value. `default_scenario`: for payouts that match no other scenario.
        `review_threshold`: payouts of this amount or more go to IN_REVIEW (100000.00 by default; null: none).
        `rate_limit`: more requests to /api/v1 than this in any 60 seconds get 429 with Retry-After (null by default: no
        limit). `approvals_expire_after`: a payout that enters REQUESTED or IN_REVIEW from now on and is not decided
        within this many seconds, in the merchant's time, becomes REJECTED or FAILED with failure_code APPROVAL_EXPIRED
        (null by default: never). Changing `review_threshold` or `approvals_expire_after` needs a key with the `admin`
        role. A reset restores the defaults, except for the rate limit.

        Raises Forbidden.
        """
        return self._caller.send(
            Call(
                Settings,
                "PATCH",
                "/sandbox/v1/settings",
                body=given(
                    {"default_scenario": default_scenario},
                    {
                        "review_threshold": review_threshold,
                        "rate_limit": rate_limit,
                        "approvals_expire_after": approvals_expire_after,
                    },
                ),
                idempotency_key=idempotency_key or new_key(),
            )
        )
