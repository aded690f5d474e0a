"""Requests in flight commit together, a failing one affects no other, and the queue is bounded."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from asyncpg import NotNullViolationError

from sandbox.domain.errors import Problem
from sandbox.domain.ledger import TOP_UP
from sandbox.domain.payout_commands import CreatePayout, NewPayout
from sandbox.domain.unit import NO_NEEDS, CommandResult, IdempotencyKey, Needs, RequestContext, UnitOfWork
from sandbox.infrastructure.db.engine import connection, transaction
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.payouts.scenarios.builtin import load_catalogue
from sandbox.payouts.steps import take_due_steps
from sandbox.unit_of_work.batches import CONTENDED_LIMIT
from sandbox.unit_of_work.claim import ClaimRequest, claim
from sandbox.unit_of_work.lock_turns import PLACES
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.webhooks.delivery.attempt import AttemptRunner
from sandbox.webhooks.delivery.deliverer import Deliverer
from tests.harness.locks import locked_elsewhere
from tests.harness.raw_server import sending
from tests.harness.work import request_of, units_of_work
from tests.harness.world import Stack, World
from worker import payout_steps
from worker.payout_steps import MAX_SOLO_MERCHANTS as MAX_SOLO_WORKER_MERCHANTS
from worker.payout_steps import PayoutStepRunner


@dataclass
class Probe:
    """A command that tops up by 1.00, or fails in the way that `failure` names."""

    context: RequestContext
    failure: str = ""
    needs: Needs = NO_NEEDS

    def decide(self, unit: UnitOfWork) -> CommandResult:
        if self.failure == "raise":
            raise RuntimeError("before the change")
        unit.transfer(TOP_UP, Decimal("1.00"), None, "\0" if self.failure == "poison" else "fine")
        if self.failure == "raise late":
            raise RuntimeError("after the change")
        return CommandResult(200, b"done")


@pytest.fixture
def units() -> list[UnitOfWork]:
    return []


@pytest.fixture
async def work(pool: None, units: list[UnitOfWork], no_light_merchant_was_found: None) -> AsyncIterator[UnitOfWorkRunner]:
    async def committed(unit: UnitOfWork) -> None:
        units.append(unit)

    work = units_of_work(committed, batch_limit=64, queue_limit=200)
    yield work
    await work.close()


@pytest.mark.parametrize("failure", ["raise", "raise late", "poison"])
async def test_a_failing_command_affects_no_other_command(world: World, work: UnitOfWorkRunner, failure: str) -> None:
    """It raises before or after it changes the unit, or its data has a NUL, which PostgreSQL refuses."""
    commands = [Probe(request_of(world.merchant_id), failure if number == 17 else "") for number in range(50)]
    results = await asyncio.gather(*(work.submit(c) for c in commands), return_exceptions=True)
    assert [number for number, result in enumerate(results) if isinstance(result, Exception)] == [17]
    assert await available(world) == Decimal("1000049.00")


async def test_commands_in_flight_commit_together(world: World, work: UnitOfWorkRunner, units: list[UnitOfWork]) -> None:
    await asyncio.gather(*(work.submit(Probe(request_of(world.merchant_id))) for _ in range(65)))
    assert [len(unit.posted) for unit in units] == [64, 1]


async def test_a_merchants_queue_is_bounded_and_leaves_room_for_others(world: World, work: UnitOfWorkRunner) -> None:
    with World.create(world.stack) as other:
        busy = [work.submit(Probe(request_of(world.merchant_id))) for _ in range(150)]
        quiet = [work.submit(Probe(request_of(other.merchant_id))) for _ in range(25)]
        results = await asyncio.gather(*busy, *quiet, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Problem)]
    assert refused == [result for result in results[:150] if isinstance(result, Problem)]
    assert len(refused) == 50
    assert {(problem.code, problem.headers["Retry-After"]) for problem in refused} == {("RATE_LIMITED", "1")}
    assert await available(world) == Decimal("1000100.00")
    # Refused commands leave the queue empty.
    assert (await work.submit(Probe(request_of(world.merchant_id)))).status == 200


async def test_a_key_in_flight_is_refused_and_a_finished_one_is_replayed(world: World, work: UnitOfWorkRunner) -> None:
    key = IdempotencyKey("k", b"f" * 32)
    first = asyncio.create_task(work.submit(Probe(request_of(world.merchant_id, key))))
    await asyncio.sleep(0)
    with pytest.raises(Problem, match="IDEMPOTENCY_KEY_IN_FLIGHT"):
        await work.submit(Probe(request_of(world.merchant_id, key)))
    assert (await first).replayed is False
    assert (await work.submit(Probe(request_of(world.merchant_id, key)))).replayed is True
    assert await available(world) == Decimal("1000001.00")


async def test_cancelling_the_caller_does_not_cancel_the_command(world: World, work: UnitOfWorkRunner) -> None:
    caller = asyncio.create_task(work.submit(Probe(request_of(world.merchant_id))))
    await asyncio.sleep(0)
    caller.cancel()
    await work.close()
    assert await available(world) == Decimal("1000001.00")


async def test_a_deleted_merchant_is_not_found(work: UnitOfWorkRunner) -> None:
    with pytest.raises(Problem, match="NOT_FOUND"):
        await work.submit(Probe(request_of("00000000-0000-7000-8000-00000000dead")))


async def test_the_applications_role_cannot_rewrite_history(world: World, pool: None) -> None:
    for statement in ("UPDATE transfers SET amount = 1", "DELETE FROM transfers", "DELETE FROM events"):
        with pytest.raises(Exception, match="permission denied"):
            async with transaction(world.merchant_id) as conn:
                await conn.execute(f"{statement} WHERE merchant_id = $1", world.merchant_id)


MISSING = "00000000-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("argument", "row"),
    [
        ("p_changed", {"id": MISSING, "status": "SUCCESS", "changes": 1}),
        ("p_balances", {"account": f"USER:{MISSING}", "balance": "1.00", "changes": 1}),
        ("p_users", {"id": MISSING, "earned": "1.00", "version": 1}),
    ],
)
async def test_a_write_of_a_row_that_is_missing_is_an_error(
    world: World, pool: None, argument: str, row: dict[str, object]
) -> None:
    """Otherwise the rest of the unit would commit without it, and money would be made or lost."""
    names = [
        "created", "metadata", "changed", "transfers", "balances", "users", "user_transactions", "deliveries", "keys", "events",
    ]  # fmt: skip
    # Balances are written with transfers, of which this unit has none.
    given = {f"p_{name}": "NULL" for name in names} | {"p_transfers": "ARRAY['[]']::json[]", argument: "$3::json[]"}
    arguments = ", ".join(f"{name} => {value}" for name, value in given.items())
    statement = f"SELECT psp_write(p_merchants => $1, p_nows => $2, p_bodies => NULL, {arguments})"
    async with transaction(world.merchant_id) as conn:
        await claim(conn, load_catalogue(), [ClaimRequest(world.merchant_id)])
        with pytest.raises(NotNullViolationError, match='"merchant_id"'):
            await conn.execute(statement, [world.merchant_id], [datetime.now(UTC)], [json.dumps([row])])


async def test_the_database_refuses_a_negative_balance(world: World, pool: None) -> None:
    with pytest.raises(Exception, match="never_negative"):
        async with transaction(world.merchant_id) as conn:
            await conn.execute(
                "UPDATE accounts SET balance = -1 WHERE merchant_id = $1 AND account = 'AVAILABLE'", world.merchant_id
            )


async def available(world: World) -> Decimal:
    async with connection(world.merchant_id) as conn:
        balance = await conn.fetchval(
            "SELECT balance FROM accounts WHERE merchant_id = $1 AND account = 'AVAILABLE'", world.merchant_id
        )
    assert isinstance(balance, Decimal)
    return balance


@pytest.fixture
def worlds(stack: Stack) -> Iterator[list[World]]:
    """Merchants with 1000.00 each."""
    with ExitStack() as opened:
        yield [opened.enter_context(World.create(stack, opening_balance="1000.00")) for _ in range(12)]


def probes(worlds: Sequence[World], each: int = 1, failure: str = "") -> list[Probe]:
    return [Probe(request_of(world.merchant_id), failure) for _ in range(each) for world in worlds]


async def transactions(units: Sequence[UnitOfWork]) -> int:
    """Return how many transactions wrote these units' transfers."""
    ids = [unit.posted[0].transfer.id for unit in units if unit.posted]
    async with connection(units[0].merchant_id) as conn:
        found = await conn.fetch("SELECT DISTINCT xmin::text FROM transfers WHERE id = ANY ($1::uuid[])", ids)
    return len(found)


