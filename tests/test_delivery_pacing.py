"""`ordered`, `rate_limit` and `max_in_flight` hold at the receiver, whichever workers send, and whatever fails."""

import asyncio
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sandbox.webhooks.delivery.pacing import HORIZON, SPACING, Candidate, Slot, Slots, choose
from sandbox.webhooks.delivery.start_times import StartTimes
from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.world import World

NOW = datetime(2031, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 300)), min_size=1, max_size=40),
)
def test_no_second_contains_more_slots_than_the_rate_limit(rate_limit: int, claims: list[tuple[float, int]]) -> None:
    """However many claims there are, when they are made, and however many slots each asks for."""
    now, free_at, taken = NOW, None, list[datetime]()
    for pause, wanted in claims:
        now += timedelta(seconds=pause)
        slots = Slots(rate_limit, free_at, now)
        count = min(slots.count, wanted)
        found = slots.take(count)
        assert all(now <= slot.starts_at < now + HORIZON for slot in found)
        assert slots.count == 0 or count == wanted, "an endpoint with free slots must not wait"
        taken += [slot.starts_at for slot in found]
        free_at = slots.free_at
    assert all(later - earlier > SECOND for earlier, later in zip(taken, taken[rate_limit:], strict=False))


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_a_claim_is_repeated_soon_enough_to_use_every_slot(rate_limit: int, wanted: int) -> None:
    now, free_at, taken = NOW, None, list[datetime]()
    while len(taken) < wanted:
        slots = Slots(rate_limit, free_at, now)
        found = [slot.starts_at for slot in slots.take(min(slots.count, wanted - len(taken)))]
        assert found, "a claim at the recommended time must find a slot"
        taken += found
        free_at = slots.free_at
        now += timedelta(seconds=slots.seconds_until_more())
    assert taken[-1] - NOW <= SPACING * wanted / rate_limit


def test_a_stored_time_far_ahead_does_not_stop_an_endpoint() -> None:
    """The host's clock was set back, or the limit was raised."""
    slots = Slots(10, NOW + timedelta(days=1), NOW)
    assert slots.seconds_until_more() < 1


async def test_a_process_that_was_busy_does_not_start_all_late_attempts_at_once() -> None:
    """The slots of 25 attempts have passed, but the rate limit is 20."""
    starts, loop, times = list[float](), asyncio.get_running_loop(), StartTimes()

    async def start() -> None:
        await times.wait_for("m", "e", Slot(NOW - timedelta(days=3650), 20))
        starts.append(loop.time())

    await asyncio.gather(*(start() for _ in range(25)))
    assert all(later - earlier >= 0.999 for earlier, later in zip(starts, starts[20:], strict=False))


IDS = st.integers(0, 7).map(str)


@given(
    st.lists(st.builds(Candidate, IDS, st.none(), st.frozensets(IDS, max_size=2)), unique_by=lambda c: c.id), st.integers(1, 5)
)
def test_a_chosen_delivery_never_overtakes_a_blocker(candidates: list[Candidate], limit: int) -> None:
    for in_sequence in (False, True):
        chosen, waiting = choose(candidates, limit, in_sequence)
        sent: set[str] = set()
        for candidate in chosen:
            assert sent.issuperset(candidate.blockers) if in_sequence else not candidate.blockers
            sent.add(candidate.id)
        assert len(chosen) <= limit
        assert not {candidate.id for candidate in waiting} & sent
        assert len(chosen) == limit or len(chosen) + len(waiting) == len(candidates)


def order_of_first_successes(received: list[tuple[Received, int]]) -> dict[str, list[int]]:
    """Return, by payout, the versions of the events in the order in which each was first accepted."""
    accepted: dict[str, list[int]] = defaultdict(list)
    for one, status in received:
        data = one.event["data"]
        if status == 200 and data["version"] not in accepted[data["id"]]:
            accepted[data["id"]].append(data["version"])
    return accepted


def test_an_ordered_endpoint_that_fails_receives_each_payouts_events_in_order(world: World, receiver: Receiver) -> None:
    """Two workers send. The first attempt at every third event fails."""
    received: list[tuple[Received, int]] = []
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def respond(one: Received) -> tuple[int, dict[str, str], bytes]:
        with lock:
            id_ = one.headers["webhook-id"]
            status = 500 if id_ not in seen and len(seen) % 3 == 1 else 200
            seen[id_] = len(seen)
            received.append((one, status))
        return status, {}, b""

    receiver.respond = respond
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "retry_profile": "fast", "ordered": True})
    batch = {"payouts": [world.payout_body("0001") for _ in range(10)]}
    assert world.post("/api/v1/payouts/batch", batch).status_code == 200
    pending = "SELECT count(*) FROM webhook_deliveries WHERE merchant_id = $1 AND status = 'SUCCEEDED'"
    until(lambda: world.stack.execute(pending, world.merchant_id)[0]["count"] == 30, 120)
    orders = order_of_first_successes(received)
    assert len(orders) == 10
    assert all(order == sorted(order) and len(order) == 3 for order in orders.values()), orders
    assert len(received) == 40


