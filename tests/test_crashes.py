"""If any process is killed at any moment, nothing is lost and nothing happens twice. Real processes, SIGKILL, under load."""

import contextlib
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psutil
import pytest
import redis

from sandbox.infrastructure.db.engine import CONNECTION_ERRORS
from tests.harness.load import Load
from tests.harness.own_sandbox import own_sandbox
from tests.harness.receiver import Received, Receiver
from tests.harness.supervised import child_of, wait_for
from tests.harness.waiting import until
from tests.harness.world import Stack, World

VICTIMS = ["worker", "ipn.with_api", "postgres", "flushall"]
EVENTS = {"payout.created", "payout.processing", "payout.succeeded"}


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, psutil.Process]]:
    """A separate sandbox whose processes these tests kill."""
    with own_sandbox(tmp_path_factory.mktemp("crashes"), "--ephemeral", "--workers", "2") as (process, stack):
        yield stack, psutil.Process(process.pid)


def process_of(supervisor: psutil.Process, name: str) -> psutil.Process:
    """Return one of the sandbox's processes, by name. If it was just killed, wait: it may still be restarting."""
    return wait_for(lambda: child_of(supervisor, name), f"the restart of {name}")


def kill(supervisor: psutil.Process, victim: str, redis_url: str) -> None:
    """SIGKILL one of the sandbox's processes, or empty its Redis."""
    if victim == "flushall":
        client = redis.Redis.from_url(redis_url)
        client.flushall()
        client.close()
        return
    process = process_of(supervisor, victim)
    process.kill()
    process.wait(60)  # otherwise it could be found again, and killed in place of another


@dataclass
class InterruptedAdvance:
    """A merchant with a frozen clock whose advance was interrupted when its API process was killed."""

    world: World
    payouts: dict[str, list[str]]
    """Payout ids by the suffix of their account number."""

    def request(self) -> httpx.Response | None:
        """Send the same advance request. Return None if there was no response."""
        key = {"X-IDEMPOTENCY-KEY": "one advance"}
        with contextlib.suppress(httpx.HTTPError):
            return self.world.client.post("/sandbox/v1/clock/advance", json={"seconds": 360_000}, headers=key)
        return None


@pytest.fixture(scope="module", autouse=True)
def interrupted_advance(own_stack: tuple[Stack, psutil.Process]) -> Iterator[InterruptedAdvance]:
    """Set up before all tests of this file, because the last test must wait until the killed process's leases expire."""
    stack, supervisor = own_stack
    with Receiver() as receiver, World.create(stack, opening_balance="1000.00") as world:
        receiver.respond = lambda _: (500, {}, b"down")
        frozen = {"at": "2031-01-01T00:00:00Z"}
        assert world.client.post("/sandbox/v1/clock/freeze", json=frozen).status_code == 200
        world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.created"]})
        payouts = {suffix: [world.create_payout(suffix, amount="10.00")["id"] for _ in range(4)] for suffix in ("0011", "0012")}
        advance = InterruptedAdvance(world, payouts)
        first = threading.Thread(target=advance.request)
        first.start()
        until(lambda: len(receiver.received) >= 30, seconds=180)
        kill(supervisor, "ipn.with_api", stack.redis_url)
        first.join(60)
        yield advance


def test_every_created_payout_exists_once_and_every_event_arrives(
    own_stack: tuple[Stack, psutil.Process], receiver: Receiver
) -> None:
    stack, supervisor = own_stack
    with World.create(stack, opening_balance="1000000.00") as world:
        # In the standard profile, the third attempt comes five minutes after the second.
        world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "retry_profile": "fast"})
        load = Load(world)
        for victim in VICTIMS:
            before = len(load.created)
            until(lambda before=before: len(load.created) >= before + 25, seconds=180)
            kill(supervisor, victim, stack.redis_url)
        before = len(load.created)
        until(lambda: len(load.created) >= before + 25, seconds=180)
        load.stop()

        rows = stack.execute("SELECT id::text, merchant_reference FROM payouts WHERE merchant_id = $1", world.merchant_id)
        assert {row["merchant_reference"]: row["id"] for row in rows} == load.created

        def all_paid() -> bool:
            unpaid = stack.execute(
                "SELECT count(*) FROM payouts WHERE merchant_id = $1 AND status <> 'SUCCESS'", world.merchant_id
            )
            return unpaid[0]["count"] == 0

        until(all_paid, seconds=180, pause=0.2)
        world.assert_clean()
        available = f"{1_000_000 - len(load.created)}.00"
        assert world.balance() == (available, "0.00")

        def all_delivered() -> bool:
            types: dict[str, set[str]] = {}
            for event in receiver.events():
                types.setdefault(event["data"]["id"], set()).add(event["type"])
            return all(types.get(payout_id) == EVENTS for payout_id in load.created.values())

        # The killed worker's leases expire after 30 s; then another worker sends the webhooks.
        until(all_delivered, seconds=240, pause=0.5)


