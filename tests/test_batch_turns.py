"""No merchant waits for more rounds than the documented bound, however busy the others are."""

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil

import msgspec
import pytest
from asyncpg import LockNotAvailableError

from sandbox.domain.errors import Problem
from sandbox.domain.unit import NO_NEEDS, Command, CommandResult, IdempotencyKey, Needs, RequestContext, UnitOfWork
from sandbox.infrastructure.large_work import LARGE_BATCH
from sandbox.unit_of_work import lock_turns
from sandbox.unit_of_work.batches import ROUNDS, Batches
from sandbox.unit_of_work.lock_turns import LockTurns
from tests.harness.work import request_of

AT_ONCE = 64
DONE = CommandResult(200, b"done")


pytestmark = pytest.mark.usefixtures("no_light_merchant_was_found")


@dataclass
class Idle:
    """A command that changes nothing."""

    context: RequestContext
    needs: Needs = NO_NEEDS

    def decide(self, unit: UnitOfWork) -> CommandResult:
        return DONE


@dataclass
class Rounds:
    """Batches that use no database. They record for each round how many commands of each merchant it had."""

    rounds: list[dict[str, int]] = field(default_factory=list)
    shard_of: Callable[[str], Hashable] = lambda _: None

    def __post_init__(self) -> None:
        self.batches = Batches(
            self._run_shared, self._run_solo, batch_limit=256, queue_limit=100_000, merchants_at_once=AT_ONCE,
            turns=LockTurns(lambda _: None), shard_of=self.shard_of,
        )  # fmt: skip

    async def _run_shared(self, commands: Mapping[str, Sequence[Command]]) -> Mapping[str, Sequence[CommandResult]]:
        self.rounds.append({merchant_id: len(batch) for merchant_id, batch in commands.items()})
        await asyncio.sleep(0)
        return {merchant_id: [DONE] * len(batch) for merchant_id, batch in commands.items()}

    async def _run_solo(self, merchant_id: str, commands: Sequence[Command]) -> Sequence[CommandResult]:
        return (await self._run_shared({merchant_id: commands}))[merchant_id]

    def of(self, merchant_id: str) -> list[int]:
        """Return the numbers of the merchant's rounds."""
        return [number for number, batches in enumerate(self.rounds) if merchant_id in batches]


async def test_a_busy_merchant_and_a_thousand_quiet_ones_all_make_progress() -> None:
    """With M merchants waiting, each one always gets a batch in one of the next ⌈M / merchants_at_once⌉ rounds."""
    rounds = Rounds()
    quiet = [f"quiet {number}" for number in range(1000)]

    async def submit_five(merchant_id: str) -> None:
        for _ in range(5):
            await rounds.batches.submit(Idle(request_of(merchant_id)))

    busy = [rounds.batches.submit(Idle(request_of("busy"))) for _ in range(10_000)]
    await asyncio.gather(*busy, *map(submit_five, quiet))
    bound = ceil((1 + len(quiet)) / AT_ONCE)
    for merchant_id in ("busy", *quiet):
        taken = rounds.of(merchant_id)
        assert taken[0] < bound
        # A merchant queues again when its round ends. By then, the other rounds of the same time may have begun.
        assert max(after - before for before, after in pairwise(taken)) <= bound + ROUNDS - 1
    assert all(len(batches) == AT_ONCE for batches in rounds.rounds[: bound - 1]), (
        "no round may leave capacity unused while merchants wait"
    )


async def test_a_round_has_merchants_of_one_shard_and_no_shard_waits_for_long() -> None:
    """On a distributed database, a transaction cannot write rows of two shards."""
    rounds = Rounds(shard_of=lambda merchant_id: merchant_id.partition(" ")[0])
    merchants = [f"{shard} {number}" for number in range(200) for shard in ("a", "b", "c")]
    await asyncio.gather(*(rounds.batches.submit(Idle(request_of(merchant_id))) for merchant_id in merchants))
    shards = [{merchant_id.partition(" ")[0] for merchant_id in batches} for batches in rounds.rounds]
    assert all(len(found) == 1 for found in shards)
    assert sum(len(batches) for batches in rounds.rounds) == len(merchants)
    assert len(rounds.rounds) == 3 * ceil(200 / AT_ONCE), "no round may leave capacity unused while merchants of its shard wait"
    assert set().union(*shards[:3]) == {"a", "b", "c"}


async def test_merchants_displaced_by_a_heavy_command_come_first_in_the_next_round() -> None:
    """Later merchants do not overtake them, so a merchant waits for at most one round for each merchant before it."""
    rounds = Rounds()
    heavy = Needs(weight=256)
    merchants = [f"merchant {number}" for number in range(12)]
    pending: list[asyncio.Future[CommandResult]] = []

    def submit(merchant_id: str) -> None:
        pending.append(asyncio.ensure_future(rounds.batches.submit(Idle(request_of(merchant_id), heavy))))

    for number, merchant_id in enumerate(merchants):
        submit(merchant_id)
        if number >= 5:  # from then on, one arrives in each round
            await asyncio.wait(pending[: number - 4])
    await asyncio.gather(*pending)
    assert [list(batches) for batches in rounds.rounds] == [[merchant_id] for merchant_id in merchants]


