"""`psp bench e2e`: measure the time from a create to its webhooks, at a steady rate."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf

import uvloop

from sandbox.bench.database import Database
from sandbox.bench.load import top_rate
from sandbox.bench.machine import Machine, describe_machine
from sandbox.bench.pacer import Pacer, Sent
from sandbox.bench.receiver import Received, Receiver
from sandbox.bench.stack import BenchError, Merchant, Stack, check_audit, create_endpoint, create_merchant
from sandbox.domain.webhook_signing import decode_secret

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
class E2eResult:
    """The result of the bench: what was sent, what arrived, and when."""

    machine: Machine
    rate: int
    sent: int
    """Creates whose response was 201."""
    delivered: int
    """Payouts whose webhooks all arrived; equals `sent` if nothing is missing."""
    missing: int
    """Webhooks that had not arrived at the end of the wait."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    """Time from sending the request to receiving `payout.succeeded` at the last endpoint."""
    behind: int
    """Payouts that lacked a webhook when the last create was sent."""
    backlog: int
    """Webhooks that had not arrived one second after the last create."""
    response_p50_ms: float
    response_p99_ms: float
    """Time from sending a create to its response."""
    events: int
    duplicates: int
    drained_after: float
    """Seconds from the last create to the last event."""
    generator_late_ms: float
    """The maximum delay of the load generator behind its schedule."""
    merchants: int
    webhooks: int
    """Endpoints per merchant."""
    cpu_us: Mapping[str, float]
    """CPU microseconds per payout, by kind of process, until all its webhooks have arrived."""


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
    progress: Callable[[str, int], None] = field(default=lambda what, done: None)

    @property
    def steps(self) -> int:
        """The total number of steps that `progress` counts."""
        return self.seconds

    def run(self) -> E2eResult:
        """Measure. Raises BenchError if a create is refused or a signature is wrong. Missing events are part of the result."""
        database = Database(self.stack.database_url)
        machine = describe_machine(database.version)
        if self.rate.is_fraction:
            self.progress("measuring the top rate", 0)
        rate = self.rate.per_second(self.stack, self.connections, self.merchants)
        return uvloop.run(self._measure(machine, database, rate))

    async def _measure(self, machine: Machine, database: Database, rate: int) -> E2eResult:
        received = Received()
        receiver = Receiver(received)
        try:
            url = await receiver.open()
            merchants = []
            for number in range(self.merchants):
                merchants.append(await asyncio.to_thread(create_merchant, self.stack, "bench e2e"))
                for endpoint in range(self.webhooks):
                    path = f"/{number}/{endpoint}"
                    secret = await asyncio.to_thread(create_endpoint, self.stack, merchants[-1], url + path)
                    received.secrets[path] = decode_secret(secret)
            self.progress("warming up", 0)
            warm_up, _ = await self._send(merchants, min(rate, _WARM_UP_RATE), _WARM_UP_SECONDS)
            await self._wait_for_events(received, len(warm_up.payouts), self.drain)
            if missing := sum(_count_missing(warm_up, received, self.webhooks).values()):
                raise BenchError(f"{missing} webhooks of the warm-up did not arrive in time.")
            await asyncio.to_thread(database.analyze)
            received.arrived.clear()
            ticker = asyncio.create_task(self._tick(rate))
            with self.stack.cpu() as cpu:
                try:
                    sent, ended = await self._send(merchants, rate, self.seconds)
                finally:
                    ticker.cancel()
                self.progress("waiting for the last events", 0)
                await self._wait_for_events(received, len(sent.payouts), ended + self.drain - time.perf_counter())
        finally:
            await receiver.close()
        self.progress("auditing", 0)
        for merchant in merchants:
            await asyncio.to_thread(check_audit, self.stack, merchant)
        return _result(machine, rate, sent, received, self.merchants, self.webhooks, cpu.micros_per(len(sent.payouts)))

    async def _send(self, merchants: Sequence[Merchant], rate: int, seconds: float) -> tuple[Sent, float]:
        pacer = Pacer(self.stack, merchants, self.connections)
        try:
            await pacer.open()
            ended = await pacer.run(rate, seconds)
            await pacer.wait_for_responses(self.drain)
        finally:
            await pacer.close()
        if pacer.sent.failed:
            raise BenchError(f"{pacer.sent.failed} creates failed: {'; '.join(pacer.sent.reasons)}")
        return pacer.sent, ended

    async def _wait_for_events(self, received: Received, payouts: int, seconds: float) -> None:
        """Wait up to `seconds` for the webhooks of `payouts` payouts. Raises BenchError if a webhook was not valid."""
        # Poll, because setting an asyncio.Event for each of several thousand arrivals per second would cost time.
        deadline = time.perf_counter() + seconds
        while len(received.arrived) < payouts * len(EXPECTED) * self.webhooks:
            if time.perf_counter() > deadline:
                break
            await asyncio.sleep(0.02)
        if received.refused:
            raise BenchError(f"{received.refused} webhooks were invalid: {'; '.join(received.reasons)}")

    async def _tick(self, rate: int) -> None:
        for _ in range(self.seconds):
            await asyncio.sleep(1)
            self.progress(f"{rate} creates per second", 1)


def _count_missing(sent: Sent, received: Received, webhooks: int, until: float = inf) -> dict[str, int]:
    """Return how many webhooks had not arrived by `until`, for each payout that lacked one."""
    arrived, expected = received.arrived, [(kind, str(endpoint)) for kind in EXPECTED for endpoint in range(webhooks)]
    counts = {payout: sum(arrived.get((payout, *key), inf) >= until for key in expected) for payout in sent.payouts}
    return {payout: count for payout, count in counts.items() if count}


def _result(
    machine: Machine, rate: int, sent: Sent, received: Received, merchants: int, webhooks: int, cpu_us: Mapping[str, float]
) -> E2eResult:
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
    return E2eResult(
        machine=machine,
        rate=rate,
        sent=len(sent.payouts),
        delivered=len(sent.payouts) - len(missing),
        missing=sum(missing.values()),
        p50_ms=percentile(latencies, 50) * 1000,
        p95_ms=percentile(latencies, 95) * 1000,
        p99_ms=percentile(latencies, 99) * 1000,
        behind=len(_count_missing(sent, received, webhooks, last)),
        backlog=sum(_count_missing(sent, received, webhooks, last + GRACE_SECONDS).values()),
        response_p50_ms=percentile(sent.response_seconds, 50) * 1000,
        response_p99_ms=percentile(sent.response_seconds, 99) * 1000,
        events=len(arrived),
        duplicates=received.duplicates,
        drained_after=max(0.0, max(arrived.values()) - last),
        generator_late_ms=sent.max_lag_seconds * 1000,
        merchants=merchants,
        webhooks=webhooks,
        cpu_us=cpu_us,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile by the nearest-rank method. Raises ValueError if there are no values."""
    if not values:
        raise ValueError("no values, so no percentile")
    return sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)]
