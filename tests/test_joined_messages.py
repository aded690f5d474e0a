"""BEGIN travels with a transaction's first statement, and COMMIT with its last one; their replies stay their own."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from sandbox.domain.ledger import TOP_UP
from sandbox.infrastructure.db import pools
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, close_pool, open_pool, transaction
from sandbox.infrastructure.db.joined_messages import commit_joined
from sandbox.payouts.scenarios.builtin import load_catalogue
from sandbox.unit_of_work.claim import ClaimRequest, claim
from sandbox.unit_of_work.write import write
from tests.harness.world import Stack, World

OWNER = "00000000-0000-7000-8000-000000000001"


@pytest.fixture(autouse=True)
async def pool(stack: Stack) -> AsyncIterator[None]:
    await open_pool(stack.database_url, 1)  # so that each transaction gets the connection of the one before
    yield
    await close_pool()


async def _copy(conn: Any) -> bytes:
    copied = io.BytesIO()
    await conn.copy_from_query("SELECT 1", output=copied)
    return copied.getvalue()


FIRST_STATEMENTS: dict[str, tuple[Callable[[Any], Awaitable[object]], object]] = {
    "query": (lambda conn: conn.fetchval("SELECT $1::int + 1", 1), 2),
    "query without rows": (lambda conn: conn.fetch("SELECT 1 WHERE $1::int = 0", 1), []),
    "statement without parameters": (lambda conn: conn.execute("SELECT 1"), "SELECT 1"),
    "several statements": (lambda conn: conn.execute("SELECT 1; SET LOCAL work_mem = 1000"), "SET"),
    "copy": (_copy, b"1\n"),
    "many": (lambda conn: conn.executemany("SELECT $1::int", [(1,), (2,)]), None),
}


@pytest.mark.parametrize("name", FIRST_STATEMENTS)
async def test_the_first_statement_gets_its_own_reply_inside_the_transaction(name: str) -> None:
    run, expected = FIRST_STATEMENTS[name]
    for _ in range(3):  # the first time, asyncpg prepares the statement
        async with transaction(OWNER, 0.25) as conn:
            assert await run(conn) == expected
            assert conn.is_in_transaction()
            assert await conn.fetchval("SELECT current_setting('lock_timeout')") == "250ms"
        async with transaction(OWNER) as conn:
            assert await conn.fetchval("SELECT current_setting('lock_timeout')") == "0"


async def test_a_first_statement_that_fails_raises_its_own_error_and_the_connection_goes_on() -> None:
    for _ in range(2):
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with transaction(OWNER, 0.25) as conn:
                await conn.fetchval("SELECT 1 / $1::int", 0)
        with pytest.raises(asyncpg.UndefinedColumnError):
            async with transaction(OWNER, 0.25) as conn:
                await conn.execute("SELECT missing")
        async with transaction(OWNER) as conn:
            assert await conn.fetchval("SELECT 1") == 1


async def test_a_transaction_without_statements_or_with_an_error_before_them_ends() -> None:
    async with transaction(OWNER):
        pass
    with pytest.raises(ValueError, match="before"):
        async with transaction(OWNER):
            raise ValueError("before")
    async with transaction(OWNER) as conn:
        await conn.execute("SELECT 1")


async def test_a_first_statement_that_is_cancelled_leaves_no_transaction_open() -> None:
    async def sleep() -> None:
        async with transaction(OWNER) as conn:
            begun.set()
            await conn.execute("SELECT pg_sleep(60)")

    begun = asyncio.Event()
    task = asyncio.create_task(sleep())
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with transaction(OWNER) as conn:
        assert not conn.is_in_transaction()
        assert await conn.fetchval("SELECT 1") == 1


async def test_a_first_statement_on_a_lost_connection_is_an_outage(stack: Stack) -> None:
    async with transaction(OWNER) as conn:
        pid = await conn.fetchval("SELECT pg_backend_pid()")

    async def lose() -> None:
        async with transaction(OWNER) as conn:
            await asyncio.to_thread(stack.execute, "SELECT pg_terminate_backend($1)", pid)
            await conn.execute("SELECT 1")

    with pytest.raises(CONNECTION_ERRORS):
        await lose()
    async with transaction(OWNER) as conn:
        assert await conn.fetchval("SELECT pg_backend_pid()") != pid


_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"


async def _run_and_commit(statement: str, *arguments: object) -> object:
    async with transaction(OWNER, 0.25) as conn:
        await conn.execute("SELECT pg_advisory_xact_lock(1)")
        with commit_joined(conn, statement):
            return await conn.fetchval(statement, *arguments)


async def test_a_commit_is_executed_after_the_statement_that_it_travels_with() -> None:
    """The first time on a connection, asyncpg prepares the statement, and looks up its types with another one."""
    statement = f"SELECT ({_LOCKS}) FROM unnest($1::point[]) AS point"  # no other statement has this type
    for _ in range(3):
        assert await _run_and_commit(statement, [(0.0, 0.0)]) == 1
        async with transaction(OWNER) as conn:
            assert await conn.fetchval(_LOCKS) == 0


async def test_a_commit_travels_with_a_statement_that_was_prepared_before() -> None:
    statement, open_after = "SELECT $1::int", []
    for _ in range(2):
        async with transaction(OWNER) as conn:
            with commit_joined(conn, statement):
                await conn.execute(statement, 1)
            open_after.append(conn.is_in_transaction())
    assert open_after == [True, False]


async def test_a_statement_that_fails_is_not_committed_and_the_next_transaction_gets_no_commit() -> None:
    for _ in range(2):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await _run_and_commit("SELECT set_config('application_name', 'lost', false), 1 / $1::int", 0)
        with pytest.raises(asyncpg.DataError):  # asyncpg refuses the argument, and sends nothing
            await _run_and_commit("SELECT $1::int", "text")
        async with transaction(OWNER) as conn:
            assert await conn.fetchval("SELECT current_setting('application_name')") != "lost"
            await conn.execute("SELECT $1::int", 1)
            assert conn.is_in_transaction()


async def test_nothing_is_written_outside_the_transaction_of_the_claim(world: World) -> None:
    async with transaction(world.merchant_id) as conn:
        (unit,) = await claim(conn, load_catalogue(), [ClaimRequest(world.merchant_id)])
    unit.transfer(TOP_UP, Decimal("1.00"), None, "late")
    async with transaction(world.merchant_id) as conn:
        await conn.execute("SELECT 1")
        with pytest.raises(asyncpg.RaiseError, match="outside the transaction of the claim"):
            await write(conn, [unit])


async def test_nothing_is_decided_if_begin_was_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The merchant's lock ends with its statement then, so two decisions could use the same balance."""
    monkeypatch.setattr(pools, "send_with_next_statement", lambda *_: None)
    with pytest.raises(RuntimeError, match="outside a transaction"):
        async with transaction(world.merchant_id) as conn:
            await claim(conn, load_catalogue(), [ClaimRequest(world.merchant_id)])
