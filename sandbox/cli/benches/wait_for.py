"""`psp bench wait-for`: measure how soon held requests get their response after their payouts are paid, at a steady rate.

For each payout, a request waits from its creation. The scenario delays the payment so that `held` requests are open at any
time.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
import uvloop

from sandbox.cli.benches.connections import Connections
from sandbox.cli.benches.database import Database
from sandbox.cli.benches.machine import Machine, describe_machine
from sandbox.cli.benches.pacer import Pacer
from sandbox.cli.benches.result import COUNT, SHORTFALL, Figure, Progress, Result, cpu_figures, latency_figures
from sandbox.cli.benches.stack import BenchError, Merchant, Stack, call, check_audit, create_merchant

_TIMEOUT = 30
MAX_SECONDS = 20.0
"""Maximum delay of a payment. Even on a slow machine, the payment must happen before the held request times out."""
_REASONS_KEPT = 5


class _Payout(msgspec.Struct):
    id: str
    status: str
    updated_at: datetime


_decode = msgspec.json.Decoder(_Payout).decode


@dataclass(slots=True)
class _Responses:
    paid: int = 0
    late_seconds: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def record(self, status: int, body: bytes) -> None:
        now = time.time()
        try:
            payout = _decode(body) if status == 200 else None
        except msgspec.MsgspecError:
            payout = None
        if payout is None or payout.status != "SUCCESS":
            self.fail(f"{status or 'no response'}: {body[:300].decode('utf-8', 'replace')}")
            return
        self.paid += 1
        self.late_seconds.append(now - payout.updated_at.timestamp())

    def fail(self, reason: str) -> None:
        if len(self.reasons) < _REASONS_KEPT:
            self.reasons.append(reason)


@dataclass(frozen=True, slots=True)
class WaitForBench:
    """The options of the bench: `rate` creates per second until `held` requests are held, then for `seconds` more."""

    stack: Stack
    rate: int
    seconds: int
    held: int
    connections: int
    progress: Progress = field(default_factory=Progress)

    @property
    def delay(self) -> float:
        """Seconds from the start of a payout's processing to its payment."""
        return self.held / self.rate

    def run(self) -> Result:
        """Measure. Raises BenchError if a create fails. A response without SUCCESS is part of the result."""
        if self.delay > MAX_SECONDS:
            raise BenchError(
                f"At {self.rate} creates per second, at most {round(self.rate * MAX_SECONDS):,} can be held; "
                "lower --held or raise --rate."
            )
        self.progress.expect(round(self.delay) + self.seconds)
        machine = describe_machine(Database(self.stack.database_url).version)
        merchant = create_merchant(self.stack, "bench wait-for")
        rule = {
            "name": "bench",
            "match": {"suffix": "0001"},
            "steps": [{"to": "PROCESSING"}, {"to": "SUCCESS", "after": self.delay}],
        }
        call(self.stack, "POST", "/sandbox/v1/scenarios", {"X-API-KEY": merchant.api_key}, rule)
        return uvloop.run(self._measure(machine, merchant))

    async def _measure(self, machine: Machine, merchant: Merchant) -> Result:
        responses = _Responses()
        waiters = _Waiters(self.stack, merchant, responses)
        pacer = Pacer(self.stack, [merchant], self.connections, waiters.wait)
        ticker = asyncio.create_task(self.progress.tick(f"{self.rate} creates per second", round(self.delay) + self.seconds))
        try:
            await pacer.open()
            with self.stack.cpu() as cpu:
                await pacer.run(self.rate, self.delay + self.seconds)
                await pacer.wait_for_responses(_TIMEOUT)
                self.progress("waiting for the last responses")
                await waiters.wait_for_responses(self.delay + _TIMEOUT)
        finally:
            ticker.cancel()
            await pacer.close()
            await waiters.close()
        pacer.sent.check()
        if not responses.late_seconds:
            raise BenchError(f"None of the held requests got a valid response: {'; '.join(responses.reasons)}")
        await asyncio.to_thread(check_audit, self.stack, merchant)
        sent = len(pacer.sent.payouts)
        counts = {"rate": self.rate, "sent": sent, "held": waiters.max_held, "answered": responses.paid}
        missing = sent - responses.paid
        figures = [Figure(name, [count], COUNT) for name, count in counts.items()]
        figures += [Figure("missing", [missing], SHORTFALL), *latency_figures(responses.late_seconds)]
        return Result(
            machine=machine,
            figures=figures + cpu_figures("payout", [cpu.micros_per(sent)]),
            missing=missing,
            notes=["The audit is clean.", *(f"failed: {reason}" for reason in responses.reasons)],
        )


class _Waiters:
    """Holds a request for each payout, over as many connections as needed."""

    def __init__(self, stack: Stack, merchant: Merchant, responses: _Responses) -> None:
        self._responses = responses
        self.held = 0
        self.max_held = 0
        self._connections = Connections(stack.api_url)
        self._none_held = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()
        self._tail = f"?wait_for=SUCCESS&timeout={_TIMEOUT} HTTP/1.1\r\nHost: {self._connections.host}\r\n"
        self._tail += f"X-API-KEY: {merchant.api_key}\r\n\r\n"

    def wait(self, payout_id: str) -> None:
        """Hold a request for the payout."""
        self.held += 1
        self.max_held = max(self.max_held, self.held)
        request = f"GET /api/v1/payouts/{payout_id}{self._tail}".encode()
        if self._connections.free:
            self._connections.free.popleft().send(request, self._on_response)
            return
        task = asyncio.create_task(self._open(request))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def wait_for_responses(self, seconds: float) -> None:
        """Wait up to `seconds` until no request is held. Record requests without a response as failed."""
        self._none_held.clear()
        if self.held:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._none_held.wait(), seconds)
        if self.held:
            self._responses.fail(f"{self.held} had no response after another {seconds:.0f} seconds")

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*self._opening)
        await self._connections.close()

    async def _open(self, request: bytes) -> None:
        try:
            connection = await self._connections.open()
        except OSError as error:
            self._on_response(0, f"no connection: {error}".encode())
        else:
            connection.send(request, self._on_response)

    def _on_response(self, status: int, body: bytes) -> None:
        self.held -= 1
        if not self.held:
            self._none_held.set()
        self._responses.record(status, body)