# Blocks the recording of attempts at /recording for as long as the trigger exists.
BLOCK_RECORDING = """
DO $block$ BEGIN
    CREATE FUNCTION wait_before_recording() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_sleep(300);
        RETURN NULL;
    END $$;
    CREATE TRIGGER wait_before_recording BEFORE INSERT ON webhook_attempts FOR EACH ROW
        WHEN (NEW.url LIKE '%/recording') EXECUTE FUNCTION wait_before_recording();
END $block$
"""
RECORDING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


def test_webhooks_that_a_killed_worker_was_sending_are_sent_by_another_worker(
    own_stack: tuple[Stack, psutil.Process], receiver: Receiver
) -> None:
    """The killed worker inserted the deliveries to /plain with a lease, and claimed those to /paced.

    The endpoint at /recording had responded, but the worker was killed before the attempts were recorded.
    """
    stack, supervisor = own_stack
    held: list[tuple[str, str]] = []
    resent: list[tuple[str, str]] = []
    released = threading.Event()

    def hold(received: Received) -> tuple[int, dict[str, str], bytes]:
        (resent if released.is_set() else held).append((received.path, received.event["data"]["id"]))
        if received.path != "/recording":
            released.wait(120)
        return 200, {}, b""

    paths = {"/plain": {}, "/recording": {}, "/paced": {"ordered": True, "rate_limit": 1000, "max_in_flight": 5}}
    with World.create(stack, opening_balance="1000.00") as world:
        for path, paced in paths.items():
            url = receiver.url.replace("/webhooks", path)
            world.post("/api/v1/webhook-endpoints", {"url": url, "event_types": ["payout.succeeded"], **paced})
        receiver.respond = hold
        stack.execute(BLOCK_RECORDING)
        payouts = [world.create_payout("0001", amount="1.00")["id"] for _ in range(5)]
        until(lambda: len(held) == 15 and stack.execute(RECORDING), seconds=60)
        for _ in range(2):
            kill(supervisor, "worker", stack.redis_url)
        stack.execute(
            RECORDING.replace("pid", "pg_terminate_backend(pid)")
        )  # otherwise PostgreSQL would end the statement first
        stack.execute("DROP FUNCTION wait_before_recording CASCADE")
        released.set()
        undelivered = "SELECT count(*) FROM webhook_deliveries WHERE merchant_id = $1 AND status <> 'SUCCEEDED'"
        until(lambda: stack.execute(undelivered, world.merchant_id)[0]["count"] == 0, seconds=180, pause=0.2)
        assert sorted(held) == sorted(resent) == sorted((path, id_) for path in paths for id_ in payouts)
        # The attempts of the killed worker were never recorded.
        attempts = "SELECT attempts FROM webhook_deliveries WHERE merchant_id = $1"
        assert [row["attempts"] for row in stack.execute(attempts, world.merchant_id)] == [1] * 15
        log = "SELECT attempt, status, error FROM webhook_attempts WHERE merchant_id = $1"
        assert stack.execute(log, world.merchant_id) == [{"attempt": 1, "status": 200, "error": None}] * 15


# Blocks bulk credits at `open_to` credited rows: a chunk that would exceed it waits before its commit.
GATE = """
DO $gate$ BEGIN
    CREATE TABLE gate AS SELECT 0 AS open_to;
    CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
        WHILE NEW.succeeded > (SELECT open_to FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP;
        RETURN NEW;
    END $$;
    CREATE TRIGGER wait_at_gate BEFORE UPDATE ON bulk_credits FOR EACH ROW EXECUTE FUNCTION wait_at_gate();
END $gate$
"""


