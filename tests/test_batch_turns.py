"""Whose turn it is: no merchant waits for more rounds than stated, however busy the others are."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil

from sandbox.domain.unit import NO_NEEDS, Command, CommandResult, Needs, RequestContext, UnitOfWork
from sandbox.unit_of_work.batches import ROUNDS, Batches
from tests.harness.work import request_of

AT_ONCE = 64
DONE = CommandResult(200, b"done")


@dataclass
class Idle:
    """A command that no database sees."""

    context: RequestContext
    needs: Needs = NO_NEEDS

    def decide(self, unit: UnitOfWork) -> CommandResult:
        return DONE


@dataclass
class Rounds:
    """Batches whose rounds are only recorded: how many commands of which merchant each had."""

    rounds: list[dict[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.batches = Batches(self._together, self._alone, batch_limit=256, queue_limit=100_000, merchants_at_once=AT_ONCE)

    async def _together(self, commands: Mapping[str, Sequence[Command]]) -> Mapping[str, Sequence[CommandResult]]:
        self.rounds.append({merchant_id: len(batch) for merchant_id, batch in commands.items()})
        await asyncio.sleep(0)
        return {merchant_id: [DONE] * len(batch) for merchant_id, batch in commands.items()}

    async def _alone(self, merchant_id: str, commands: Sequence[Command]) -> Sequence[CommandResult]:
        return (await self._together({merchant_id: commands}))[merchant_id]

    def of(self, merchant_id: str) -> list[int]:
        """Return the numbers of the merchant's rounds."""
        return [number for number, batches in enumerate(self.rounds) if merchant_id in batches]


async def test_a_hot_merchant_and_a_thousand_quiet_ones_all_get_their_turns() -> None:
    """Each merchant that waits has a batch in one of the next ⌈M / merchants_at_once⌉ rounds, again and again."""
    rounds = Rounds()
    quiet = [f"quiet {number}" for number in range(1000)]

    async def ask(merchant_id: str) -> None:
        for _ in range(5):
            await rounds.batches.submit(Idle(request_of(merchant_id)))

    hot = [rounds.batches.submit(Idle(request_of("hot"))) for _ in range(10_000)]
    await asyncio.gather(*hot, *map(ask, quiet))
    bound = ceil((1 + len(quiet)) / AT_ONCE)
    for merchant_id in ("hot", *quiet):
        taken = rounds.of(merchant_id)
        assert taken[0] < bound
        # A merchant waits again when its round ends. By then, the other rounds that run at once may have begun.
        assert max(after - before for before, after in pairwise(taken)) <= bound + ROUNDS - 1
    assert all(len(batches) == AT_ONCE for batches in rounds.rounds[: bound - 1]), "no round has room left while others wait"


async def test_merchants_that_a_heavy_command_displaced_come_first_in_the_next_round() -> None:
    """Newcomers do not overtake them, so a merchant waits for as many rounds as there were merchants before it, at most."""
    rounds = Rounds()
    heavy = Needs(weight=256)
    asked = [f"merchant {number}" for number in range(12)]
    pending: list[asyncio.Future[CommandResult]] = []

    def ask(merchant_id: str) -> None:
        pending.append(asyncio.ensure_future(rounds.batches.submit(Idle(request_of(merchant_id), heavy))))

    for number, merchant_id in enumerate(asked):
        ask(merchant_id)
        if number >= 5:  # from then on, one arrives in each round
            await asyncio.wait(pending[: number - 4])
    await asyncio.gather(*pending)
    assert [list(batches) for batches in rounds.rounds] == [[merchant_id] for merchant_id in asked]