async def test_a_light_merchant_does_not_wait_for_the_rounds_of_busy_ones() -> None:
    """It has a round of its own, and the busy ones then have one at a time. A create with a large body counts as several."""
    started: asyncio.Queue[str] = asyncio.Queue()
    may_end = asyncio.Event()

    async def run(merchant_id: str, commands: Sequence[Command]) -> list[CommandResult]:
        started.put_nowait(merchant_id)
        await may_end.wait()
        return [CommandResult(200, b"")] * len(commands)

    async def run_shared(batches: Mapping[str, Sequence[Command]]) -> dict[str, list[CommandResult]]:
        return {merchant_id: await run(merchant_id, commands) for merchant_id, commands in batches.items()}

    batches = Batches(run_shared, run, 64, 200, 1, LockTurns(lambda _: None), lambda _: None)

    def submit(merchant_id: str, body_bytes: int) -> asyncio.Task[CommandResult]:
        context = msgspec.structs.replace(request_of(merchant_id), body_bytes=body_bytes)
        return asyncio.create_task(batches.submit(Idle(context)))

    async def begun(count: int) -> set[str]:
        async with asyncio.timeout(10):
            return {await started.get() for _ in range(count)}

    busy = {f"busy {number}" for number in range(ROUNDS + 1)}
    may_end.set()
    await asyncio.gather(*(submit(merchant_id, 10_000) for merchant_id in busy), submit("light", 100))
    assert await begun(ROUNDS + 2) == busy | {"light"}
    may_end.clear()
    tasks = [submit(merchant_id, 10_000) for merchant_id in busy]
    assert await begun(ROUNDS) < busy
    tasks.append(submit("light", 100))
    assert await begun(1) == {"light"}
    may_end.set()
    await asyncio.gather(*tasks)
    assert started.qsize() == len(tasks) - ROUNDS - 1
    await begun(started.qsize())
    may_end.clear()
    tasks = [submit("light", 100), *(submit(merchant_id, 10_000) for merchant_id in busy)]
    assert len(await begun(2) & busy) == 1
    await asyncio.sleep(0)
    assert started.empty(), "a second round of busy merchants began"
    may_end.set()
    await asyncio.gather(*tasks)


async def test_while_there_are_light_merchants_the_process_pauses_after_each_large_command() -> None:
    """The results do not wait for the pause."""
    clock = asyncio.get_running_loop().time
    spans: list[tuple[float, float]] = []

    async def run(merchant_id: str, commands: Sequence[Command]) -> list[CommandResult]:
        started = clock()
        await asyncio.sleep(0.02)
        if merchant_id != "light":
            spans.append((started, clock()))
        return [DONE] * len(commands)

    async def run_shared(batches: Mapping[str, Sequence[Command]]) -> dict[str, list[CommandResult]]:
        return {merchant_id: [DONE] * len(commands) for merchant_id, commands in batches.items()}

    batches = Batches(run_shared, run, 64, 1000, AT_ONCE, LockTurns(lambda _: None), lambda _: None)
    large = [batches.submit(Idle(request_of(f"busy {number}"), Needs(weight=LARGE_BATCH + 1))) for number in range(2)]
    assert await asyncio.gather(*large, batches.submit(Idle(request_of("light")))) == [DONE] * 3
    (started, ended), (next_started, _) = spans
    assert next_started - ended >= (ended - started) * 0.9, "the second one did not wait for as long as the first one took"
    await batches.close()


async def test_a_batch_whose_merchant_stays_locked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps taking turns until the time limit. Then the command gets UNAVAILABLE and releases its key."""
    outcomes: list[Exception | None] = [LockNotAvailableError(), LockNotAvailableError(), None]

    async def run_shared(_: Mapping[str, Sequence[Command]]) -> Mapping[str, Sequence[CommandResult]]:
        return {}

    async def run_solo(_: str, commands: Sequence[Command]) -> Sequence[CommandResult]:
        if (error := outcomes.pop(0)) is not None:
            raise error
        return [DONE] * len(commands)

    loop = Batches(
        run_shared, run_solo, batch_limit=256, queue_limit=100, merchants_at_once=AT_ONCE, turns=LockTurns(lambda _: None)
    )
    command = Idle(request_of("locked", IdempotencyKey("k", b"f" * 32)))
    assert await loop.submit(command) == DONE
    monkeypatch.setattr(lock_turns, "_MAX_LOCK_SECONDS", 0.0)
    for _ in range(2):
        outcomes[:] = [LockNotAvailableError()]
        with pytest.raises(Problem, match="UNAVAILABLE"):
            await loop.submit(command)
    assert not outcomes
