"""What a statement reads does not grow with the tables, whatever the planner believes of them.

Each statement of the product runs with its generic plan, as it does on the product's connections, for a merchant with many
rows: planned while all tables were empty, or held few rows, and never analyzed since; planned with all rows and never analyzed;
with statistics of this merchant alone; with those of many small merchants beside it; and in the belief that every merchant has
one row. So do the look-ups by which PostgreSQL checks foreign keys.
"""

import asyncio
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from inspect import signature
from typing import NamedTuple

import asyncpg
import pytest

from sandbox.aggregator.tables import VendorCursors
from sandbox.domain.bulk_credit import ITEM_STATUSES
from sandbox.domain.bulk_credit_csv import DUPLICATE, INVALID
from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.domain.ledger import MOVEMENTS
from sandbox.domain.payout_states import STATUSES
from sandbox.merchants.settings import Settings
from sandbox.webhooks.deliveries import STATUSES as DELIVERY_STATUSES
from sandbox.webhooks.endpoints import Endpoint
from tests.harness import statements
from tests.harness.plans import BATCH, MERCHANT, NOW, Database, ReadCost, ids, json_rows, row
from tests.harness.world import Stack

ROWS = 5000
"""Rows that the merchant has in each table. A statement that reads them all is far above the limits."""
FEW = 100
SMALL_MERCHANTS = 1000
MAX_ROWS = 700
MAX_PAGES = 2500
ROWS_A_MERCHANT = 8
"""What a statement that looks at every merchant may read for each."""

COLD = {
    "sandbox.audit.checks.": "an audit reads all of a merchant's rows; it lets the planner use what it knows",
    "sandbox.worlds.store.": "a world that is put away, put back or begun anew is read whole",
    "sandbox.aggregator.store._COUNT_DEAD": "it counts at most 10,000 dead letters, when there are new ones",
    "sandbox.aggregator.service._replay": "it deletes at most 1000 of at most 10,000 dead letters, when somebody asks for it",
    "sandbox.worlds.service._count": "it counts the snapshots, of which there are few",
    "sandbox.faults.store.FAULTS_OF": "a part of other statements",
    "ipn.callback._FIND": "the form of two statements, which are looked at",
}
"""Statements that may read much, or are none, and why."""
PUT_TOGETHER = {
    "sandbox.aggregator.service.set_source": "another vendor's rows are deleted, all of them",
    "sandbox.db.rows.update_by_key": "makes statements, which are looked at",
    "sandbox.merchants.service.delete": "a merchant is deleted, table by table",
    "sandbox.worlds.store": "as above",
}
"""Where statements are put together in functions, so that nothing but a reader can look at them."""
EVERY_MERCHANT = (
    "ipn.callback._FIND_BY_",  # each that has such a payout, 10,000 at most: any of them may be the one that is meant
    "sandbox.aggregator.poll.DUE_OWN",  # each that has transactions
    "sandbox.merchants.service._page_of_merchants",
    "sandbox.sales.service._MERCHANTS",
    "worker.sweep._EXPIRED",
    "worker.sweep._TO_CREDIT",  # each that has an unfinished file
    "worker.sweep._FROZEN_WITH_DUE_DELIVERIES",
)
"""Statements that look at each merchant."""