async def test_merchants_in_flight_commit_together(
    work: UnitOfWorkRunner, units: list[UnitOfWork], worlds: list[World]
) -> None:
    results = await asyncio.gather(*(work.submit(probe) for probe in probes(worlds, each=2)))
    assert {result.status for result in results} == {200}
    assert [len(unit.posted) for unit in units] == [2] * len(worlds)
    assert await transactions(units) == 1
    assert [await available(world) for world in worlds] == [Decimal("1002.00")] * len(worlds)


@pytest.mark.parametrize("failure", ["raise", "raise late", "poison"])
async def test_a_failing_command_affects_no_other_merchant(work: UnitOfWorkRunner, worlds: list[World], failure: str) -> None:
    commands = [*probes(worlds), *probes(worlds[3:4], failure=failure), *probes(worlds[3:4])]
    results = await asyncio.gather(*(work.submit(command) for command in commands), return_exceptions=True)
    assert [number for number, result in enumerate(results) if isinstance(result, Exception)] == [len(worlds)]
    expected = [Decimal("1001.00")] * len(worlds)
    expected[3] = Decimal("1002.00")
    assert [await available(world) for world in worlds] == expected


async def test_a_deleted_merchant_affects_no_other_merchant(work: UnitOfWorkRunner, worlds: list[World]) -> None:
    gone = Probe(request_of("00000000-0000-7000-8000-00000000dead"))
    results = await asyncio.gather(*(work.submit(c) for c in [gone, *probes(worlds)]), return_exceptions=True)
    assert isinstance(results[0], Problem)
    assert results[0].code == "NOT_FOUND"
    assert not any(isinstance(result, Exception) for result in results[1:])


