"""`psp distribute` on a Citus cluster: it keeps every row, refuses what is unsafe, and leaves nothing half done."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sandbox.cli.doctor import run_checks
from sandbox.infrastructure.db.distributed import distribute as checks
from sandbox.infrastructure.db.distributed import distributed_tables
from sandbox.infrastructure.db.distributed.cluster import DISTRIBUTE_LOCK
from sandbox.infrastructure.db.distributed.distribute import distribute, plan_distribution
from sandbox.infrastructure.db.distributed.distributed_tables import Content, DistributionError, read_tables
from sandbox.infrastructure.db.engine import APPLICATION_ROLE
from sandbox.infrastructure.db.migrate import migrate
from sandbox.worlds.audit.service import audit
from tests.harness.citus import COORDINATOR, WORKERS, CitusCluster
from tests.harness.command import invoke
from tests.harness.work import pooled
from tests.harness.world import Stack, World

pytestmark = pytest.mark.slow

_numbers = itertools.count(1)
_DISTRIBUTED = "SELECT logicalrelid::text FROM pg_dist_partition"


@pytest.fixture
def urls(citus: CitusCluster) -> Mapping[str, str]:
    """Return the URLs, by node, of a migrated database that is not distributed."""
    name = f"distribute{next(_numbers)}"
    urls = citus.create_database(name)
    asyncio.run(migrate(urls[COORDINATOR]))
    return urls


@asynccontextmanager
async def connected(url: str, **options: Any) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """Yield a connection as the owner of the database."""
    conn = await asyncpg.connect(url, **options)
    try:
        yield conn
    finally:
        await conn.close()


async def copy_merchants(source: str, target: str, merchant_ids: list[str]) -> None:
    """Copy all rows of these merchants from one database to another."""
    async with connected(source) as reader, connected(target) as writer, reader.transaction(isolation="repeatable_read"):
        for table in await read_tables(reader, APPLICATION_ROLE):
            if table.by_merchant:
                rows = bytearray()
                query = f"SELECT * FROM {table.name} WHERE merchant_id = ANY($1::uuid[])"
                await reader.copy_from_query(query, merchant_ids, output=_appending_to(rows))
                await writer.copy_to_table(table.name, source=_chunks(bytes(rows)))


def _appending_to(rows: bytearray) -> Any:
    async def append(data: bytes) -> None:
        rows.extend(data)

    return append


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def all_rows(url: str) -> dict[str, list[str]]:
    """Return the text of all rows of each table that is granted to the application."""
    found = {}
    async with connected(url) as conn:
        for table in await read_tables(conn, APPLICATION_ROLE):
            rows = bytearray()
            await conn.copy_from_query(f"SELECT * FROM {table.name}", output=_appending_to(rows))
            found[table.name] = sorted(rows.decode().splitlines())
    return found


async def audits_are_clean(url: str, merchant_ids: list[str]) -> bool:
    async with pooled(url, 2):
        return all([(await audit(merchant_id)).ok for merchant_id in merchant_ids])


def test_every_row_is_kept(urls: Mapping[str, str], stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if DATABASE_URL names a worker node. Done a second time, there is nothing to do."""
    ids = []
    for _ in range(5):
        with World.create(stack, opening_balance="1000.00") as world:
            ids.append(world.merchant_id)
            for suffix in ("0001", "0003"):
                world.create_payout(suffix, amount="10.00")
            assert world.post("/sandbox/v1/snapshots", {"name": "before"}).status_code == 201
            assert world.post("/sandbox/v1/clock/freeze").status_code == 200
            assert world.post("/sandbox/v1/clock/advance", {"seconds": 3600}).json()["complete"]
    asyncio.run(copy_merchants(stack.database_url, urls[COORDINATOR], ids))
    before = asyncio.run(all_rows(urls[COORDINATOR]))
    assert all(before[name] for name in ("payouts", "events", "transfers", "snapshot_rows", "idempotency_keys", "migration"))
    assert asyncio.run(audits_are_clean(urls[COORDINATOR], ids))

    monkeypatch.setenv("DATABASE_URL", urls[WORKERS[0]])
    done = invoke("distribute", "--json", "--shards", "4")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["url_names_worker"], report["shards"], len(report["nodes"])) == (True, 4, 2)
    assert {table["name"]: table["rows"] for table in report["tables"]} == {name: len(rows) for name, rows in before.items()}
    assert 0 < report["paused_seconds"] <= report["seconds"]

    assert asyncio.run(all_rows(urls[COORDINATOR])) == before
    for url in urls.values():
        assert asyncio.run(audits_are_clean(url, ids))

    async def placed() -> tuple[int, int]:
        async with connected(urls[COORDINATOR]) as conn:
            shards = await conn.fetchval("SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = 'payouts'::regclass")
            left = await conn.fetchval("SELECT pg_relation_size('payouts') + pg_relation_size('events')")
            return shards, left

    assert asyncio.run(placed()) == (4, 0)
    again = invoke("distribute", "--shards", "5")
    assert "; 4 shards on " in again.stdout
    assert (again.exit_code, again.stdout.splitlines()[1]) == (0, "The database is distributed already; nothing to do.")