A = ...
"""An argument that its type and place say: see `tests.harness.plans`."""
TYPES = ["EARNED", "SPENT", "PAYOUT", "PAID_OUT"]
TO_PAY = [ids(n, 1)[0] for n in range(20, 20 * BATCH + 1, 20)]
TO_CREDIT = json.dumps({str(n): {"status": "FAILED", "error": "e"} for n in range(20, 20 * BATCH + 1, 20)})
NEW_TRANSFERS = json.dumps([row(n, transfer_id=str(uuid.UUID(int=n))) for n in range(1, BATCH + 1)])
MOVED = json.dumps(
    [
        row(n, id=str(uuid.UUID(int=n)), debit_account="LOCKED", credit_account="SETTLEMENT", debit_after=0, credit_after=0,
            reason="PAYOUT_SETTLE", description="", payout_id=None)
        for n in range(1, BATCH + 1)
    ]
)  # fmt: skip
NEEDS = json.dumps({"keys": ids(), "references": [f"ref-{n}" for n in range(1, BATCH + 1)], "payouts": ids(), "users": ids()})
ARGUMENTS: Mapping[str, Sequence[object]] = {
    "sandbox.aggregator.store._END": (MERCHANT, A, "FAILED"),
    "sandbox.aggregator.store._DELETE_OLD_FETCHES": (MERCHANT, ids(20)[0]),
    "sandbox.aggregator.store._RECENT": (MERCHANT, ids(ROWS - BATCH)[0]),
    "sandbox.clock.service._UNFINISHED": (MERCHANT, ids()[0]),
    "sandbox.balance.service._HISTORY": (MERCHANT, list(MOVEMENTS)),
    "sandbox.balance.service._HISTORY_BY_PAYOUT": (MERCHANT, list(MOVEMENTS)),
    "sandbox.bulk_credit.process._WRITE": (MERCHANT, A, "COMPLETED", 0, 0, 0),
    "sandbox.bulk_credit.process._WRITE_ROWS": (MERCHANT, A, 20, 20 * BATCH, TO_CREDIT),
    "sandbox.bulk_credit.service._ITEMS": (MERCHANT, A, list(ITEM_STATUSES), 0),
    "sandbox.feed.service._PAGE": (MERCHANT, ids(100)[0], ids(100 + BATCH)[0], 0),
    "sandbox.unit_of_work.ledger._CREDITS": (MERCHANT, A, NEW_TRANSFERS),
    "sandbox.payouts.service._LIST": (MERCHANT, list(STATUSES), ["BANK", "WALLET"]),
    "sandbox.payouts.service._LIST_BY_METADATA": (MERCHANT, A, list(STATUSES), ["BANK", "WALLET"], A, A, A, "{}", None),
    "sandbox.payouts.service._LIST_BY_REFERENCE": (MERCHANT, A, list(STATUSES), ["BANK", "WALLET"], A, A, None, "{}"),
    "sandbox.payouts.service._LIST_BY_USER": (MERCHANT, A, list(STATUSES), ["BANK", "WALLET"]),
    "sandbox.payouts.waiting._WAS_IN_STATUS": (MERCHANT, A, list(STATUSES), "payout.reinitiated"),
    "sandbox.sales.payments._RECORD_ATTEMPTS[ADVANCE]": (MERCHANT, TO_PAY, A, [None] * BATCH),
    "sandbox.sales.payments._RECORD_ATTEMPTS[FINAL]": (MERCHANT, TO_PAY, A, [None] * BATCH),
    "sandbox.sales.service._LIST": (MERCHANT, ["PENDING", "APPROVED", "DECLINED"]),
    "sandbox.sales.service._LIST_BY_USER": (MERCHANT, ["PENDING", "APPROVED", "DECLINED"]),
    "sandbox.sales.service._RECONCILE": (MERCHANT, A, A, ["APPROVED"] * BATCH),
    "sandbox.users.history._HISTORY": (MERCHANT, ids()[0], A, A, A, list(MOVEMENTS)),
    "sandbox.users.history._TRANSACTIONS": (MERCHANT, ids()[0], A, A, A, TYPES, list(MOVEMENTS)),
    "sandbox.users.service._CHANGE": (MERCHANT, A, A, "another", None, None, None, None),
    "sandbox.users.service._HAS_EXTERNAL_ID": (MERCHANT, A, ids(2)[0]),
    "sandbox.webhooks.deliveries._LIST": (MERCHANT, A, A, A, None, list(DELIVERY_STATUSES)),
    "sandbox.webhooks.deliveries._LIST_BY_EVENT": (MERCHANT, A, A, A, A, list(DELIVERY_STATUSES), None),
    "sandbox.webhooks.endpoints._END_DELIVERIES": (MERCHANT, A, A, A, "SUCCEEDED"),
    "sandbox.webhooks.outbox._ENDPOINTS": ([MERCHANT],),
    "worker.sweep._PURGE": (MERCHANT, ids()[0]),
    "sandbox.unit_of_work.claim._CLAIM": (True, NOW, [MERCHANT], [BATCH], [NEEDS], [BATCH]),
    "sandbox.unit_of_work.write._WRITE": (
        [MERCHANT],
        [NOW],
        None,
        None,
        [json_rows()],
        [MOVED],
        [json_rows()],
        [json_rows()],
        None,
        None,
        None,
        [json_rows(fingerprint="", location=None, status=201)],
    ),
}
MADE_FOR: Mapping[str, object] = {
    "merchant_id": MERCHANT,
    **dict.fromkeys(
        ("activity_id", "endpoint_id", "fault_id", "holder", "key", "key_id", "rule_id", "snapshot_id", "user_id"), ids()[0]
    ),
    "digest": sha256(ids()[0].encode()).digest(),
    "rate_limit": None,
    "settings": Settings(default_scenario="SUCCESS", review_threshold=None, rate_limit=None, approvals_expire_after=None),
    "counts": {"total": 0, INVALID: 0, DUPLICATE: 0},
    "changes": {VendorCursors.headers: None},
    "before": MAX_ID,
    "since": MIN_ID,
    "limit": BATCH,
    "now": datetime.fromisoformat(NOW),
    "reason": "",
    "after": Endpoint(
        id=ids()[0], url="http://127.0.0.1:9", event_types=["*"], signing="v1", signing_time="host", retry_profile="fast",
        description="", status="ENABLED", disabled_reason=None, created_at="", updated_at="",
    ),
}  # fmt: skip
"""What Piccolo's queries are made for, by the names of the parameters of the functions that make them."""
TABLES_OF_A_FUNCTION = {"sandbox.unit_of_work.claim._CLAIM": 4, "sandbox.unit_of_work.write._WRITE": 5}
"""Tables in which a function looks up a batch of rows. Its rows are those of one table, its pages those of all."""
WORLDS = (
    "planned on empty tables",
    "planned on few rows",
    "never analyzed",
    "one large merchant",
    "and many small ones",
    "one row each, it believes",
)