async def test_merchants_that_stay_locked_do_not_delay_a_merchant_whose_lock_is_released(
    work: UnitOfWorkRunner, stack: Stack, worlds: list[World]
) -> None:
    """More merchants are locked than can wait for their locks at the same time."""
    count = PLACES + 2
    released, locked, others = worlds[count], worlds[:count], worlds[count + 1 :]
    async with asyncio.timeout(60), locked_elsewhere(stack, locked):
        async with locked_elsewhere(stack, [released]):
            waiting = [asyncio.create_task(work.submit(probe)) for probe in probes([*locked, released])]
            await asyncio.gather(*(work.submit(probe) for probe in probes(others)))
            assert not any(task.done() for task in waiting)
        assert (await waiting[-1]).status == 200
        # A merchant whose round fails also needs a transaction of its own.
        results = await asyncio.gather(
            *(work.submit(c) for c in [*probes(others), *probes(others[:1], failure="raise")]), return_exceptions=True
        )
        assert [isinstance(result, Exception) for result in results] == [*[False] * len(others), True]
        assert not any(task.done() for task in waiting[:-1])
    assert {result.status for result in await asyncio.gather(*waiting)} == {200}


async def test_a_busy_merchant_does_not_delay_quiet_ones(
    work: UnitOfWorkRunner, units: list[UnitOfWork], worlds: list[World]
) -> None:
    """If all waiting merchants fit in one round, the next round has a batch of each."""
    busy, *quiet = worlds
    commands = [*probes([busy], each=80), *probes(quiet)]
    await asyncio.gather(*(work.submit(command) for command in commands))
    rounds = [unit.merchant_id for unit in units]
    assert set(rounds[: len(worlds)]) == {world.merchant_id for world in worlds}
    assert len(units[rounds.index(busy.merchant_id)].posted) == CONTENDED_LIMIT - len(quiet), (
        "the busy merchant must get the capacity that the others leave"
    )


async def test_with_sharing_off_each_merchant_has_its_own_transaction(pool: None, worlds: list[World]) -> None:
    units: list[UnitOfWork] = []

    async def committed(unit: UnitOfWork) -> None:
        units.append(unit)

    work = units_of_work(committed, merchants_at_once=1)
    await asyncio.gather(*(work.submit(probe) for probe in probes(worlds, each=2)))
    await work.close()
    assert await transactions(units) == len(worlds)


def make_due(worlds: Sequence[World]) -> None:
    """Give each merchant a payout with a due step, which only the test's own worker runs."""
    for world in worlds:
        # The clock is frozen, so the sandbox's own workers set no timer for the step.
        assert world.post("/sandbox/v1/clock/freeze", {}).status_code == 200
        world.create_payout("0012")
        world.stack.execute("UPDATE payouts SET due_at = created_at WHERE merchant_id = $1", world.merchant_id)


