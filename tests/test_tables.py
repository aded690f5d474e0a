"""A Piccolo class has the columns of its table, and Piccolo's queries join our transactions."""

import asyncio
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import asyncpg
import pytest
from piccolo.table import Table

from sandbox.infrastructure.db.engine import DatabaseUnavailableError, connection, transaction
from sandbox.infrastructure.db.pools import Pools
from sandbox.payouts.scenarios.tables import ScenarioRules
from tests.harness.statements import tables
from tests.harness.world import Stack, World

COLUMNS = """
SELECT relname::text AS table, attname::text AS column, format_type(atttypid, atttypmod) AS type, attnotnull AS not_null,
    atthasdef AS has_default, EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p' AND attnum = ANY (conkey)
    ) AS in_key
FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'migration'
"""


def types_of(table: type[Table]) -> dict[str, tuple[str, bool, bool]]:
    """Return (PostgreSQL type, is NOT NULL, is in the primary key) for each column of a class, by column name."""
    names = {"timestamptz": "timestamp with time zone"}
    found = {}
    for column in table._meta.columns:
        type_ = column.column_type.lower().replace(", ", ",")
        found[column._meta.db_column_name] = (names.get(type_, type_), not column._meta.null, column._meta.primary_key)
    return found


def test_each_class_has_the_columns_of_its_table(stack: Stack) -> None:
    stored: dict[str, dict[str, tuple[str, bool, bool]]] = {}
    for row in stack.execute(COLUMNS):
        stored.setdefault(row["table"], {})[row["column"]] = (row["type"], row["not_null"], row["in_key"])
    classes = tables()
    assert len(classes) == len({table._meta.tablename for table in classes}), "each table must have only one class"
    assert {table._meta.tablename: types_of(table) for table in classes} == {
        table._meta.tablename: stored[table._meta.tablename] for table in classes
    }


def test_classes_have_a_default_only_where_the_database_has_one(stack: Stack) -> None:
    """A missing time or id must be an error, not filled with the host's time or a random id."""
    names = {table._meta.tablename for table in tables()}
    with_default = {
        (row["table"], row["column"]) for row in stack.execute(COLUMNS) if row["has_default"] and row["table"] in names
    }
    class_defaults = {
        (table._meta.tablename, column._meta.db_column_name)
        for table in tables()
        for column in table._meta.columns
        if column.get_default_value() is not None
    }
    assert class_defaults == with_default


def new_rule(world: World) -> ScenarioRules:
    id_ = str(uuid.uuid4())
    return ScenarioRules(merchant_id=world.merchant_id, id=id_, name="R", position=1, match="{}", steps="[]")


async def rule_names(world: World) -> list[str]:
    rules = ScenarioRules
    return [row["name"] for row in await rules.select(rules.name).where(rules.merchant_id == world.merchant_id)]


@pytest.mark.usefixtures("pool")
async def test_a_query_joins_the_transaction_around_it(world: World) -> None:
    async def write_and_fail() -> None:
        async with transaction(world.merchant_id) as conn:
            await ScenarioRules.insert(new_rule(world))
            assert await rule_names(world) == ["R"]
            assert await conn.fetchval("SELECT count(*) FROM scenario_rules WHERE merchant_id = $1", world.merchant_id) == 1
            async with transaction(world.merchant_id):
                assert await rule_names(world) == [], "a nested transaction must be separate"
            assert await rule_names(world) == ["R"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    async with connection(world.merchant_id):
        assert await rule_names(world) == []
    async with transaction(world.merchant_id):
        await ScenarioRules.insert(new_rule(world))
    async with connection(world.merchant_id):
        assert await rule_names(world) == ["R"]


@pytest.mark.usefixtures("pool")
async def test_a_query_needs_a_connection_and_writes_only_in_a_transaction(world: World) -> None:
    with pytest.raises(RuntimeError, match="inside `connection` or `transaction`"):
        await rule_names(world)
    async with connection(world.merchant_id):
        with pytest.raises(RuntimeError, match="only a unit of work writes"):
            await ScenarioRules.insert(new_rule(world))
        assert await rule_names(world) == []


@pytest.mark.usefixtures("pool")
async def test_a_task_that_outlives_the_transaction_does_not_use_its_connection(world: World) -> None:
    first_ended = asyncio.Event()

    async def late() -> None:
        await first_ended.wait()
        await rule_names(world)

    async with transaction(world.merchant_id):
        task = asyncio.create_task(late())
        await ScenarioRules.insert(new_rule(world))
    async with transaction(world.merchant_id):
        first_ended.set()
        # The second transaction is open on the same connection. The task must not run queries in it.
        with pytest.raises(RuntimeError, match="inside `connection` or `transaction`"):
            await task


@pytest.mark.usefixtures("pool")
async def test_a_lost_connection_in_a_query_raises_database_unavailable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reset_connection(*_: object, **__: object) -> None:
        raise ConnectionResetError("connection reset")

    async def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError("connection refused")

    async def read(acquire: Callable[[str], AbstractAsyncContextManager[object]]) -> None:
        async with acquire(world.merchant_id):
            await rule_names(world)

    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.Connection, "fetch", reset_connection)
        for acquire in (connection, transaction):
            with pytest.raises(DatabaseUnavailableError, match="connection reset"):
                await read(acquire)
    with monkeypatch.context() as patch:
        patch.setattr(Pools, "acquire", refuse)
        with pytest.raises(DatabaseUnavailableError, match="connection refused"):
            await read(connection)


def test_migrating_leaves_out_a_formatter_that_piccolo_imports_and_other_code_still_finds_it() -> None:
    program = """
        import sys
        from sandbox.infrastructure.db.migrate import without_black
        with without_black():
            import piccolo.apps.migrations.commands.forwards
        assert "black" not in sys.modules and "pathspec" not in sys.modules
        import black
        assert black.format_str("x = 1", mode=black.FileMode()) == "x = 1\\n"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