def queries() -> dict[str, tuple[str, Sequence[object]]]:
    """Piccolo's queries, with the arguments that they are made for."""
    found = {}
    for name, make in statements.query_builders().items():
        made = make(**{parameter: MADE_FOR[parameter] for parameter in signature(make).parameters})
        (query,) = made.querystrings
        found[name] = query.compile_string(engine_type="postgres")
    return found


def hot() -> dict[str, tuple[str, Sequence[object]]]:
    """The statements that are looked at, with their arguments."""
    texts = statements.constants() | {name: text for name, text in statements.inline().items() if not text.endswith("{")}
    found = {name: (text, ARGUMENTS.get(name.split(":")[0], ())) for name, text in texts.items()} | queries()
    return {
        name: statement
        for name, statement in found.items()
        if not name.startswith(tuple(key for key in COLD if key.endswith("."))) and name.split(":")[0] not in COLD
    }


class Findings(NamedTuple):
    """What each statement reads, by the world in which it is planned and run, and the indexes that none of them scans."""

    readings: dict[str, dict[str, ReadCost]]
    unused_indexes: set[str]


@pytest.fixture(scope="module")
def findings(stack: Stack) -> Iterator[Findings]:
    """The results of running every statement in every world."""
    database = Database(stack.database_url, f"plans_{uuid.uuid4().hex}")

    async def look() -> Findings:
        await database.create()
        every = hot() | await database.foreign_keys()
        found = {}
        when_empty = await database.prepare(every)
        await database.fill(0xAA, 0xAA, FEW)
        when_few = await database.prepare(every)
        await database.fill(0xAA, 0xAA, ROWS, first_row=FEW + 1)
        found["planned on empty tables"] = await when_empty.measure()
        found["planned on few rows"] = await when_few.measure()
        found["never analyzed"] = await (await database.prepare(every)).measure()
        await database.analyze()
        found["one large merchant"] = await (await database.prepare(every)).measure()
        await database.fill(1000, 1000 + SMALL_MERCHANTS - 1, 1)
        await database.analyze()
        found["and many small ones"] = await (await database.prepare(every)).measure()
        await database.fake_one_row_statistics()
        found["one row each, it believes"] = await (await database.prepare(every)).measure()
        return Findings(found, await database.unused_indexes())

    try:
        yield asyncio.run(look())
    finally:
        asyncio.run(database.drop())