async def test_a_worker_runs_the_steps_of_each_merchant_that_is_not_locked(
    stack: Stack, pool: None, worlds: list[World]
) -> None:
    """More merchants stay locked than can wait for their locks at a time. One is released, and must not wait for the others."""
    await asyncio.to_thread(make_due, worlds)
    count = MAX_SOLO_WORKER_MERCHANTS + 2
    released, locked, others = worlds[count], worlds[:count], worlds[count + 1 :]
    taken: asyncio.Queue[str] = asyncio.Queue()

    async def committed(unit: UnitOfWork) -> None:
        if unit.changed:
            await taken.put(unit.merchant_id)

    async with asyncio.timeout(60), sending(1) as sender:
        runner = PayoutStepRunner(units_of_work(committed), Deliverer(AttemptRunner(sender, SecretBox(bytes(32)))))
        async with locked_elsewhere(stack, locked):
            async with locked_elsewhere(stack, [released]):
                for world in worlds:
                    runner.wake(world.merchant_id)
                assert {await taken.get() for _ in others} == {world.merchant_id for world in others}
            assert await taken.get() == released.merchant_id
            assert taken.empty()
        assert {await taken.get() for _ in locked} == {world.merchant_id for world in locked}
        await runner.stop(10)


@pytest.mark.parametrize(("later", "expected"), [(-1, [[0], [1]]), (0, [[0], [0, 1]]), (1, [[0], [0, 1]])])
async def test_a_wake_up_for_steps_that_a_transaction_has_found_causes_no_other(
    pool: None, worlds: list[World], monkeypatch: pytest.MonkeyPatch, later: int, expected: list[list[int]]
) -> None:
    """The wake-up arrives while the transaction runs. It follows an earlier unit, or one that may be later."""
    await asyncio.to_thread(make_due, worlds[:2])
    merchants = [world.merchant_id for world in worlds[:2]]
    claimed: list[list[int]] = []
    done = asyncio.Event()

    async def take(work: UnitOfWorkRunner, woken: Sequence[str], *options: Any) -> dict[str, bool]:
        claimed.append(sorted(map(merchants.index, woken)))
        return await take_due_steps(work, woken, *options)

    async def committed(unit: UnitOfWork) -> None:
        if unit.merchant_id == merchants[1]:
            done.set()
        elif len(claimed) == 1:
            runner.wake(merchants[0], unit.ids.first + later)
            runner.wake(merchants[1])

    monkeypatch.setattr(payout_steps, "take_due_steps", take)
    async with asyncio.timeout(60), sending(1) as sender:
        work = units_of_work(committed)
        runner = PayoutStepRunner(work, Deliverer(AttemptRunner(sender, SecretBox(bytes(32)))))
        work.notifier.after_commit.append(runner.committed)
        runner.wake(merchants[0])
        await done.wait()
        await runner.stop(10)
    assert claimed == expected


async def test_due_steps_of_several_merchants_commit_together(stack: Stack, pool: None, worlds: list[World]) -> None:
    """A merchant that is locked elsewhere is left out."""
    await asyncio.to_thread(make_due, worlds)
    units: list[UnitOfWork] = []

    async def committed(unit: UnitOfWork) -> None:
        units.append(unit)

    locked, *others = worlds
    merchants = [world.merchant_id for world in worlds]
    async with locked_elsewhere(stack, worlds):
        assert await take_due_steps(units_of_work(), merchants) == {}
    async with locked_elsewhere(stack, [locked]):
        more = await take_due_steps(units_of_work(committed), merchants)
    assert more == {world.merchant_id: False for world in others}
    assert [len(unit.changed) for unit in units] == [1] * len(others)
    ids = [unit.events[0].id for unit in units]
    async with connection(merchants[0]) as conn:
        assert len(await conn.fetch("SELECT DISTINCT xmin::text FROM events WHERE id = ANY ($1::uuid[])", ids)) == 1
    assert await take_due_steps(units_of_work(), merchants) == dict.fromkeys(merchants, False)


async def test_in_a_frozen_world_the_steps_of_a_command_run_before_the_next_command(
    stack: Stack, work: UnitOfWorkRunner, units: list[UnitOfWork]
) -> None:
    """Each payout locks the whole balance and fails immediately, which unlocks it for the next. All share one transaction."""
    with World.create(stack, opening_balance="1000.00") as world:
        assert world.post("/sandbox/v1/clock/freeze", {}).status_code == 200
        body = world.payout_body("0003")
        bank, account = body["bank_code"], body["account_number"]
        commands = [
            CreatePayout(
                request_of(world.merchant_id),
                NewPayout(f"r{number}", Decimal("1000.00"), "BANK", bank, None, account, None, {}, requires_approval=False),
            )
            for number in range(5)
        ]
        responses = await asyncio.gather(*(work.submit(command) for command in commands))
        assert [response.status for response in responses] == [201] * 5
        assert [len(unit.created) for unit in units] == [5]
        assert await available(world) == Decimal("1000.00")
