"""Claim merchants for a unit of work each: lock them, then read all that their commands need to see."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sandbox.db.statements import read_statements
from sandbox.domain.clock import Clock, milliseconds
from sandbox.domain.events import Subscription
from sandbox.domain.ids import IdSource
from sandbox.domain.ledger import MERCHANT_ACCOUNTS
from sandbox.domain.payout import to_row
from sandbox.domain.scenario_engine import Catalogue
from sandbox.domain.stored_scenario import stored_rule
from sandbox.domain.unit import IDS_PER_COMMAND, KeyRecord, UnitOfWork
from sandbox.unit_of_work.users import read_users

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

NO_IDS: Final = -1
"""The weight of a unit that makes no ids: in a repeatable world, those of later requests stay what they were."""
_MIN_DUE: Final = 16
# Ids are not secrets, and many are made: asking the system's own source costs a system call for each.
_RANDOM: Final = random.Random()  # noqa: S311 -- as above

_SQL: Final = read_statements(__name__)
_LOCK: Final = _SQL["lock"]
_READ: Final = _SQL["read"]
_PAYOUTS_BY_ID: Final = _SQL["payouts_by_id"]
_PAYOUTS_DUE: Final = _SQL["payouts_due"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What one merchant's unit of work needs to see. `weight` is the number of payouts that it may touch."""

    merchant_id: str
    weight: int = 1
    keys: Sequence[str] = ()
    references: Sequence[str] = ()
    payout_ids: Sequence[str] = ()
    user_ids: Sequence[str] = ()
    due: int = 0
    """Payouts to claim whose step is due, at most; fewer where each change has deliveries to many endpoints."""


async def claim(
    conn: "PoolConnectionProxy[Any]", catalogue: Catalogue, claims: Sequence[Claim], real_now: datetime | None = None
) -> list[UnitOfWork]:
    """Lock merchants until the transaction ends, and read what their units of work need to see.

    Locks are taken in the order of merchant ids, so that no two transactions wait for each other in a circle. A merchant
    that was deleted has no unit. `real_now` is the host's time, for tests. Raises asyncpg's errors.
    """
    units = []
    for wanted in sorted(claims, key=lambda one: one.merchant_id):
        unit = await _lock(conn, catalogue, wanted, real_now)
        if unit is not None:
            await _read(conn, unit, wanted)
            if wanted.due:
                await read_due(conn, unit, wanted.due)
            units.append(unit)
    return units


async def reserve_ids(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, weight: int) -> None:
    """Give ids, as of its now, to a unit that was claimed with NO_IDS: for as many payouts as `weight` says."""
    record = await conn.fetchrow(_LOCK, unit.merchant_id, (weight + 1) * IDS_PER_COMMAND)
    assert record is not None, "the merchant is locked"
    unit.ids = _ids(unit.now, record["counter"], record["seed"])


async def read_due(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, limit: int) -> None:
    """Read the payouts whose step is due into the unit, the earliest first, and their users."""
    # Each change is a delivery for every endpoint. With many endpoints fewer payouts go into one transaction, so that the
    # merchant's lock is never held for long.
    limit = max(_MIN_DUE, limit // max(1, len(unit.subscriptions)))
    unit.due = [to_row(record) for record in await conn.fetch(_PAYOUTS_DUE, unit.merchant_id, unit.now, limit)]
    unit.more_due = len(unit.due) == limit
    users = [row.payout.user_id for row in unit.due if row.payout.user_id is not None]
    if users:
        await read_users(conn, unit, users)


async def _lock(
    conn: "PoolConnectionProxy[Any]", catalogue: Catalogue, wanted: Claim, real_now: datetime | None
) -> UnitOfWork | None:
    record = await conn.fetchrow(_LOCK, wanted.merchant_id, (wanted.weight + 1) * IDS_PER_COMMAND)
    if record is None:
        return None
    # The host's time is read after the wait for the lock: units of one merchant follow each other in time as well.
    clock = Clock(record["clock_frozen_at"], record["clock_offset"])
    now = clock.now(real_now or datetime.now(UTC))
    return UnitOfWork(
        merchant_id=wanted.merchant_id,
        now=now,
        ids=_ids(now, record["counter"], record["seed"]),
        default_scenario=record["default_scenario"],
        catalogue=catalogue,
        clock=clock,
        approvals_expire_after=record["approvals_expire_after"],
        review_threshold=record["review_threshold"],
    )


def _ids(now: datetime, counter: int, seed: int | None) -> IdSource:
    source = _RANDOM if seed is None else random.Random(f"{seed}:{counter}")  # noqa: S311 -- repeatable on purpose
    return IdSource(milliseconds(now), counter & 0xFFFFFFFF, source.getrandbits)


async def _read(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, wanted: Claim) -> None:
    record = await conn.fetchrow(_READ, unit.merchant_id, list(MERCHANT_ACCOUNTS), wanted.keys, wanted.references, unit.now)
    assert record is not None
    if record["balances"] is not None:  # a merchant that is being created has no accounts yet
        unit.balances = dict(zip(MERCHANT_ACCOUNTS, record["balances"], strict=True))
        unit.balance_version = record["version"]
    unit.subscriptions = [Subscription(id_, tuple(types), status == "ENABLED") for id_, types, status in record["endpoints"]]
    unit.keys = {
        key: KeyRecord(fingerprint, status, body, location) for key, fingerprint, status, body, location in record["keys"]
    }
    unit.references = set(record["taken"])
    unit.rules = [stored_rule(*rule) for rule in record["rules"]]
    if wanted.payout_ids:
        for found in await conn.fetch(_PAYOUTS_BY_ID, unit.merchant_id, wanted.payout_ids):
            unit.payouts[found["id"]] = to_row(found)
    users = [*wanted.user_ids, *(row.payout.user_id for row in unit.payouts.values() if row.payout.user_id is not None)]
    if users:
        await read_users(conn, unit, users)
