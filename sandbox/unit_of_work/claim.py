"""Claim each merchant for a unit of work: lock it and read the rows that its commands need.

One statement calls the database function `psp_claim` (claim.sql) for each merchant.
"""

import base64
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.domain.clock import Clock, milliseconds
from sandbox.domain.events import Subscription
from sandbox.domain.ids import IdSource
from sandbox.domain.ledger import MERCHANT_ACCOUNTS, wallet_of
from sandbox.domain.payout import PayoutRow, StoredPayout
from sandbox.domain.scenario_engine import Catalogue, Scenario
from sandbox.domain.stored_scenario import stored_rule
from sandbox.domain.unit import IDS_PER_PAYOUT, KeyRecord, UnitOfWork
from sandbox.domain.user import UserRow

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

RESERVE_NO_IDS: Final = -1
"""A `weight` that reserves no ids, so that a seeded world's later requests get the ids that they would get without it."""
# Ids are not secrets, and we generate many. The OS random source would cost a system call each.
_RANDOM: Final = random.Random()  # noqa: S311 -- as above

# PostgreSQL needs a third less time for this than for the following statement.
_CLAIM_ONE: Final = "SELECT * FROM psp_claim($1, $2, $3, $4, $5, $6)"
# The inner ORDER BY makes the function lock merchants in the order of their ids, so that transactions cannot deadlock.
_CLAIM: Final = """
SELECT c.* FROM (
    SELECT * FROM unnest($3::uuid[], $4::bigint[], $5::json[], $6::int[]) AS n (merchant_id, ids, needs, due)
    ORDER BY n.merchant_id OFFSET 0
) n CROSS JOIN LATERAL psp_claim(n.merchant_id, n.ids, $1, $2, n.needs, n.due) c
"""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """The rows that one merchant's unit of work needs. `weight` is the number of payouts that it may touch."""

    merchant_id: str
    weight: int = 1
    keys: Sequence[str] = ()
    references: Sequence[str] = ()
    psp_references: Sequence[str] = ()
    payout_ids: Sequence[str] = ()
    user_ids: Sequence[str] = ()
    due_limit: int = 0
    """Maximum number of due payouts to claim. Reduced if the merchant has many endpoints."""


async def claim(
    conn: "PoolConnectionProxy[Any]", catalogue: Catalogue, claims: Sequence[ClaimRequest], *, wait: bool = True
) -> list[UnitOfWork]:
    """Lock merchants until the transaction ends, and return a unit of work for each, with the rows it needs.

    Skips deleted merchants. Also skips merchants that are locked elsewhere, unless `wait` is true. Raises asyncpg's errors.
    """
    return [_unit(record, catalogue) for record in await _call(conn, claims, wait)]


async def claim_due(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, limit: int, extra_weight: int = 0) -> None:
    """Load up to `limit` due payouts into a unit that was claimed with RESERVE_NO_IDS, and reserve ids for their steps.

    `extra_weight` reserves ids for other work, as the weight of a `ClaimRequest` does.
    """
    (record,) = await _call(conn, [ClaimRequest(unit.merchant_id, limit + extra_weight, due_limit=limit)], wait=True)
    unit.ids = _ids(unit.now, record["counter"], record["seed"])
    _read_due(unit, record)


async def _call(conn: "PoolConnectionProxy[Any]", claims: Sequence[ClaimRequest], wait: bool) -> "list[Record]":
    found: list[Record]
    if len(claims) == 1:
        (only,) = claims
        ids = (only.weight + 1) * IDS_PER_PAYOUT
        found = await conn.fetch(_CLAIM_ONE, only.merchant_id, ids, wait, datetime.now(UTC), _needs(only), only.due_limit)
    else:
        found = await conn.fetch(
            _CLAIM,
            wait,
            datetime.now(UTC),
            [request.merchant_id for request in claims],
            [(request.weight + 1) * IDS_PER_PAYOUT for request in claims],
            [_needs(request) for request in claims],
            [request.due_limit for request in claims],
        )
    if not conn.is_in_transaction():
        # The locks are gone already. Stop before anything is decided: asyncpg did not pass on the BEGIN (joined_messages.py).
        raise RuntimeError("a merchant was claimed outside a transaction")
    return found


