"""Queue commands and run them in shared transactions ("rounds"), whichever merchants they are for.

There is no timer: while one round commits, the next one fills.

A merchant has at most one batch running in this process, so its commands run in order of arrival. Merchants take turns: with
M merchants waiting, each gets a batch in one of the next ⌈M / merchants_at_once⌉ rounds. A busy merchant gets the capacity that
the others leave. Batches of payouts can fill a round before all its merchants have had their turn. The others then come
first in the next round, so each merchant always gets a batch in one of the next M rounds.

While several merchants wait, rounds are short (CONTENDED_LIMIT), so that none waits for long. Merchants that have used much
less than the others lately have separate rounds, so they do not wait for the others' commands. Then the others have one
round at a time, which leaves a core to them.

A large command (of more than LARGE_BATCH payouts) runs in a separate transaction, and one of them at a time, so that it
delays other merchants' rounds as little as possible. Merchants take turns at this too. While there are light merchants, the
process pauses after each of them.

A merchant that is locked elsewhere leaves its round and runs on its own, in turns (lock_turns.py).
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from asyncpg import LockNotAvailableError

from sandbox.domain.errors import Problem
from sandbox.domain.unit import Command, CommandResult
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS
from sandbox.infrastructure.large_work import LARGE_BATCH, too_many_waiting
from sandbox.infrastructure.metrics import BATCH_MERCHANTS, BATCH_SIZE
from sandbox.infrastructure.tasks import begin_task, retrieve_error
from sandbox.unit_of_work.in_flight import release, reserve
from sandbox.unit_of_work.light_merchants import Use
from sandbox.unit_of_work.lock_turns import LockTurns
from sandbox.unit_of_work.transaction import with_retries

RunBatches = Callable[[Mapping[str, Sequence[Command]]], Awaitable[Mapping[str, Sequence[CommandResult]]]]
"""Run the batches of several merchants in one transaction. Skips merchants that are locked elsewhere or were deleted.

Waits LOCK_TURN seconds for any other lock, then raises LockNotAvailableError."""
RunBatch = Callable[[str, Sequence[Command]], Awaitable[Sequence[CommandResult]]]
"""Run one merchant's batch in its own transaction. Waits LOCK_TURN seconds for a lock, then raises LockNotAvailableError."""

ROUNDS: Final = 2
"""Number of rounds running at the same time. While PostgreSQL works on one, Python prepares the other."""
CONTENDED_LIMIT: Final = 32
"""Maximum cost of a round if several merchants wait, unless there are more merchants than that."""
LIGHT_LIMIT: Final = 16
"""The same while there are light merchants. Shorter rounds delay them less, but cost more CPU time per command."""
_BYTES_PER_COST: Final = 1024
"""A command costs its weight, and one more for every so many bytes of its body."""
_MAX_PAUSE: Final = 0.5
"""Maximum number of seconds between two large commands. The pause is as long as the first one took."""
_SLOT_TIMEOUT: Final = 0.05
"""Seconds after which a round that waits for a lock no longer delays the next round."""
_log = structlog.get_logger()


@dataclass(slots=True)
class _QueuedCommand:
    command: Command
    weight: int
    result: "asyncio.Future[CommandResult]"

    @property
    def cost(self) -> int:
        """How long it takes, approximately. A plain create costs 1."""
        return self.weight + self.command.context.body_bytes // _BYTES_PER_COST

    @property
    def is_large(self) -> bool:
        return self.weight > LARGE_BATCH


_Batch = list[_QueuedCommand]


