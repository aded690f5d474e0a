"""No statement reads more rows as its tables grow, whatever statistics the planner has.

Each statement of the product runs with its generic plan, as on the product's connections, for a merchant with many rows. It is
planned in several situations: while all tables are empty or have few rows, and then never again; with all rows, before the
first ANALYZE; with statistics of this merchant alone; with those of many small merchants as well; and with statistics that show
one row per merchant. The lookups with which PostgreSQL checks foreign keys are tested in the same way.
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

from sandbox.domain.bulk_credit import ITEM_STATUSES
from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.domain.ledger import MOVEMENTS
from sandbox.domain.payout_states import STATUSES
from sandbox.users.aggregator.tables import VendorCursors
from sandbox.users.bulk_credit.csv_rows import INVALID
from sandbox.webhooks.deliveries import STATUSES as DELIVERY_STATUSES
from sandbox.webhooks.endpoints.tables import WebhookEndpoints
from sandbox.worlds.merchants.settings import Settings
from tests.harness import statements
from tests.harness.plans import BATCH, MERCHANT, NOW, Database, ReadCost, ids, json_rows, row
from tests.harness.world import Stack

ROWS = 5000
"""Rows of the large merchant in each table. A statement that reads all of them far exceeds the limits."""
FEW_ROWS = 100
SMALL_MERCHANTS = 1000
MAX_ROWS = 700
MAX_PAGES = 2500
MAX_ROWS_PER_MERCHANT = 8
"""Rows that a statement on every merchant may also read for each of them."""

EXEMPT = {
    "sandbox.worlds.audit.checks.": "an audit reads all of a merchant's rows; its plans use statistics",
    "sandbox.users.aggregator.service.forget": "it deletes all rows of the previous vendor",
    "sandbox.worlds.snapshots.store.": "a snapshot, a restore or a reset reads all of a merchant's rows",
    "sandbox.worlds.bundles.columns.columns": "it reads the database's catalogue, whose size does not depend on the rows",
    "sandbox.infrastructure.db.copy_target.find": "it reads the catalogue too",
    "sandbox.users.aggregator.store.count_dead": "it counts at most 10,000 dead letters, only when there are new ones",
    "sandbox.users.aggregator.service._replay": "it deletes at most 1000 of at most 10,000 dead letters, on request",
    "sandbox.worlds.snapshots.service.count": "it counts the snapshots, of which there are few",
}
"""Constants that are not tested, and why the statement may read many rows."""
BUILT_AT_RUN_TIME = {
    "sandbox.worlds.merchants.service.delete_merchant": "it deletes a merchant, table by table",
    "sandbox.worlds.snapshots.store": "it reads all of a merchant's rows, as above",
    "sandbox.worlds.bundles.export.read_world": "an export reads all of a merchant's rows; its plans use statistics",
}
"""Functions that build SQL at run time, and why that SQL is not tested here."""
EVERY_MERCHANT = (
    "ipn.callback._FIND_BY_",  # every merchant with such a payout, at most 10,000: the callback does not name its merchant
    "ipn.callback._FIND_OF_MERCHANT_BY_REFERENCE",  # every merchant with this reference: the index is by reference
    "sandbox.users.aggregator.store.due_own",  # every merchant with transactions
    "sandbox.worlds.merchants.service._page_of_merchants",
    "sandbox.users.sales.scheduled.merchants",
    "worker.sweep._EXPIRED",
    "worker.sweep._TO_CREDIT",  # every merchant with an unfinished file
    "worker.sweep._FROZEN_WITH_DUE_DELIVERIES",
)
"""Statements that read rows of every merchant."""

A = ...
"""A default argument, chosen by its type and its place in the statement; see `tests.harness.plans`."""
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
NOT_NARROWED = (None, None, None)
SEARCH = (list(STATUSES), ["BANK", "WALLET"], "{}", None, "REF-", "REF-", "", [], MIN_ID, MIN_ID, BATCH, *NOT_NARROWED)
"""A text that many rows contain: the search stops at the end of the page."""
ARGUMENTS: Mapping[str, Sequence[object]] = {
    "sandbox.users.aggregator.service.balance": (MERCHANT, ids()[0]),
    "sandbox.users.aggregator.store.end": (MERCHANT, A, "FAILED"),
    "sandbox.users.aggregator.store.delete_old_fetches": (MERCHANT, ids(20)[0]),
    "sandbox.users.aggregator.store.recent": (MERCHANT, ids(ROWS - BATCH)[0]),
    "sandbox.worlds.clock.service.unfinished": (MERCHANT, ids()[0]),
    "sandbox.payouts.balance.service.history": (MERCHANT, list(MOVEMENTS)),
    "sandbox.payouts.balance.service.history_by_payout": (MERCHANT, list(MOVEMENTS)),
    "sandbox.users.bulk_credit.process.write": (MERCHANT, A, "COMPLETED", 0, 0, 0),
    "sandbox.users.bulk_credit.process.write_rows": (MERCHANT, A, 20, 20 * BATCH, TO_CREDIT),
    "sandbox.users.bulk_credit.service.count": (MERCHANT, A, 20, 0, 0),
    "sandbox.users.bulk_credit.service.all_items": (MERCHANT, A, list(ITEM_STATUSES), 0),
    "sandbox.users.bulk_credit.service.duplicates": (MERCHANT, A, list(ITEM_STATUSES), 0),
    "sandbox.users.vendor_feed.service.page": (MERCHANT, ids(100)[0], ids(100 + BATCH)[0], 0),
    "sandbox.unit_of_work.ledger.credits": (MERCHANT, A, NEW_TRANSFERS),
    "sandbox.worlds.overview.service.open_payouts": (MERCHANT, list(STATUSES)),
    "sandbox.payouts.history.numbered": (MERCHANT, list(STATUSES), ["BANK", "WALLET"], A, A, BATCH, BATCH, 0, BATCH),
    "sandbox.payouts.service.list": (MERCHANT, list(STATUSES), ["BANK", "WALLET"]),
    "sandbox.payouts.service.list_by_metadata": (MERCHANT, A, list(STATUSES), ["BANK", "WALLET"], A, A, A, "{}", None),
    "sandbox.payouts.search.by_reference": (MERCHANT, A, list(STATUSES), ["BANK", "WALLET"], A, A, None, "{}", *NOT_NARROWED),
    "sandbox.payouts.search.end_of_merchant": (MERCHANT, A, A, 5 * BATCH),
    "sandbox.payouts.search.end_of_user": (MERCHANT, A, A, A, 0),
    "sandbox.payouts.search.search_of_merchant": (MERCHANT, A, A, None, *SEARCH),
    "sandbox.payouts.search.search_of_user": (MERCHANT, A, A, A, *SEARCH),
    "sandbox.payouts.service.list_by_user": (MERCHANT, A, list(STATUSES), ["BANK", "WALLET"]),
    "sandbox.payouts.waiting.was_in_status": (MERCHANT, A, list(STATUSES), "payout.reinitiated"),
    "sandbox.users.sales.payments._RECORD_ATTEMPTS[ADVANCE]": (MERCHANT, TO_PAY, A, [None] * BATCH),
    "sandbox.users.sales.payments._RECORD_ATTEMPTS[FINAL]": (MERCHANT, TO_PAY, A, [None] * BATCH),
    "sandbox.users.sales.service.list": (MERCHANT, ["PENDING", "APPROVED", "DECLINED"]),
    "sandbox.users.sales.service.list_by_user": (MERCHANT, ["PENDING", "APPROVED", "DECLINED"]),
    "sandbox.users.sales.service.reconcile": (MERCHANT, A, A, ["APPROVED"] * BATCH),
    "sandbox.users.wallets.history": (MERCHANT, ids()[0], A, A, A, list(MOVEMENTS)),
    "sandbox.users.wallets.history_by_payout": (MERCHANT, ids()[0]),
    "sandbox.users.wallets.transactions": (MERCHANT, ids()[0], A, A, A, TYPES, ["WALLET_ADVANCE"]),
    "sandbox.users.search.end": (MERCHANT, A, A, 5 * BATCH),
    "sandbox.users.search.search": (MERCHANT, A, A, BATCH, "REF-", MIN_ID, MIN_ID),
    "sandbox.users.service.change": (MERCHANT, A, A, "another", None, None, None, None),
    "sandbox.users.service.has_external_id": (MERCHANT, A, ids(2)[0]),
    "sandbox.webhooks.deliveries.list": (MERCHANT, A, A, A, None, list(DELIVERY_STATUSES)),
    "sandbox.webhooks.deliveries.list_by_event": (MERCHANT, A, A, A, A, list(DELIVERY_STATUSES), None, None),
    "sandbox.webhooks.deliveries.list_by_payout": (MERCHANT, A, A, A, A, list(DELIVERY_STATUSES), None),
    "sandbox.webhooks.endpoints.service.end_deliveries": (MERCHANT, A, A, A, "SUCCEEDED"),
    "sandbox.webhooks.delivery.outbox.claim": ([MERCHANT], [NOW], A, [MERCHANT], ids(1, 1), [BATCH], BATCH, A, None),
    "sandbox.webhooks.delivery.outbox.release_followers": (MERCHANT, A, ids(1, 1) * BATCH, ids()),
    "sandbox.webhooks.delivery.paced_claims.candidates": (MERCHANT, A, A, ids(1, 1), [True], [BATCH]),
    "sandbox.webhooks.delivery.paced_claims.end_waits": (MERCHANT, ids()[0], "2030-01-01 00:00:00+00", BATCH),
    "sandbox.webhooks.delivery.paced_claims.in_flight": (MERCHANT, A, A, ids(1, 1)),
    "sandbox.webhooks.recovery.failed": (MERCHANT, A, "SUCCEEDED"),
    "sandbox.worlds.merchants.settings.set": (MERCHANT, "success"),
    "sandbox.worlds.bundles.importing.set_world": (MERCHANT, A, A, A, A, "success"),
    "worker.sweep._PURGE": (MERCHANT, ids()[0]),
    "sandbox.unit_of_work.claim._CLAIM": (True, NOW, [MERCHANT], [BATCH], [NEEDS], [BATCH]),
    "sandbox.unit_of_work.claim._CLAIM_ONE": (MERCHANT, BATCH, True, NOW, NEEDS, BATCH),
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
        [json_rows(fingerprint="", location=None, status=201)],
        None,
        None,
    ),
}
BUILDER_ARGUMENTS: Mapping[str, object] = {
    "merchant_id": MERCHANT,
    **dict.fromkeys(
        (
            *("activity_id", "endpoint_id", "fault_id", "holder", "key", "key_id", "rule_id", "snapshot_id", "test_id"),
            "user_id",
        ),
        ids()[0],
    ),
    "digest": sha256(ids()[0].encode()).digest(),
    "rate_limit": None,
    "settings": Settings(default_scenario="SUCCESS", review_threshold=None, rate_limit=None, approvals_expire_after=None),
    "counts": {"total": 0, INVALID: 0, "duplicates": 0},
    "changes": {VendorCursors.headers: None},
    "findings": "[]",
    "is_finished": True,
    "interrupted": False,
    "before": MAX_ID,
    "since": MIN_ID,
    "limit": BATCH,
    "now": datetime.fromisoformat(NOW),
    "reason": "",
    "values": {WebhookEndpoints.url: "http://127.0.0.1:9"},
}
"""Arguments of the functions that build Piccolo queries, by parameter name."""
TABLES_OF_A_FUNCTION = {
    "sandbox.unit_of_work.claim._CLAIM": 4,
    "sandbox.unit_of_work.claim._CLAIM_ONE": 4,
    "sandbox.unit_of_work.write._WRITE": 5,
}
"""The number of tables in which a function looks up a batch of rows. Its rows are measured per table, its pages in total."""
SITUATIONS = (
    "planned on empty tables",
    "planned on few rows",
    "never analyzed",
    "one large merchant",
    "one large and many small merchants",
    "statistics of one row per merchant",
)


def queries() -> dict[str, tuple[str, Sequence[object]]]:
    """Return the Piccolo queries with their arguments, by name."""
    found = {}
    for name, make in statements.query_builders().items():
        query_set = make(**{parameter: BUILDER_ARGUMENTS[parameter] for parameter in signature(make).parameters})
        (query,) = query_set.querystrings
        found[name] = query.compile_string(engine_type="postgres")
    return found


def statements_under_test() -> dict[str, tuple[str, Sequence[object]]]:
    """Return the statements that are tested, with their arguments, by name."""
    texts = statements.constants() | {name: text for name, text in statements.inline().items() if not text.endswith("{")}
    found = {name: (text, ARGUMENTS.get(name.split(":")[0], ())) for name, text in texts.items()} | queries()
    return {
        name: statement
        for name, statement in found.items()
        if not name.startswith(tuple(key for key in EXEMPT if key.endswith("."))) and name.split(":")[0] not in EXEMPT
    }


class Findings(NamedTuple):
    """What each statement reads, by the situation in which it is planned, and the indexes that no statement scans."""

    readings: dict[str, dict[str, ReadCost]]
    unused_indexes: set[str]


@pytest.fixture(scope="module")
def findings(stack: Stack) -> Iterator[Findings]:
    """Plan and run every statement in every situation."""
    database = Database(stack.database_url, f"plans_{uuid.uuid4().hex}")

    async def measure_all() -> Findings:
        await database.create()
        tested = statements_under_test() | await database.foreign_keys()
        found = {}
        when_empty = await database.prepare(tested)
        await database.fill(0xAA, 0xAA, FEW_ROWS)
        when_few = await database.prepare(tested)
        await database.fill(0xAA, 0xAA, ROWS, first_row=FEW_ROWS + 1)
        found["planned on empty tables"] = await when_empty.measure()
        found["planned on few rows"] = await when_few.measure()
        found["never analyzed"] = await (await database.prepare(tested)).measure()
        await database.analyze()
        found["one large merchant"] = await (await database.prepare(tested)).measure()
        await database.fill(1000, 1000 + SMALL_MERCHANTS - 1, 1)
        await database.analyze()
        found["one large and many small merchants"] = await (await database.prepare(tested)).measure()
        await database.fake_one_row_statistics()
        found["statistics of one row per merchant"] = await (await database.prepare(tested)).measure()
        return Findings(found, await database.unused_indexes())

    try:
        yield asyncio.run(measure_all())
    finally:
        asyncio.run(database.drop())


@pytest.fixture(scope="module")
def readings(findings: Findings) -> dict[str, dict[str, ReadCost]]:
    """What each statement reads, by the situation in which it is planned."""
    return findings.readings


@pytest.mark.parametrize("situation", SITUATIONS)
def test_no_statement_reads_too_much_whatever_statistics_the_planner_has(
    readings: dict[str, dict[str, ReadCost]], situation: str
) -> None:
    has_small_merchants = SITUATIONS.index(situation) >= SITUATIONS.index("one large and many small merchants")
    merchants = 1 + SMALL_MERCHANTS * has_small_merchants
    too_much = {}
    for name, reading in readings[situation].items():
        extra = merchants * MAX_ROWS_PER_MERCHANT if name.startswith(EVERY_MERCHANT) else 0
        max_pages = MAX_PAGES * TABLES_OF_A_FUNCTION.get(name, 1) + 2 * extra
        if reading.rows > MAX_ROWS + extra or reading.pages > max_pages:
            too_much[name] = reading
    assert not too_much, "\n".join(f"{name}: {reading}" for name, reading in too_much.items())


def test_every_statement_finds_rows(readings: dict[str, dict[str, ReadCost]]) -> None:
    """A statement whose arguments match no rows reads nothing, even with a bad plan, and would prove nothing."""
    without_rows = {name for name, reading in readings["one large merchant"].items() if reading.rows == 0}
    assert without_rows <= WITHOUT_ROWS


WITHOUT_ROWS = {
    "sandbox.users.aggregator.store.due_http",
    "sandbox.users.bulk_credit.service.retry_items",
    "sandbox.server.console.ended_sessions.forget",
    "sandbox.server.console.ended_sessions.is_ended",
    "sandbox.unit_of_work.operator._READ",
    "sandbox.users.sales.payments._OPEN[FINAL]",
    "worker.sweep._PURGE_OPERATOR_KEYS",
}
"""The test data has no vendors over HTTP, failed rows of a file, due final payments, operators' keys, or ended console
sessions."""


def test_each_index_is_unique_or_used(findings: Findings) -> None:
    """Every write maintains each index, so an index that no statement scans only costs time."""
    assert findings.unused_indexes == set()


def test_every_statement_is_tested_or_has_a_reason() -> None:
    """A new statement is tested with default arguments. SQL that is built at run time needs a reason in BUILT_AT_RUN_TIME."""
    assert statements.queries_elsewhere() == [], "a query must be returned by a function, so that this file can test it"
    built = {name for name, text in statements.inline().items() if text.endswith("{")}
    assert {name for name in built if not name.startswith(tuple(BUILT_AT_RUN_TIME))} == set()
    assert set(ARGUMENTS) <= {name.split(":")[0] for name in statements_under_test()}
    names = (*statements.constants(), *statements.inline(), *statements.query_builders())
    assert [key for key in (*EXEMPT, *BUILT_AT_RUN_TIME) if not any(name.startswith(key) for name in names)] == []


def test_no_statement_updates_or_deletes_many_rows_with_a_join() -> None:
    joins = {name for name, (text, _) in statements_under_test().items() if _is_join(text)}
    assert joins <= {"sandbox.payouts.scenarios.service.order", "sandbox.http.faults.hits.count"}, (
        "sandbox/infrastructure/db/statements.py says how to write such statements"
    )


def _is_join(text: str) -> bool:
    words = text.replace("FOR NO KEY UPDATE", "").split()
    return ("UPDATE" in words and "FROM" in words[words.index("UPDATE") :] and "DO" not in words) or "USING" in words


def test_in_referenced_tables_only_the_primary_key_is_a_full_index_by_merchant(stack: Stack) -> None:
    """If the planner expects one row per merchant, it may check foreign keys with any full index on `merchant_id`."""

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
