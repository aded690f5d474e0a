"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorMeta:
    """The position of a page in the whole result."""

    total_items: int = field(metadata={"name": "totalItems"})
    item_count: int = field(metadata={"name": "itemCount"})
    items_per_page: int = field(metadata={"name": "itemsPerPage"})
    total_pages: int = field(metadata={"name": "totalPages"})
    current_page: int = field(metadata={"name": "currentPage"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorTransaction:
    """One row of the feed. `userId` is a string (`"074092"` keeps its zero); `type` is earned, spent, payout or
    paid_out.

    A payout that ends unpaid adds a `payout` row with the negative amount; a returned payout also adds a negative
    `paid_out` row.
    """

    id: str
    user_id: str = field(metadata={"name": "userId"})
    created_at: datetime = field(metadata={"name": "createdAt"})
    type: Literal["earned", "spent", "payout", "paid_out"]
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorPage:
    """One page of the feed, oldest first."""

    items: list[VendorTransaction]
    meta: VendorMeta
