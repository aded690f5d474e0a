"""`psp bench e2e`: measure the time from a create to its webhooks, at a steady rate."""

import asyncio
import re
import time
from dataclasses import dataclass, field
from math import inf

import uvloop

from sandbox.cli.benches.database import Database
from sandbox.cli.benches.load import create_endpoints, top_rate
from sandbox.cli.benches.machine import Machine, describe_machine
from sandbox.cli.benches.pacer import Sent, send_creates
from sandbox.cli.benches.receiver import Received, Receiver
from sandbox.cli.benches.result import (
    COUNT,
    MS,
    OTHER,
    SHORTFALL,
    Figure,
    Progress,
    Result,
    cpu_figures,
    latency_figures,
    percentile,
)
from sandbox.cli.benches.stack import BenchError, Stack, check_audit, create_merchant

EXPECTED = ("payout.created", "payout.processing", "payout.succeeded")
GRACE_SECONDS = 1.0
_WARM_UP_SECONDS = 1.0
_WARM_UP_RATE = 100
MAX_PER_SECOND = 100_000
_FRACTION = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)x", re.ASCII)
_NUMBER = re.compile(r"\d{1,6}", re.ASCII)
MAX_FRACTION = 2.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Creates per second: an absolute number, or a fraction of the top rate."""

    value: float
    is_fraction: bool = False

    def per_second(self, stack: Stack, connections: int, merchants: int) -> int:
        """Return the absolute rate. For a fraction, measure the top rate first. Raises BenchError."""
        if not self.is_fraction:
            return round(self.value)
        return max(1, round(self.value * top_rate(stack, connections, merchants)))


def parse_rate(text: str) -> Rate:
    """Parse a rate: `200`, or `0.5x` for half of the top rate. Raises ValueError."""
    if (fraction := _FRACTION.fullmatch(text)) and 0 < float(fraction[1]) <= MAX_FRACTION:
        return Rate(float(fraction[1]), is_fraction=True)
    if _NUMBER.fullmatch(text) and 1 <= int(text) <= MAX_PER_SECOND:
        return Rate(int(text))
    raise ValueError(
        f"{text!r} is not a rate. Give creates per second, 1 to {MAX_PER_SECOND}, or a fraction of the top rate, "
        f"such as 0.5x, up to {MAX_FRACTION:.0f}x."
    )


@dataclass(frozen=True, slots=True)
class E2eBench:
    """The options of the bench: send `rate` creates per second for `seconds`, then wait up to `drain` seconds for events."""

    stack: Stack
    rate: Rate
    seconds: int
    connections: int
    drain: float
    merchants: int = 1
    webhooks: int = 1
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if a create is refused or a signature is wrong. Missing events are part of the result."""
        self.progress.expect(self.seconds)
        database = Database(self.stack.database_url)
        machine = describe_machine(database.version)
        if self.rate.is_fraction:
            self.progress("measuring the top rate")
        rate = self.rate.per_second(self.stack, self.connections, self.merchants)
        return uvloop.run(self._measure(machine, database, rate))

    async def _measure(self, machine: Machine, database: Database, rate: int) -> Result:
        received = Received()
        receiver = Receiver(received)
        try:
            url = await receiver.open()
            merchants = [await asyncio.to_thread(create_merchant, self.stack, "bench e2e") for _ in range(self.merchants)]
            received.secrets |= await asyncio.to_thread(create_endpoints, self.stack, merchants, url, self.webhooks)
            self.progress("warming up")
            warm_up, _ = await send_creates(
                self.stack, merchants, self.connections, min(rate, _WARM_UP_RATE), _WARM_UP_SECONDS, self.drain
            )
            await self._wait_for_events(received, len(warm_up.payouts), self.drain)
            if missing := sum(_count_missing(warm_up, received, self.webhooks).values()):
                raise BenchError(f"{missing} webhooks of the warm-up did not arrive in time.")
            await asyncio.to_thread(database.analyze)
            received.arrived.clear()
            ticker = asyncio.create_task(self.progress.tick(f"{rate} creates per second", self.seconds))
            with self.stack.cpu() as cpu:
                try:
                    sent, ended = await send_creates(self.stack, merchants, self.connections, rate, self.seconds, self.drain)
                finally:
                    ticker.cancel()
                self.progress("waiting for the last events")
                await self._wait_for_events(received, len(sent.payouts), ended + self.drain - time.perf_counter())
        finally:
            await receiver.close()
        self.progress("auditing")
        for merchant in merchants:
            await asyncio.to_thread(check_audit, self.stack, merchant)
        figures = _figures(rate, sent, received, self.webhooks) + cpu_figures("payout", [cpu.micros_per(len(sent.payouts))])
        missing = sum(_count_missing(sent, received, self.webhooks).values())
        return Result(
            machine=machine, figures=figures, missing=missing, notes=["Every signature is valid. The audit is clean."]
        )

    async def _wait_for_events(self, received: Received, payouts: int, seconds: float) -> None:
        """Wait up to `seconds` for the webhooks of `payouts` payouts. Raises BenchError if a webhook was not valid."""
        # Poll, because setting an asyncio.Event for each of several thousand arrivals per second would cost time.
        deadline = time.perf_counter() + seconds
        while len(received.arrived) < payouts * len(EXPECTED) * self.webhooks:
            if time.perf_counter() > deadline:
                break
            await asyncio.sleep(0.02)
        received.check()