def test_each_row_of_a_bulk_credit_is_credited_once_even_if_workers_and_postgresql_are_killed(
    own_stack: tuple[Stack, psutil.Process],
) -> None:
    """They are killed in the middle of a file. After the restart the remaining rows are credited, and no row twice."""
    stack, supervisor = own_stack
    stack.execute(GATE)
    with World.create(stack) as world:
        created = world.post("/api/v1/users/batch", {"users": [{"name": f"User {number}"} for number in range(500)]})
        users = [result["user"]["id"] for result in created.json()["results"]]
        rows = [(user, amount) for amount in range(1, 41) for user in users]
        content = "uuid,amount\n" + "".join(f"{user},{amount}\n" for user, amount in rows)
        path = "/api/v1/wallet/bulk-credit"
        upload = world.client.post(path, files={"file": content}, headers={"X-IDEMPOTENCY-KEY": str(uuid.uuid4())})
        path = f"{path}/{upload.json()['activity_id']}"

        def succeeded() -> int:
            with contextlib.suppress(httpx.HTTPError, KeyError):
                count: int = world.get(path).json()["succeeded"]
                return count
            return 0

        def open_gate(to: int) -> bool:
            with contextlib.suppress(*CONNECTION_ERRORS, OSError):
                return bool(stack.execute("UPDATE gate SET open_to = $1 RETURNING open_to", to))
            return False

        # The gate ensures that, at each kill, new rows have been credited since the previous kill and some rows remain.
        for victim, credited in (("worker", 0), ("postgres", 5000), ("worker", 10_000)):
            until(lambda credited=credited: open_gate(credited + 5000), seconds=180)
            until(lambda credited=credited: succeeded() > credited, seconds=180, pause=0.01)
            kill(supervisor, victim, stack.redis_url)
        until(lambda: open_gate(1_000_000), seconds=180)
        until(lambda: succeeded() == len(rows), seconds=180, pause=0.2)
        activity = until(lambda: (found := world.get(path).json())["status"] == "COMPLETED" and found, seconds=180)
        assert (activity["total"], activity["failed"], activity["invalid"]) == (len(rows), 0, 0)
        sums = stack.execute("SELECT DISTINCT credited::text FROM users WHERE merchant_id = $1", world.merchant_id)
        assert [row["credited"] for row in sums] == [f"{sum(range(1, 41))}.00"]
        world.assert_clean()


def test_payouts_are_created_and_processed_without_redis(own_stack: tuple[Stack, psutil.Process]) -> None:
    """With Redis suspended, the API responds, and the sweep finds the work."""
    stack, supervisor = own_stack
    server = process_of(supervisor, "valkey-server")
    with World.create(stack, opening_balance="1000.00") as world:
        server.suspend()
        try:
            payout = world.create_payout("0001")
            assert world.wait_for(payout["id"], "SUCCESS", seconds=180)["status"] == "SUCCESS"
        finally:
            server.resume()
        world.wait_for(world.create_payout("0001")["id"], "SUCCESS", seconds=180)
        world.assert_clean()


def test_an_interrupted_advance_resumes_after_a_crash_and_nothing_runs_twice(interrupted_advance: InterruptedAdvance) -> None:
    """The API process was killed in the middle of an advance; the repeated request resumes the advance and repeats nothing."""
    world = interrupted_advance.world

    def complete() -> bool:
        response = interrupted_advance.request()
        return response is not None and response.status_code == 200 and response.json()["complete"]

    # The killed process's leases last 30 s, most of which has passed during the earlier tests.
    until(complete, seconds=300, pause=0.5)
    state = world.get("/sandbox/v1/clock").json()
    assert (state["frozen"], state["now"]) == (True, "2031-01-05T04:00:00.000Z"), "the clock must stop at the requested time"
    retries = [status for _ in range(4) for status in ("PROCESSING", "RETRY")][:-1]
    for payout_id in interrupted_advance.payouts["0011"]:
        assert world.path_of(payout_id) == ["PENDING", *retries, "FAILED"]
    for payout_id in interrupted_advance.payouts["0012"]:
        assert world.path_of(payout_id) == ["PENDING", "PROCESSING", "SUCCESS", "RETURNED"]
    for delivery in world.get("/api/v1/webhook-deliveries", limit=100).json()["data"]:
        assert (delivery["status"], delivery["attempt_count"]) == ("FAILED", 10)
    world.assert_clean()
    assert world.balance() == ("1000.00", "0.00")