@pytest.fixture(scope="module")
def readings(findings: Findings) -> dict[str, dict[str, ReadCost]]:
    """What each statement reads, by the world in which it is planned and run."""
    return findings.readings


@pytest.mark.parametrize("world", WORLDS)
def test_no_statement_reads_more_because_of_what_the_planner_believes(
    readings: dict[str, dict[str, ReadCost]], world: str
) -> None:
    merchants = 1 + SMALL_MERCHANTS * (WORLDS.index(world) >= WORLDS.index("and many small ones"))
    too_much = {}
    for name, reading in readings[world].items():
        more = merchants * ROWS_A_MERCHANT if name.startswith(EVERY_MERCHANT) else 0
        most_pages = MAX_PAGES * TABLES_OF_A_FUNCTION.get(name, 1) + 2 * more
        if reading.rows > MAX_ROWS + more or reading.pages > most_pages:
            too_much[name] = reading
    assert not too_much, "\n".join(f"{name}: {reading}" for name, reading in too_much.items())


def test_statements_find_rows(readings: dict[str, dict[str, ReadCost]]) -> None:
    """A statement that is given what is not there reads nothing, however bad its plan; so each is given what is there."""
    blind = {name for name, reading in readings["one large merchant"].items() if reading.rows == 0}
    assert blind <= FIND_NOTHING


FIND_NOTHING = {
    "sandbox.aggregator.poll.DUE_HTTP",
    "sandbox.bulk_credit.service._RETRY_ITEMS",
    "sandbox.unit_of_work.operator._READ",
    "sandbox.sales.payments._DUE[FINAL]",
    "sandbox.users.history._HISTORY",
    "sandbox.users.history._HISTORY_BY_PAYOUT",
    "worker.sweep._PURGE_OPERATOR_KEYS",
}
"""There are no such rows: vendors over HTTP, failed rows of a file, final payments, wallets' transfers, operators' keys."""


def test_each_index_is_unique_or_used(findings: Findings) -> None:
    """Every write maintains an index, so one that no statement scans only costs."""
    assert findings.unused_indexes == set()


def test_every_statement_is_looked_at() -> None:
    """A new statement is run with arguments by their types; for one that is put together in a function a reason stands here."""
    assert statements.queries_elsewhere() == [], "a function that returns the query lets it be looked at here"
    put_together = {name for name, text in statements.inline().items() if text.endswith("{")}
    assert {name for name in put_together if not name.startswith(tuple(PUT_TOGETHER))} == set()
    assert set(ARGUMENTS) <= {name.split(":")[0] for name in hot()}
    names = (*statements.constants(), *statements.inline(), *statements.query_builders())
    assert [key for key in (*COLD, *PUT_TOGETHER) if not any(name.startswith(key) for name in names)] == []


def test_no_statement_changes_many_rows_by_a_join() -> None:
    joins = {name for name, (text, _) in hot().items() if _is_join(text)}
    assert joins <= {"sandbox.scenarios.service._ORDER", "sandbox.faults.store._COUNT"}, "use update_by_key"


def _is_join(text: str) -> bool:
    words = text.split()
    return ("UPDATE" in words and "FROM" in words[words.index("UPDATE") :] and "DO" not in words) or "USING" in words


def test_a_foreign_key_finds_no_index_but_the_primary_key(stack: Stack) -> None:
    """Where the planner believes in one row for each merchant, any index without a condition will do for it."""

    async def find() -> list[str]:
        conn = await asyncpg.connect(stack.database_url)
        try:
            found = await conn.fetch(
                """
                SELECT indexrelid::regclass::text FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
                WHERE attname = 'merchant_id' AND NOT indisprimary AND indpred IS NULL
                    AND indrelid IN (SELECT confrelid FROM pg_constraint WHERE contype = 'f')
                """
            )
            return [name for (name,) in found]
        finally:
            await conn.close()

    assert asyncio.run(find()) == []
