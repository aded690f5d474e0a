"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A merchant's settings. `rate_limit` is in requests per minute, `approvals_expire_after` in seconds of its clock.

    null means: no review by amount, no rate limit, approvals never expire.
    """

    default_scenario: Literal["FAILED", "PENDING", "SUCCESS"]
    review_threshold: Decimal | None
    rate_limit: int | None
    approvals_expire_after: int | None
