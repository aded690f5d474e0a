"""`ordered` and `max_in_flight` hold whatever the schedule: two simultaneous claimers, failures, killed workers, resends."""

import asyncio
import itertools
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.infrastructure.db.engine import close_pool, open_pool
from sandbox.webhooks.deliveries import DeliveryService
from sandbox.webhooks.delivery.claims import claim_due
from sandbox.webhooks.delivery.outbox import AttemptResult, ClaimedDelivery, Exchange, record_attempts
from sandbox.webhooks.outbound.sender import SendResult
from tests.harness.plans import Database
from tests.harness.work import request_of, units_of_work
from tests.harness.world import Stack

MAX_IN_FLIGHT = 2
PAYOUTS = [str(uuid.UUID(int=number)) for number in range(1, 4)]
RETRY = timedelta(seconds=10)
_merchants = itertools.count(1)

EMIT = """
WITH e AS (
    INSERT INTO events (merchant_id, id, type, body, payout_id, change, to_status, cause, request_id, created_at)
    VALUES ($1, $2, 'payout.created', '{}', $3, $4, 'PENDING', 'api', 'r', $5)
)
INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, next_attempt_at,
    created_at, updated_at)
SELECT $1, id, $2, endpoint_id, 'PENDING', 0, 0, $5, $5, $5 FROM unnest($6::uuid[], $7::uuid[]) AS n (id, endpoint_id)
"""
# Deliveries that are sent even though an earlier event of their payout is not finished, and the calls in progress by endpoint.
VIOLATIONS = """
SELECT d.id FROM webhook_deliveries d JOIN events e ON e.merchant_id = d.merchant_id AND e.id = d.event_id
JOIN events f ON f.merchant_id = d.merchant_id AND f.payout_id = e.payout_id AND f.change < e.change
JOIN webhook_deliveries b ON b.merchant_id = d.merchant_id AND b.event_id = f.id AND b.endpoint_id = d.endpoint_id
WHERE d.merchant_id = $1 AND d.id = ANY ($2::uuid[]) AND b.status = 'PENDING'
"""
IN_FLIGHT = """
SELECT count(*) FROM webhook_deliveries WHERE merchant_id = $1 AND endpoint_id = $2 AND leased_until > now()
"""
DUE = """
SELECT count(*) FROM webhook_deliveries
WHERE merchant_id = $1 AND endpoint_id = $2 AND next_attempt_at <= $3 AND (leased_until IS NULL OR leased_until <= now())
"""
LOG = """
SELECT d.id::text, d.status, d.attempts, count(a.attempt) AS logged, d.next_attempt_at FROM webhook_deliveries d
LEFT JOIN webhook_attempts a ON a.merchant_id = d.merchant_id AND a.delivery_id = d.id
WHERE d.merchant_id = $1 AND d.endpoint_id = ANY ($2::uuid[]) GROUP BY 1, 2, 3, 5
"""


@pytest.fixture(scope="module")
def loop(stack: Stack) -> Iterator[tuple[asyncio.Runner, Database]]:
    """Yield an event loop with an open pool on a database that no worker uses."""
    with asyncio.Runner() as runner:
        database = Database(stack.database_url, f"schedules_{uuid.uuid4().hex}")
        runner.run(database.create())
        runner.run(open_pool(database.url, 4))
        yield runner, database
        runner.run(close_pool())
        runner.run(database.drop())


