"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Merchant:
    """A merchant, as the operator sees it."""

    merchant_id: str
    name: str
    seed: int | None
    created_at: datetime
    ipn_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMerchant:
    """A new merchant with its secrets, which are not shown again.

    `webhook_secret` belongs to the merchant's first endpoint: the one at `webhook_url`, or else the first one it
    creates.
    """

    merchant_id: str
    api_key: str
    webhook_secret: str
    ipn_secret: str
    ipn_url: str
