"""`psp bench wait-for`: requests that are held until their payout is paid, while payouts run at a steady rate.

Each payout is waited for as soon as it is created, and is paid by its scenario so much later that `held` requests are held
at any moment.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
import uvloop

from sandbox.bench.connections import Connections
from sandbox.bench.database import Database
from sandbox.bench.e2e import percentile
from sandbox.bench.machine import Machine, look
from sandbox.bench.pacer import Pacer
from sandbox.bench.stack import BenchError, Merchant, Stack, ask, check_audit, create_merchant

_TIMEOUT = 30
LONGEST_SECONDS = 20.0
"""How long a payout may take: with what the machine adds it must be paid before a held request gives up."""
_REASONS_KEPT = 5


class _Payout(msgspec.Struct):
    id: str
    status: str
    updated_at: datetime


_decode = msgspec.json.Decoder(_Payout).decode


@dataclass(frozen=True, slots=True)
class WaitForResult:
    """How long after a payout was paid whoever waited for it knew."""

    machine: Machine
    rate: int
    sent: int
    """Payouts created, each of them waited for."""
    held: int
    """Requests held at one moment, at most."""
    answered: int
    """Those that were answered with the payout paid."""
    missing: int
    reasons: list[str]
    """What the first few were answered that were not, or why they were not answered at all."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    """From the transition, as the payout tells it, to the arrival of the answer."""
    cpu_us: Mapping[str, float]
    """CPU microseconds per payout by kind of process, the requests held for it included."""


@dataclass(slots=True)
class _Seen:
    answered: int = 0
    late_seconds: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def take(self, status: int, body: bytes) -> None:
        now = time.time()
        try:
            payout = _decode(body) if status == 200 else None
        except msgspec.MsgspecError:
            payout = None
        if payout is None or payout.status != "SUCCESS":
            self.fail(f"{status or 'no answer'}: {body[:300].decode('utf-8', 'replace')}")
            return
        self.answered += 1
        self.late_seconds.append(now - payout.updated_at.timestamp())

    def fail(self, reason: str) -> None:
        if len(self.reasons) < _REASONS_KEPT:
            self.reasons.append(reason)


@dataclass(frozen=True, slots=True)
class WaitForBench:
    """`rate` creates a second, until `held` requests are held and for `seconds` more."""

    stack: Stack
    rate: int
    seconds: int
    held: int
    connections: int
    progress: Callable[[str, int], None] = field(default=lambda what, done: None)

    @property
    def takes(self) -> float:
        """Seconds that a payout takes."""
        return self.held / self.rate

    @property
    def steps(self) -> int:
        """How much `progress` will be told of in all."""
        return round(self.takes) + self.seconds

    def run(self) -> WaitForResult:
        """Measure. Raises BenchError when a create fails; a request that is not answered with SUCCESS is a result."""
        if self.takes > LONGEST_SECONDS:
            raise BenchError(f"At {self.rate} a second at most {round(self.rate * LONGEST_SECONDS):,} can be held.")
        machine = look(Database(self.stack.database_url).version)
        merchant = create_merchant(self.stack, "bench wait-for")
        rule = {
            "name": "bench",
            "match": {"suffix": "0001"},
            "steps": [{"to": "PROCESSING"}, {"to": "SUCCESS", "after": self.takes}],
        }
        ask(self.stack, "POST", "/sandbox/v1/scenarios", {"X-API-KEY": merchant.api_key}, rule)
        return uvloop.run(self._measure(machine, merchant))

    async def _measure(self, machine: Machine, merchant: Merchant) -> WaitForResult:
        seen = _Seen()
        waiters = _Waiters(self.stack, merchant, seen)
        pacer = Pacer(self.stack, [merchant], self.connections, waiters.wait)
        ticker = asyncio.create_task(self._tick())
        try:
            await pacer.open()
            with self.stack.cpu() as cpu:
                await pacer.run(self.rate, self.takes + self.seconds)
                await pacer.answered(_TIMEOUT)
                self.progress("waiting for the last answers", 0)
                await waiters.answered(self.takes + _TIMEOUT)
        finally:
            ticker.cancel()
            await pacer.close()
            await waiters.close()
        if pacer.sent.failed:
            raise BenchError(f"{pacer.sent.failed} creates failed: {'; '.join(pacer.sent.reasons)}")
        if not seen.late_seconds:
            raise BenchError(f"Not one request that was held was answered: {'; '.join(seen.reasons)}")
        await asyncio.to_thread(check_audit, self.stack, merchant)
        sent = len(pacer.sent.payouts)
        return WaitForResult(
            machine=machine,
            rate=self.rate,
            sent=sent,
            held=waiters.most,
            answered=seen.answered,
            missing=sent - seen.answered,
            reasons=seen.reasons,
            p50_ms=percentile(seen.late_seconds, 50) * 1000,
            p95_ms=percentile(seen.late_seconds, 95) * 1000,
            p99_ms=percentile(seen.late_seconds, 99) * 1000,
            cpu_us=cpu.micros_per(sent),
        )

    async def _tick(self) -> None:
        for _ in range(self.steps):
            await asyncio.sleep(1)
            self.progress(f"{self.rate} creates a second", 1)


class _Waiters:
    """Holds a request for each payout, over as many connections as that takes."""

    def __init__(self, stack: Stack, merchant: Merchant, seen: _Seen) -> None:
        self._seen = seen
        self.held = 0
        self.most = 0
        self._connections = Connections(stack.api_url)
        self._none_held = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()
        self._tail = f"?wait_for=SUCCESS&timeout={_TIMEOUT} HTTP/1.1\r\nHost: {self._connections.host}\r\n"
        self._tail += f"X-API-KEY: {merchant.api_key}\r\n\r\n"

    def wait(self, payout_id: str) -> None:
        """Hold a request for the payout."""
        self.held += 1
        self.most = max(self.most, self.held)
        request = f"GET /api/v1/payouts/{payout_id}{self._tail}".encode()
        if self._connections.free:
            self._connections.free.popleft().send(request, self._ended)
            return
        task = asyncio.create_task(self._open(request))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def answered(self, seconds: float) -> None:
        """Wait until nothing is held any more, but so long at most; what is held then has no answer."""
        self._none_held.clear()
        if self.held:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._none_held.wait(), seconds)
        if self.held:
            self._seen.fail(f"{self.held} had no answer after {seconds:.0f} seconds more")

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*self._opening)
        await self._connections.close()

    async def _open(self, request: bytes) -> None:
        try:
            connection = await self._connections.open()
        except OSError as error:
            self._ended(0, f"no connection: {error}".encode())
        else:
            connection.send(request, self._ended)

    def _ended(self, status: int, body: bytes) -> None:
        self.held -= 1
        if not self.held:
            self._none_held.set()
        self._seen.take(status, body)