def _count_missing(sent: Sent, received: Received, webhooks: int, until: float = inf) -> dict[str, int]:
    """Return how many webhooks had not arrived by `until`, for each payout that lacked one."""
    arrived, expected = received.arrived, [(kind, str(endpoint)) for kind in EXPECTED for endpoint in range(webhooks)]
    counts = {payout: sum(arrived.get((payout, *key), inf) >= until for key in expected) for payout in sent.payouts}
    return {payout: count for payout, count in counts.items() if count}


def _figures(rate: int, sent: Sent, received: Received, webhooks: int) -> list[Figure]:
    """Return the counts and the latencies. Raises BenchError if other events arrived, or no payout was paid."""
    arrived = received.arrived
    unexpected = {key for key in arrived if key[1] not in EXPECTED or key[0] not in sent.payouts}
    if unexpected:
        raise BenchError(f"{len(unexpected)} unexpected events arrived, such as {next(iter(unexpected))}.")
    latencies = []
    for payout, at in sent.payouts.items():
        times = [arrived.get((payout, "payout.succeeded", str(endpoint)), inf) for endpoint in range(webhooks)]
        if max(times) < inf:
            latencies.append(max(times) - at)
    if not latencies:
        raise BenchError("No payout.succeeded event arrived.")
    last = max(sent.payouts.values())
    missing = _count_missing(sent, received, webhooks)
    counts = {"rate": rate, "sent": len(sent.payouts), "delivered": len(sent.payouts) - len(missing)}
    lacking = {
        "missing": sum(missing.values()),
        "behind": len(_count_missing(sent, received, webhooks, last)),
        "backlog": sum(_count_missing(sent, received, webhooks, last + GRACE_SECONDS).values()),
    }
    return [
        *(Figure(name, [count], COUNT) for name, count in counts.items()),
        *(Figure(name, [count], SHORTFALL) for name, count in lacking.items()),
        *latency_figures(latencies),
        *(Figure(f"response_p{percent}_ms", [percentile(sent.response_seconds, percent) * 1000], MS) for percent in (50, 99)),
        Figure("events", [len(arrived)], COUNT),
        Figure("duplicates", [received.duplicates], COUNT),
        Figure("drained_after_seconds", [max(0.0, max(arrived.values()) - last)], OTHER),
        Figure("generator_late_ms", [sent.max_lag_seconds * 1000], OTHER),
    ]
