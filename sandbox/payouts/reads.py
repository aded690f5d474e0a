"""Read payouts by id."""

from collections.abc import Mapping, Sequence
from typing import Final

from sandbox.db.engine import connection
from sandbox.db.rows import by_key
from sandbox.db.shared_reads import SharedReads
from sandbox.domain.payout import COLUMNS, Payout, to_payout

# Each id is looked up by itself: with `= ANY`, the planner may read all payouts of the merchant.
_READ: Final = f"""
SELECT p.* FROM unnest($2::uuid[]) AS n (id) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM payouts WHERE {by_key("payouts", "id", "n.id")} OFFSET 0
) p
"""  # noqa: S608 -- constants


class PayoutReads(SharedReads[Payout]):
    """Reads payouts by merchant and id. Raises CONNECTION_ERRORS."""

    def __init__(self) -> None:
        super().__init__(_read)


async def _read(merchant_id: str, payout_ids: Sequence[str]) -> Mapping[str, Payout]:
    async with connection(merchant_id) as conn:
        return {record["id"]: to_payout(record) for record in await conn.fetch(_READ, merchant_id, payout_ids)}