@dataclass
class Schedule:
    """A merchant with two ordered endpoints, the second also with a limit, and what the workers and the receiver saw."""

    conn: Any
    merchant_id: str
    endpoints: tuple[str, str]
    offset: timedelta = timedelta()
    changes: Counter[str] = field(default_factory=Counter)
    event: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By delivery: its payout, and the number of its event."""
    deliveries: list[str] = field(default_factory=list)
    held: list[ClaimedDelivery] = field(default_factory=list)
    """Claimed deliveries whose worker is alive."""
    accepted: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    """By endpoint and payout: the events in the order of their first success."""
    recorded: Counter[str] = field(default_factory=Counter)
    failed: set[str] = field(default_factory=set)
    """Deliveries that failed for good at some point, so that later events may have overtaken them."""

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    async def emit(self, number: int) -> None:
        payout_id = PAYOUTS[number % len(PAYOUTS)]
        event_id, *ids = (str(uuid.UUID(int=len(self.deliveries) * 10 + 1000 + n)) for n in range(3))
        arguments = payout_id, self.changes[payout_id], self.now(), ids, self.endpoints
        await self.conn.execute(EMIT, self.merchant_id, event_id, *arguments)
        self.event |= dict.fromkeys(ids, (payout_id, self.changes[payout_id]))
        self.deliveries += ids
        self.changes[payout_id] += 1

    async def claim(self, _: int) -> None:
        """Two workers claim at the same time."""
        claims = await asyncio.gather(*(claim_due(self.merchant_id, {}, 5) for _ in range(2)))
        claimed = [delivery for claim in claims for delivery in claim.deliveries]
        ids = [delivery.id for delivery in claimed]
        assert len(ids) == len(set(ids))
        assert await self.conn.fetch(VIOLATIONS, self.merchant_id, ids) == []
        assert await self.conn.fetchval(IN_FLIGHT, self.merchant_id, self.endpoints[1]) <= MAX_IN_FLIGHT
        self.held += claimed

    async def finish(self, number: int, status: str) -> None:
        if not self.held:
            return
        claimed = self.held.pop(number % len(self.held))
        payout_id, change = self.event[claimed.id]
        accepted = self.accepted[claimed.endpoint_id, payout_id]
        if status == "SUCCEEDED" and change not in accepted and claimed.id not in self.failed:
            accepted.append(change)
        if status == "FAILED":
            self.failed.add(claimed.id)
        due = self.now() + RETRY if status == "PENDING" else None
        exchange = Exchange("v1,x", 1, SendResult(200 if status == "SUCCEEDED" else 500, {}, "", None, 1))
        result = AttemptResult(claimed, claimed.scheduled_attempts + 1, status, due, self.now(), exchange)
        await record_attempts(self.merchant_id, [result])
        self.recorded[claimed.id] += 1

    async def succeed(self, number: int) -> None:
        await self.finish(number, "SUCCEEDED")

    async def race(self, number: int) -> None:
        """Workers claim while another one records a success."""
        await asyncio.gather(self.claim(0), self.succeed(number))

    async def fail(self, number: int) -> None:
        await self.finish(number, "PENDING")

    async def fail_for_good(self, number: int) -> None:
        await self.finish(number, "FAILED")

    async def expire_lease(self, number: int) -> None:
        """The lease of an attempt in progress expires."""
        if self.held:
            await self.expire(number % len(self.held))

    async def kill(self, number: int) -> None:
        """A worker dies during an attempt, whose lease expires later."""
        if self.held:
            await self.expire(number % len(self.held))
            self.held.pop(number % len(self.held))

    async def expire(self, index: int) -> None:
        claimed, past = self.held[index], datetime.now(UTC) - timedelta(seconds=1)
        await self.conn.execute(
            "UPDATE webhook_deliveries SET leased_until = $3 WHERE merchant_id = $1 AND id = $2 AND leased_until = $4",
            self.merchant_id, claimed.id, past, claimed.lease,
        )  # fmt: skip
        self.held[index] = msgspec.structs.replace(claimed, lease=past)

    async def resend(self, number: int) -> None:
        if self.deliveries:
            delivery_id = self.deliveries[number % len(self.deliveries)]
            response = await DeliveryService(units_of_work()).resend_webhook_delivery(request_of(self.merchant_id), delivery_id)
            assert response.status == 200

    async def advance(self, number: int) -> None:
        self.offset += timedelta(seconds=number)
        await self.conn.execute("UPDATE worlds SET clock_offset = $2 WHERE merchant_id = $1", self.merchant_id, self.offset)

    async def log(self) -> list[Any]:
        found: list[Any] = await self.conn.fetch(LOG, self.merchant_id, self.endpoints)
        return found


async def start(database: Database) -> Schedule:
    number = next(_merchants)
    await database.fill(number, number, 1)
    conn = await asyncpg.connect(database.url)
    schedule = Schedule(conn, str(uuid.UUID(f"00000000-0000-7000-8000-{number:012x}")), (str(uuid.uuid4()), str(uuid.uuid4())))
    for endpoint_id, max_in_flight in zip(schedule.endpoints, (None, MAX_IN_FLIGHT), strict=True):
        await conn.execute(
            "INSERT INTO webhook_endpoints (merchant_id, id, url, event_types, signing, signing_time, retry_profile, ordered, "
            "max_in_flight, description, secret, status, created_at, updated_at) SELECT merchant_id, $2, url, event_types, "
            "signing, signing_time, retry_profile, true, $3, '', secret, 'ENABLED', created_at, updated_at "
            "FROM webhook_endpoints WHERE merchant_id = $1 LIMIT 1",
            schedule.merchant_id, endpoint_id, max_in_flight,
        )  # fmt: skip
    return schedule


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("emit", "emit", "claim", "claim", "race", "race", "succeed", "fail", "fail_for_good", "expire_lease", "kill",
             "resend", "advance")
        ),
        st.integers(0, 30),
    ),
    min_size=10, max_size=50,
)  # fmt: skip


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(STEPS)
def test_events_of_a_payout_are_first_accepted_in_order_and_none_is_lost(
    loop: tuple[asyncio.Runner, Database], steps: list[tuple[str, int]]
) -> None:
    runner, database = loop

    async def run() -> None:
        schedule = await start(database)
        try:
            for kind, number in steps:
                await getattr(schedule, kind)(number)
            await finish_all(schedule)
        finally:
            await schedule.conn.close()

    runner.run(run())


async def finish_all(schedule: Schedule) -> None:
    for _ in range(200):
        await schedule.claim(0)
        if not schedule.held:
            if all(row["status"] != "PENDING" for row in await schedule.log()):
                break
            await schedule.advance(20)
        while schedule.held:
            await schedule.succeed(0)
    rows = await schedule.log()
    assert all(row["status"] in ("SUCCEEDED", "FAILED") and row["next_attempt_at"] is None for row in rows)
    assert {row["id"]: row["attempts"] for row in rows} == {id_: schedule.recorded[id_] for id_ in schedule.deliveries}
    assert all(row["attempts"] == row["logged"] > 0 for row in rows)
    assert all(order == sorted(order) for order in schedule.accepted.values()), schedule.accepted


def test_deliveries_that_wait_are_not_read_by_every_claim_and_continue_when_their_blocker_succeeds(
    loop: tuple[asyncio.Runner, Database],
) -> None:
    runner, database = loop

    async def run() -> None:
        schedule = await start(database)
        for number in range(300):
            await schedule.emit(number)
        for _ in range(3):  # six claims, each of which examines up to 128
            await schedule.claim(0)
        assert not await schedule.conn.fetchval(DUE, schedule.merchant_id, schedule.endpoints[0], schedule.now())
        assert len(schedule.held) == len(PAYOUTS) + MAX_IN_FLIGHT
        # The first attempts fail. Later someone resends one of them, and it succeeds before its retry is due.
        blocker = min((held for held in schedule.held if held.endpoint_id == schedule.endpoints[0]), key=lambda held: held.id)
        while schedule.held:
            await schedule.fail(0)
        await schedule.resend(schedule.deliveries.index(blocker.id))
        for _ in range(3):
            await schedule.claim(0)
        (resent,) = (held for held in schedule.held if held.id == blocker.id)
        assert resent.manual
        schedule.held.remove(resent)
        schedule.held.append(resent)
        await schedule.succeed(len(schedule.held) - 1)
        await schedule.claim(0)
        payout_id, _ = schedule.event[blocker.id]
        held = [schedule.event[one.id] for one in schedule.held if one.endpoint_id == blocker.endpoint_id]
        assert held == [(payout_id, 1)]
        await schedule.conn.close()

    runner.run(run())


def test_a_process_takes_no_more_deliveries_than_it_has_capacity_for(loop: tuple[asyncio.Runner, Database]) -> None:
    """For example, when an endpoint that asked to slow down has little capacity left."""
    runner, database = loop

    async def run() -> None:
        schedule = await start(database)
        for number in range(len(PAYOUTS)):
            await schedule.emit(number)
        await schedule.advance(1)
        ordered, limited = schedule.endpoints
        claim = await claim_due(schedule.merchant_id, {ordered: 1, limited: 0}, 5)
        assert [delivery.endpoint_id for delivery in claim.deliveries] == [ordered]
        await schedule.conn.close()

    runner.run(run())
