"""Read payouts by id."""

from collections.abc import Mapping, Sequence
from typing import Final

from sandbox.domain.errors import Problem
from sandbox.domain.payout import COLUMNS, Payout, to_payout
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.shared_reads import SharedReads
from sandbox.infrastructure.db.statements import read_statements

_SQL: Final = read_statements(__name__, columns=COLUMNS)


class PayoutReads(SharedReads[Payout]):
    """Reads payouts by merchant and id. Raises CONNECTION_ERRORS."""

    def __init__(self) -> None:
        super().__init__(_read)

    async def find(self, merchant_id: str, reference: str) -> Payout | None:
        """Return the payout with this merchant reference, if there is one."""
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_SQL["find"], merchant_id, reference)
        return None if record is None else to_payout(record)

    async def require(self, merchant_id: str, payout_id: str) -> Payout:
        """Return a payout. Raises NOT_FOUND."""
        found = await self.get(merchant_id, payout_id)
        if found is None:
            raise not_found(payout_id)
        return found


def not_found(payout_id: str) -> Problem:
    """Return the problem for a payout that does not exist."""
    return Problem("NOT_FOUND", f"Payout {payout_id} not found.")


async def _read(merchant_id: str, payout_ids: Sequence[str]) -> Mapping[str, Payout]:
    async with connection(merchant_id) as conn:
        return {record["id"]: to_payout(record) for record in await conn.fetch(_SQL["read"], merchant_id, payout_ids)}