class Batches:
    """The command queues of one process.

    `queue_limit` is the total weight for which there is room. A merchant may have commands of as much weight as is left free,
    so a single merchant can use half of the room, and two of them a third each. An empty queue takes any command.
    """

    def __init__(
        self,
        run_shared: RunBatches,
        run_solo: RunBatch,
        batch_limit: int,
        queue_limit: int,
        merchants_at_once: int,
        turns: LockTurns,
        shard_of: Callable[[str], Hashable] = lambda _: None,
    ) -> None:
        """A transaction is for merchants of one shard. `shard_of` returns a merchant's shard."""
        self._run_shared = run_shared
        self._run_solo = run_solo
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._merchants_at_once = merchants_at_once
        self._turns = turns
        self._shard_of = shard_of
        self._queues: dict[str, deque[_QueuedCommand]] = {}
        """The queued commands of each merchant that has any queued or running."""
        self._ready: deque[str] = deque()
        """Merchants with queued commands and none running, in the order of their turns."""
        self._ready_light: deque[str] = deque()
        """Light merchants with queued commands and none running, in the order of their turns, which come first."""
        self._use = Use()
        self._weights: Counter[str] = Counter()
        """The weight of each merchant's queued and running commands."""
        self._total_weight = 0
        self._rounds = 0
        self._light_round = False
        """Whether a round of light merchants runs."""
        self._dispatch_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, command: Command) -> CommandResult:
        """Queue the command behind its merchant's other commands, and return its result.

        Raises IDEMPOTENCY_KEY_IN_FLIGHT if a request with its key is in progress in this process, RATE_LIMITED if the
        merchant's queue is full, and UNAVAILABLE if PostgreSQL is unavailable. Cancelling the caller does not cancel the
        command: it still commits or fails.
        """
        merchant_id, weight = command.context.merchant_id, command.needs.weight
        own = self._weights[merchant_id]
        if own and own + weight > self._queue_limit - self._total_weight:
            raise too_many_waiting()
        reserve(merchant_id, command.context.key)
        future: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        # Even if the caller is cancelled, the key stays reserved until the batch ends.
        future.add_done_callback(retrieve_error)
        self._weights[merchant_id] += weight
        self._total_weight += weight
        queued = _QueuedCommand(command, weight, future)
        queue = self._queues.get(merchant_id)
        if queue is None:
            self._queues[merchant_id] = deque((queued,))
            self._make_ready(merchant_id)
        else:
            queue.append(queued)
        # Cancelling the caller cancels only this future: the command stays in its queue or its round.
        return await future

    async def close(self) -> None:
        """Wait until all accepted commands are committed or refused."""
        while self._queues:
            self._dispatch()
            await asyncio.wait(self._tasks)

    def _make_ready(self, merchant_id: str) -> None:
        """Begin the merchant's next command if it is large; otherwise queue the merchant for a turn."""
        queue = self._queues[merchant_id]
        if queue[0].is_large:
            large = queue.popleft()
            self._use.add(merchant_id, large.cost)
            begin_task(self._tasks, self._run_alone(merchant_id, [large]))
        else:
            self._ready_queue_of(merchant_id).append(merchant_id)
            self._dispatch_soon()

    def _ready_queue_of(self, merchant_id: str) -> deque[str]:
        return self._ready_light if self._use.is_light(merchant_id) else self._ready

    def _dispatch_soon(self) -> None:
        """Start a round after this iteration of the event loop, so that commands arriving together run together."""
        if not self._dispatch_scheduled:
            self._dispatch_scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_scheduled = False
        if self._ready_light and not self._light_round:
            self._light_round = True
            begin_task(self._tasks, self._run_round(self._next_round(self._ready_light), self._end_light_round))
        while self._ready and self._rounds < (1 if self._use.has_light else ROUNDS):
            self._rounds += 1
            begin_task(self._tasks, self._run_round(self._next_round(self._ready), self._end_round))

    def _next_round(self, ready: deque[str]) -> dict[str, _Batch]:
        """Return the batches of the merchants whose turn it is: a fair share each, then what capacity remains, in order."""
        turn = self._next_turn(ready)
        limit = self._batch_limit
        if len(turn) > 1:
            contended = LIGHT_LIMIT if self._use.has_light else CONTENDED_LIMIT
            limit = min(limit, max(contended, len(turn)))
        share = max(1, limit // len(turn))
        batches: dict[str, _Batch] = {}
        total = 0
        for merchant_id in turn:
            if total >= limit:  # a heavy command took more than its share
                ready.extendleft(reversed(turn[len(batches) :]))
                break
            batches[merchant_id] = []
            total += self._fill(merchant_id, batches[merchant_id], share)
        for merchant_id, batch in batches.items():
            total += self._fill(merchant_id, batch, limit - total)
            self._use.add(merchant_id, sum(queued.cost for queued in batch))
        BATCH_SIZE.labels("api").observe(sum(queued.weight for batch in batches.values() for queued in batch))
        return batches

    def _next_turn(self, ready: deque[str]) -> list[str]:
        """Remove from the queue the first merchant and the next ones of its shard, and return them."""
        shard = self._shard_of(ready[0])
        turn: list[str] = []
        skipped: list[str] = []
        while ready and len(turn) < self._merchants_at_once:
            merchant_id = ready.popleft()
            (turn if self._shard_of(merchant_id) == shard else skipped).append(merchant_id)
        ready.extendleft(reversed(skipped))
        return turn

    def _fill(self, merchant_id: str, batch: _Batch, capacity: int) -> int:
        """Move queued commands into the batch while they fit, but always one into an empty batch. Return their cost."""
        queue, taken = self._queues[merchant_id], 0
        while queue and not queue[0].is_large and (not batch or taken + queue[0].cost <= capacity):
            queued = queue.popleft()
            taken += queued.cost
            batch.append(queued)
        return taken

    async def _run_round(self, batches: dict[str, _Batch], on_end: Callable[[], None]) -> None:
        slot = _Slot(on_end)
        try:
            first = next(iter(batches))
            if len(batches) == 1 and not self._turns.are_taken(first):
                ((merchant_id, batch),) = batches.items()
                batches.clear()
                await self._run_alone(merchant_id, batch)
            else:
                left = await self._run_together(batches)
                for merchant_id in left:
                    begin_task(self._tasks, self._run_alone(merchant_id, batches.pop(merchant_id)))
        finally:
            for merchant_id, batch in batches.items():
                self._end_batch(merchant_id, batch)
            slot.end()

    async def _run_together(self, batches: Mapping[str, _Batch]) -> list[str]:
        """Run a round in one transaction. Return the merchants that must run on their own: locked, deleted, or failing."""
        commands = {merchant_id: [queued.command for queued in batch] for merchant_id, batch in batches.items()}
        retry_safe = {merchant_id for merchant_id, batch in commands.items() if _is_retry_safe(batch)}

        async def run() -> Mapping[str, Sequence[CommandResult]]:
            try:
                return await self._run_shared(commands)
            except LockNotAvailableError:
                # The transaction was rolled back. A retry would hold up all these merchants once more.
                return {}

        try:
            results = await with_retries(run, retry_safe=len(retry_safe) == len(batches))
        except Problem as problem:
            if not isinstance(problem.__cause__, CONNECTION_ERRORS):
                return list(batches)
            # The transaction may have committed. Never repeat commands without a key.
            for merchant_id, batch in batches.items():
                if merchant_id not in retry_safe:
                    _fail(batch, problem)
            return [merchant_id for merchant_id in batches if merchant_id in retry_safe]
        except Exception:
            # Rolled back. Rerun each merchant on its own, so that the failing one does not affect the others.
            _log.warning("round_failed", merchants=len(batches), exc_info=True)
            return list(batches)
        if results:
            BATCH_MERCHANTS.labels("api").observe(len(results))
        for merchant_id, decided in results.items():
            _set_results(batches[merchant_id], decided)
        return [merchant_id for merchant_id in batches if merchant_id not in results]

    async def _run_alone(self, merchant_id: str, batch: _Batch) -> None:
        """Run a merchant's batch in separate transactions, then end the batch."""
        try:
            await self._run_in_halves(merchant_id, batch)
        finally:
            self._end_batch(merchant_id, batch)

    async def _run_in_halves(self, merchant_id: str, batch: _Batch) -> None:
        """Run a batch. If it fails because of its data, split it in half until the failing command is isolated."""
        commands = [queued.command for queued in batch]

        async def run_solo() -> Sequence[CommandResult]:
            clock = asyncio.get_running_loop().time
            started = clock()
            results = await self._run_solo(merchant_id, commands)
            if batch[0].is_large and self._use.has_light:
                _set_results(batch, results)
                await asyncio.sleep(min(clock() - started, _MAX_PAUSE))  # before the next one has its turn
            return results

        async def run() -> Sequence[CommandResult]:
            return await self._turns.run(merchant_id, run_solo, is_large=batch[0].is_large)

        try:
            results = await with_retries(run, retry_safe=_is_retry_safe(commands))
        except Problem as problem:
            if isinstance(problem.__cause__, CONNECTION_ERRORS):
                _log.warning("batch_interrupted", merchant_id=merchant_id, size=len(batch), error=repr(problem.__cause__)[:300])
            _fail(batch, problem)
        except Exception as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._run_in_halves(merchant_id, batch[:middle])
                await self._run_in_halves(merchant_id, batch[middle:])
                return
            _log.exception("command_failed", merchant_id=merchant_id, request_id=commands[0].context.request_id)
            _fail(batch, error)
        else:
            BATCH_MERCHANTS.labels("api").observe(1)
            _set_results(batch, results)

    def _end_batch(self, merchant_id: str, batch: _Batch) -> None:
        """Release the keys of a finished batch, and queue its merchant for another turn if it has more commands."""
        for queued in batch:
            self._weights[merchant_id] -= queued.weight
            self._total_weight -= queued.weight
            release(merchant_id, queued.command.context.key)
        if self._queues[merchant_id]:
            self._make_ready(merchant_id)
        else:
            del self._queues[merchant_id], self._weights[merchant_id]

    def _end_round(self) -> None:
        self._rounds -= 1
        self._dispatch()

    def _end_light_round(self) -> None:
        self._light_round = False
        self._dispatch()


class _Slot:
    """A place for a round. Freed when the round ends or has waited for too long, whichever comes first."""

    def __init__(self, free: Callable[[], None]) -> None:
        self._free: Callable[[], None] | None = free
        self._timer = asyncio.get_running_loop().call_later(_SLOT_TIMEOUT, self.end)

    def end(self) -> None:
        """Free the slot, once."""
        self._timer.cancel()
        if self._free is not None:
            free, self._free = self._free, None
            free()


def _is_retry_safe(commands: Sequence[Command]) -> bool:
    """Return whether all commands have keys. A key reveals whether its command has committed before."""
    return all(command.context.key is not None for command in commands)


def _set_results(batch: _Batch, results: Sequence[CommandResult]) -> None:
    for queued, result in zip(batch, results, strict=True):
        if not queued.result.done():
            queued.result.set_result(result)


def _fail(batch: _Batch, error: Exception) -> None:
    for queued in batch:
        if not queued.result.done():
            queued.result.set_exception(error)