def test_in_a_frozen_world_a_retry_holds_back_only_later_events_of_its_payout(world: World, receiver: Receiver) -> None:
    """The limits do not apply: time stands still, and deliveries go one at a time anyway."""
    received: list[tuple[Received, int]] = []
    failing: list[str] = []

    def respond(one: Received) -> tuple[int, dict[str, str], bytes]:
        fails = one.event["data"]["id"] in failing and len([r for r, status in received if status == 500]) < 2
        received.append((one, 500 if fails else 200))
        return received[-1][1], {}, b""

    receiver.respond = respond
    endpoint = {"url": receiver.url, "retry_profile": "fast", "ordered": True, "rate_limit": 1, "max_in_flight": 1}
    world.post("/api/v1/webhook-endpoints", endpoint)
    world.post("/sandbox/v1/clock/freeze", {"at": "2031-01-01T00:00:00Z"})
    first = world.create_payout("0001")["id"]
    failing.append(first)
    others = [world.create_payout("0001")["id"] for _ in range(3)]
    assert world.post("/sandbox/v1/clock/advance", {"seconds": 60}).json()["complete"]
    orders = order_of_first_successes(received)
    assert {payout_id: orders[payout_id] for payout_id in (first, *others)} == {id_: [1, 2, 3] for id_ in (first, *others)}
    # While the first event of the first payout waited for its retries, all events of the others arrived.
    ids = [one.event["data"]["id"] for one, status in received if status == 200]
    assert ids[-3:] == [first] * 3
    assert len(received) == 14


def test_deliveries_that_wait_are_sent_once_the_endpoint_is_not_ordered(world: World, receiver: Receiver) -> None:
    receiver.respond = lambda one: (500 if one.event["type"] == "payout.created" else 200, {}, b"")
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "ordered": True}).json()
    world.post("/sandbox/v1/clock/freeze", {})
    payout_id = world.create_payout("0001")["id"]
    assert world.post("/sandbox/v1/drain").json()["drained"]
    assert [event["type"] for event in receiver.events(payout_id)] == ["payout.created"]
    assert world.patch(f"/api/v1/webhook-endpoints/{endpoint['id']}", {"ordered": False}).status_code == 200
    assert world.post("/sandbox/v1/drain").json()["drained"]
    assert {event["type"] for event in receiver.events(payout_id)} == {
        "payout.created",
        "payout.processing",
        "payout.succeeded",
    }
    (waiting,) = world.get("/api/v1/webhook-deliveries", status="PENDING").json()["data"]
    assert waiting["attempt_count"] == 1, "a retry keeps its time"


def test_a_receiver_sees_no_more_requests_than_its_limits_allow(world: World, receiver: Receiver) -> None:
    """Two workers send. The limits are per endpoint; the receiver counts with its own clock."""
    arrived, running, most = list[float](), list[int](), list[int]()
    lock = threading.Lock()

    def respond(one: Received) -> tuple[int, dict[str, str], bytes]:
        if one.path == "/limited":
            with lock:
                arrived.append(time.monotonic())
        else:
            with lock:
                running.append(1)
                most.append(len(running))
            time.sleep(0.005)
            with lock:
                running.pop()
        return 200, {}, b""

    receiver.respond = respond
    base = receiver.url.removesuffix("/webhooks")
    types = {"event_types": ["payout.created"]}
    world.post("/api/v1/webhook-endpoints", {"url": f"{base}/limited", "rate_limit": 20, **types})
    world.post("/api/v1/webhook-endpoints", {"url": f"{base}/few", "max_in_flight": 3, **types})
    batch = {"payouts": [world.payout_body("0004") for _ in range(70)]}
    assert world.post("/api/v1/payouts/batch", batch).status_code == 200
    until(lambda: len(arrived) == len(most) == 70, 60)
    # Requests can reach the receiver late and close together, but without a limit all of them would arrive at the same time.
    assert max(sum(start <= at < start + 1 for at in arrived) for start in arrived) <= 40
    assert max(most) <= 3
