"""Create users and their wallets."""

from collections.abc import Sequence
from typing import Final

from sandbox.domain.errors import Problem
from sandbox.domain.ledger import wallet_of
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.ledger import open_accounts
from sandbox.users.requests import NewUser

_SQL: Final = read_statements(__name__)


async def insert_users(
    conn: Connection, unit: UnitOfWork, items: Sequence[NewUser | Problem]
) -> list[tuple[str, NewUser] | Problem]:
    """Insert users and open their wallets. Return the outcome of each item in order: its id and the user, or a Problem.

    An item that is a Problem is returned unchanged. An item gets DUPLICATE_REFERENCE if another user or an earlier item has its
    external_id or vendor_user_id. The caller must hold the merchant's lock, so that no other insert can run between the check
    and this one.
    """
    candidates = [item for item in items if isinstance(item, NewUser)]
    external_ids = [item.external_id for item in candidates if item.external_id is not None]
    vendor_ids = [item.vendor_user_id for item in candidates if item.vendor_user_id is not None]
    taken = await conn.fetch(_SQL["existing"], unit.merchant_id, external_ids, vendor_ids) if external_ids or vendor_ids else []
    taken_external = {record["external_id"] for record in taken}
    taken_vendor = {record["vendor_user_id"] for record in taken}
    created: list[tuple[str, NewUser]] = []
    results: list[tuple[str, NewUser] | Problem] = []
    for item in items:
        if isinstance(item, Problem):
            results.append(item)
            continue
        duplicate = _duplicate(item, taken_external, taken_vendor)
        if duplicate is not None:
            results.append(duplicate)
            continue
        user_id = unit.ids.next()
        taken_external.add(item.external_id)
        taken_vendor.add(item.vendor_user_id or user_id)
        created.append((user_id, item))
        results.append((user_id, item))
    if created:
        await conn.execute(
            _SQL["insert"],
            unit.merchant_id,
            unit.now,
            [user_id for user_id, _ in created],
            [new.name for _, new in created],
            [new.external_id for _, new in created],
            [new.vendor_user_id or user_id for user_id, new in created],
            [new.dest_type for _, new in created],
            [new.bank_code for _, new in created],
            [new.wallet_code for _, new in created],
            [new.account_number for _, new in created],
        )
        await open_accounts(conn, unit.merchant_id, unit.now, [wallet_of(user_id) for user_id, _ in created])
    return results


def _duplicate(new: NewUser, external_ids: set[str | None], vendor_ids: set[str]) -> Problem | None:
    for field, value, is_taken in (
        ("external_id", new.external_id, new.external_id in external_ids),
        ("vendor_user_id", new.vendor_user_id, new.vendor_user_id in vendor_ids),
    ):
        if value is not None and is_taken:
            return Problem("DUPLICATE_REFERENCE", f"Another user already has the {field} {value!r}.")
    return None