def _needs(request: ClaimRequest) -> str | None:
    needs = {
        "keys": request.keys, "references": request.references, "psp_references": request.psp_references,
        "payouts": request.payout_ids, "users": request.user_ids,
    }  # fmt: skip
    found = {name: values for name, values in needs.items() if values}
    return msgspec.json.encode(found).decode() if found else None


def _unit(record: "Record", catalogue: Catalogue) -> UnitOfWork:
    # Read the wall clock after the wait for the lock, so that timestamps increase in lock order.
    clock = Clock(record["clock_frozen_at"], record["clock_offset"])
    now = clock.now(datetime.now(UTC))
    unit = UnitOfWork(
        merchant_id=record["merchant_id"],
        now=now,
        ids=_ids(now, record["counter"], record["seed"]),
        default_scenario=record["default_scenario"],
        catalogue=catalogue,
        clock=clock,
        approvals_expire_after=record["approvals_expire_after"],
        review_threshold=record["review_threshold"],
        subscriptions=_subscriptions(record["endpoint_rows"]),
        custom_scenarios=_rules(record["rule_rows"]),
    )
    if record["balances"] is not None:  # a merchant that is being created has no accounts yet
        unit.balances = dict(zip(MERCHANT_ACCOUNTS, record["balances"], strict=True))
        unit.balance_version = record["balance_version"]
    if record["key_rows"] is not None:
        unit.keys = {
            key: KeyRecord(base64.b64decode(fingerprint), status, base64.b64decode(body), location)
            for key, fingerprint, status, body, location in _decode_keys(record["key_rows"])
        }
    unit.references = set(record["existing_references"] or ())
    if record["psp_reference_rows"] is not None:
        unit.psp_references = set(_decode_pairs(record["psp_reference_rows"]))
    if record["payout_rows"] is not None:
        unit.payouts = {row.payout.id: row for row in _payouts(record["payout_rows"])}
    _read_due(unit, record)
    return unit


def _read_due(unit: UnitOfWork, record: "Record") -> None:
    if record["due_rows"] is not None:
        unit.due = _payouts(record["due_rows"])
        unit.more_due = len(unit.due) == record["due_limit"]
    if record["user_rows"] is not None:
        for user, wallet in _decode_users(record["user_rows"]):
            unit.users[user.id] = user
            unit.balances[wallet_of(user.id)] = wallet


def _ids(now: datetime, counter: int, seed: int | None) -> IdSource:
    source = _RANDOM if seed is None else random.Random(f"{seed}:{counter}")  # noqa: S311 -- repeatable on purpose
    return IdSource(milliseconds(now), counter & 0xFFFFFFFF, source.getrandbits)


def _payouts(text: str) -> list[PayoutRow]:
    return [stored.row() for stored in _decode_payouts(text)]


# Cached: every unit of work reads these, and they hardly ever change.


@lru_cache(maxsize=4096)
def _subscriptions(text: str | None) -> Sequence[Subscription]:
    endpoints = [] if text is None else _decode_endpoints(text)
    return tuple(
        Subscription(id_, types, status == "ENABLED", filters, is_paced) for id_, types, status, filters, is_paced in endpoints
    )


@lru_cache(maxsize=4096)
def _rules(text: str | None) -> Sequence[Scenario]:
    rules = [] if text is None else msgspec.json.decode(text, type=list[tuple[str, str, str, str]])
    return tuple(stored_rule(*rule) for rule in rules)


_decode_endpoints: Final = msgspec.json.Decoder(list[tuple[str, tuple[str, ...], str, str | None, bool]]).decode
_decode_keys: Final = msgspec.json.Decoder(list[tuple[str, str, int, str, str | None]]).decode
_decode_pairs: Final = msgspec.json.Decoder(list[tuple[str, str]]).decode
_decode_payouts: Final = msgspec.json.Decoder(list[StoredPayout]).decode
_decode_users: Final = msgspec.json.Decoder(list[tuple[UserRow, Decimal]]).decode
