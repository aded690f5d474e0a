"""The loop: requests in flight commit together, one bad one harms no neighbour, and the queue is bounded."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import pytest

from sandbox.db.engine import close_pool, connection, open_pool, transaction
from sandbox.domain.errors import Problem
from sandbox.domain.ledger import TOP_UP
from sandbox.domain.unit import CommandResult, IdempotencyKey, RequestContext, UnitOfWork
from sandbox.unit_of_work.loop import MerchantQueues
from tests.harness.world import Stack, World

ORIGIN = RequestContext("test", "/test", "http://127.0.0.1")


@dataclass
class Probe:
    """A command that tops up by 1.00, after `decision` has had its say."""

    decision: str = ""
    key: IdempotencyKey | None = None
    weight: int = 1
    payout_ids: Sequence[str] = ()
    references: Sequence[str] = ()
    user_ids: Sequence[str] = ()
    origin: RequestContext = ORIGIN

    def decide(self, unit: UnitOfWork) -> CommandResult:
        if self.decision == "raise":
            raise RuntimeError("a defect")
        unit.transfer(TOP_UP, Decimal("1.00"), None, "\0" if self.decision == "poison" else "fine")
        if self.decision == "raise late":
            raise RuntimeError("a defect behind the line")
        return CommandResult(200, b"done")


@pytest.fixture
async def pool(stack: Stack) -> AsyncIterator[None]:
    await open_pool(stack.database_url, 4)
    yield
    await close_pool()


@pytest.fixture
def units() -> list[UnitOfWork]:
    return []


@pytest.fixture
async def queues(pool: None, units: list[UnitOfWork]) -> AsyncIterator[MerchantQueues]:
    queues = MerchantQueues(64, 100, units.append)
    yield queues
    await queues.close()


@pytest.mark.parametrize("decision", ["raise", "raise late", "poison"])
async def test_a_bad_command_fails_alone_and_its_neighbours_commit(world: World, queues: MerchantQueues, decision: str) -> None:
    """A defect in deciding, a defect behind the line, and a NUL that PostgreSQL refuses: each costs only its own."""
    commands = [Probe(decision if number == 17 else "") for number in range(50)]
    answers = await asyncio.gather(*(queues.submit(world.merchant_id, c) for c in commands), return_exceptions=True)
    assert [number for number, answer in enumerate(answers) if isinstance(answer, Exception)] == [17]
    assert await available(world) == Decimal("1000049.00")


async def test_commands_in_flight_commit_together(world: World, queues: MerchantQueues, units: list[UnitOfWork]) -> None:
    await asyncio.gather(*(queues.submit(world.merchant_id, Probe()) for _ in range(65)))
    assert [len(unit.posted) for unit in units] == [64, 1]


async def test_the_queue_is_bounded(world: World, queues: MerchantQueues) -> None:
    answers = await asyncio.gather(*(queues.submit(world.merchant_id, Probe()) for _ in range(150)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Problem)]
    assert len(refused) == 50
    assert {(problem.code, problem.headers["Retry-After"]) for problem in refused} == {("UNAVAILABLE", "1")}
    assert await available(world) == Decimal("1000100.00")
    # What was refused leaves nothing behind: there is room again.
    assert (await queues.submit(world.merchant_id, Probe())).status == 200


async def test_a_key_in_flight_is_refused_and_a_finished_one_repeats(world: World, queues: MerchantQueues) -> None:
    key = IdempotencyKey("k", b"f" * 32)
    first = asyncio.create_task(queues.submit(world.merchant_id, Probe(key=key)))
    await asyncio.sleep(0)
    with pytest.raises(Problem, match="IDEMPOTENCY_KEY_IN_FLIGHT"):
        await queues.submit(world.merchant_id, Probe(key=key))
    assert (await first).replayed is False
    assert (await queues.submit(world.merchant_id, Probe(key=key))).replayed is True
    assert await available(world) == Decimal("1000001.00")


async def test_a_caller_that_leaves_does_not_take_its_command_back(world: World, queues: MerchantQueues) -> None:
    caller = asyncio.create_task(queues.submit(world.merchant_id, Probe()))
    await asyncio.sleep(0)
    caller.cancel()
    await queues.close()
    assert await available(world) == Decimal("1000001.00")


async def test_a_merchant_that_is_gone_is_not_found(queues: MerchantQueues) -> None:
    with pytest.raises(Problem, match="NOT_FOUND"):
        await queues.submit("00000000-0000-7000-8000-00000000dead", Probe())


async def test_the_applications_role_cannot_rewrite_history(world: World, pool: None) -> None:
    for statement in ("UPDATE transfers SET amount = 1", "DELETE FROM transfers", "DELETE FROM events"):
        with pytest.raises(Exception, match="permission denied"):
            async with transaction() as conn:
                await conn.execute(f"{statement} WHERE merchant_id = $1", world.merchant_id)


async def test_the_database_refuses_a_negative_balance(world: World, pool: None) -> None:
    with pytest.raises(Exception, match="never_negative"):
        async with transaction() as conn:
            await conn.execute(
                "UPDATE accounts SET balance = -1 WHERE merchant_id = $1 AND account = 'AVAILABLE'", world.merchant_id
            )


async def available(world: World) -> Decimal:
    async with connection() as conn:
        balance = await conn.fetchval(
            "SELECT balance FROM accounts WHERE merchant_id = $1 AND account = 'AVAILABLE'", world.merchant_id
        )
    assert isinstance(balance, Decimal)
    return balance