async def test_what_is_unsafe_is_refused(urls: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run shows the plan even while a sandbox runs. Neither changes anything."""
    url = urls[COORDINATOR]
    monkeypatch.setattr(checks, "_LOCK_SECONDS", 0.1)
    monkeypatch.setattr(distributed_tables, "_LOCK_SECONDS", 0.1)

    async def refusal() -> str:
        with pytest.raises(DistributionError) as refused:
            await distribute(url, 4, APPLICATION_ROLE, lambda _: None, lambda *_: None)
        return str(refused.value)

    async with connected(url) as conn:
        for create, drop, named in (
            ("CREATE TABLE notes (id int)", "DROP TABLE notes", "notes"),
            ("CREATE VIEW v AS SELECT id FROM payouts", "DROP VIEW v", "the view v"),
            ("CREATE RULE r AS ON INSERT TO users DO ALSO NOTIFY users", "DROP RULE r ON users", "the rule r on users"),
            (
                "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                "DROP TRIGGER t ON users",
                "the trigger t on users",
            ),
            (
                "CREATE SCHEMA mine; CREATE TABLE mine.notes (merchant_id uuid CONSTRAINT f REFERENCES merchants)",
                "DROP SCHEMA mine CASCADE",
                "the foreign key f of mine.notes",
            ),
            (
                "INSERT INTO migration (name, app_name) VALUES ('2999-01-01', 'sandbox')",
                "DELETE FROM migration WHERE name = '2999-01-01'",
                "newer release",
            ),
            (f"SELECT pg_advisory_lock({DISTRIBUTE_LOCK})", "SELECT pg_advisory_unlock_all()", "Another psp distribute"),
            ("BEGIN; LOCK TABLE payouts IN ROW EXCLUSIVE MODE", "ROLLBACK", "Another session uses the tables"),
            (
                "SELECT citus_set_node_property(nodename, nodeport, 'shouldhaveshards', false) FROM pg_dist_node",
                "SELECT citus_set_node_property(nodename, nodeport, 'shouldhaveshards', groupid > 0) FROM pg_dist_node",
                "No node can have shards",
            ),
        ):
            await conn.execute(create)
            assert named in await refusal()
            await conn.execute(drop)

        async with connected(url, server_settings={"application_name": "psp-sandbox"}):
            assert "A sandbox is running on this database (connections: 1)" in await refusal()
            plan = await plan_distribution(url, 4, APPLICATION_ROLE)
            assert (plan.connections, plan.pending_migrations, plan.is_distributed) == (1, 0, False)
            tables = await read_tables(conn, APPLICATION_ROLE)
            assert [table.name for table in plan.tables] == [table.name for table in tables]
        assert await conn.fetch(_DISTRIBUTED) == []


async def test_an_interrupted_or_failed_attempt_changes_nothing(
    urls: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one succeeds. A writer waits meanwhile, and its row is not lost."""
    url = urls[COORDINATOR]
    before = await all_rows(url)

    def interrupt(name: str, _: Content) -> None:
        if name == "users":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # as Ctrl-C does

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(distribute(url, 4, APPLICATION_ROLE, lambda _: None, interrupt))

    contents = (Content(number, 0) for number in itertools.count())

    async def content_that_differs(*_: object) -> Content:
        return next(contents)

    with monkeypatch.context() as patch:
        patch.setattr(distributed_tables, "read_content", content_that_differs)
        with pytest.raises(DistributionError, match=r"has \d+ rows .* had 0 "):
            await distribute(url, 4, APPLICATION_ROLE, lambda _: None, lambda *_: None)

    async with connected(url) as conn:
        assert await conn.fetch(_DISTRIBUTED) == []
    assert await all_rows(url) == before
    written: list[asyncio.Task[str]] = []
    async with connected(url) as writer:

        def write(*_: object) -> None:
            if not written:
                statement = (
                    "INSERT INTO merchants (merchant_id, name, currency, ipn_secret, webhook_secret, created_at)"
                    " VALUES (gen_random_uuid(), 'late', 'PKR', '', '', now())"
                )
                written.append(asyncio.create_task(writer.execute(statement)))

        await distribute(url, 4, APPLICATION_ROLE, lambda _: None, write)
        assert await written[0] == "INSERT 0 1"
    for node in urls.values():
        found = await all_rows(node)
        assert len(found.pop("merchants")) == 1
        assert found == {name: rows for name, rows in before.items() if name != "merchants"}


async def test_tables_of_later_migrations_are_distributed(urls: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if a process was interrupted between a migration and that. Until then, `psp doctor` names them."""

    async def doctor() -> str:
        return await asyncio.to_thread(
            lambda: next(found for found in run_checks(Path(), "127.0.0.1", 0, 0) if found.check == "database").detail
        )

    monkeypatch.setenv("DATABASE_URL", urls[WORKERS[1]])
    assert "is not distributed (psp distribute)" in await doctor()
    await distribute(urls[COORDINATOR], 4, APPLICATION_ROLE, lambda _: None, lambda *_: None)
    assert "all tables are distributed" in await doctor()
    assert (await doctor()).count("has 2 shards") == 2
    async with connected(urls[COORDINATOR]) as conn:
        # Undo a part of the migration, which then runs again.
        await conn.execute("DROP TABLE receiver_tests; DELETE FROM migration")
        assert "Distributed: receiver_tests." in await migrate(urls[WORKERS[0]])
        # What a migration leaves if the process ends then.
        await conn.execute(
            "CREATE TABLE later (merchant_id uuid PRIMARY KEY REFERENCES merchants); CREATE TABLE shared (name text)"
        )
        await conn.execute(f"GRANT SELECT ON later, shared TO {APPLICATION_ROLE}")
        await conn.execute("INSERT INTO shared VALUES ('a'), ('b')")
        assert "Not distributed: shared, later. Run psp distribute." in await doctor()
        assert "Distributed: shared, later." in await migrate(urls[WORKERS[0]])
        assert await migrate(urls[WORKERS[0]]) == "All migrations have run.\n"
        groups = "SELECT count(DISTINCT colocationid) FROM pg_dist_partition WHERE partmethod = 'h'"
        assert await conn.fetchval(groups) == 1
        assert len((await all_rows(urls[WORKERS[1]]))["shared"]) == 2
        assert "all tables are distributed" in await doctor()
        # A table that someone has distributed otherwise.
        await conn.execute("ALTER TABLE later DROP CONSTRAINT later_merchant_id_fkey")
        await conn.execute("SELECT undistribute_table('later')")
        await conn.execute("SELECT create_reference_table('later')")
        assert "The table later is distributed in another way" in await doctor()
