"""Resets, restores and deletions leave nothing behind, and nothing inconsistent, whatever happens at the same time."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import pytest

from sandbox.infrastructure.db.engine import close_pool, open_pool
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.webhooks.endpoints.service import EndpointService
from sandbox.worlds.merchants.service import MerchantService
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.work import request_of, units_of_work
from tests.harness.world import Stack, World
from tests.test_reset_and_snapshots import rows


def deliver(world: World, receiver: Receiver) -> None:
    """Create a payout, and wait until its three deliveries have succeeded at the first attempt."""
    receiver.wait_for("payout.succeeded", payout_id=world.create_payout()["id"])
    until(lambda: len(world.get("/api/v1/webhook-deliveries", status="SUCCEEDED").json()["data"]) == 3)


async def wait_until_blocking(world: World, conn: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Wait until another session waits for a lock that this connection holds."""
    waiting = "SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"
    await asyncio.to_thread(until, lambda: world.stack.execute(waiting, conn.get_server_pid()))


@pytest.mark.parametrize("action", ["reset", "restore", "delete"])
def test_no_attempt_that_is_recorded_concurrently_is_left_behind(stack: Stack, receiver: Receiver, action: str) -> None:
    """The worker that records the attempt has lost its lease, or claimed the delivery after the other ones were locked."""
    with World.create(stack, opening_balance="1000.00", webhook_url=receiver.url) as world:
        deliver(world, receiver)
        snapshot_id = world.client.post("/sandbox/v1/snapshots").json()["id"]
        stored = rows(world)["webhook_attempts"]
        method, path, status, expected = {
            "reset": ("POST", "/sandbox/v1/reset", 200, []),
            "restore": ("POST", f"/sandbox/v1/snapshots/{snapshot_id}/restore", 200, stored),
            "delete": ("DELETE", f"/sandbox/v1/merchants/{world.merchant_id}", 204, []),
        }[action]

        async def call_while_a_worker_records() -> int:
            worker = await asyncpg.connect(stack.database_url)
            try:
                async with worker.transaction():
                    await worker.execute(
                        "UPDATE webhook_deliveries SET attempts = 2 WHERE merchant_id = $1",
                        world.merchant_id,
                    )
                    await worker.execute(
                        "INSERT INTO webhook_attempts SELECT merchant_id, delivery_id, 2, at, url, signature, status, "
                        "response_headers, response_body, error, duration_ms FROM webhook_attempts WHERE merchant_id = $1",
                        world.merchant_id,
                    )
                    headers = {"X-ADMIN-KEY": stack.admin_key}
                    call = asyncio.create_task(asyncio.to_thread(world.client.request, method, path, headers=headers))
                    await wait_until_blocking(world, worker)
                return (await call).status_code
            finally:
                await worker.close()

        assert asyncio.run(call_while_a_worker_records()) == status
        assert rows(world)["webhook_attempts"] == expected


def test_a_merchant_is_deleted_even_if_a_worker_locks_its_deliveries_in_another_order(stack: Stack, receiver: Receiver) -> None:
    with World.create(stack, opening_balance="1000.00", webhook_url=receiver.url) as world:
        deliver(world, receiver)
        deliveries = stack.execute("SELECT id FROM webhook_deliveries WHERE merchant_id = $1 ORDER BY ctid", world.merchant_id)

        async def delete() -> None:
            touch = "UPDATE webhook_deliveries SET attempts = 2 WHERE merchant_id = $1 AND id = $2"
            box, work = SecretBox(bytes(32)), units_of_work()
            service = MerchantService(work, box, EndpointService(work, box, ()), "http://ipn.example")
            # PostgreSQL aborts the session that detects the deadlock. The worker checks only after 10 s, so the deletion
            # detects it first, is aborted and retries.
            worker = await asyncpg.connect(stack.database_url, server_settings={"deadlock_timeout": "10s"})
            # Without an index scan, rows are deleted in their physical order.
            await open_pool(f"{stack.database_url}&enable_indexscan=off", 1)
            try:
                with contextlib.suppress(asyncpg.DeadlockDetectedError):  # on a very slow machine, the worker is aborted
                    async with worker.transaction():
                        await worker.execute(touch, world.merchant_id, deliveries[-1]["id"])
                        deletion = asyncio.create_task(service.delete_merchant(request_of(""), world.merchant_id))
                        await wait_until_blocking(world, worker)
                        await worker.execute(touch, world.merchant_id, deliveries[0]["id"])
                await deletion
            finally:
                await close_pool()
                await worker.close()

        asyncio.run(delete())
        assert stack.execute("SELECT FROM merchants WHERE merchant_id = $1", world.merchant_id) == []


def test_resets_and_restores_under_load_keep_the_ledger_consistent_and_spare_other_merchants(
    stack: Stack, world: World
) -> None:
    with World.create(stack, opening_balance="1000000.00") as other:
        snapshot = world.client.post("/sandbox/v1/snapshots").json()
        stop = threading.Event()

        def create_payouts(of: World) -> list[int]:
            codes = []
            while not stop.is_set():
                codes.append(of.post("/api/v1/payouts", of.payout_body()).status_code)
            return codes

        with ThreadPoolExecutor(4) as pool:
            loads = [pool.submit(create_payouts, of) for of in (world, other, world, other)]
            for _ in range(4):
                assert world.client.post("/sandbox/v1/reset").status_code == 200
                restored = world.client.post(f"/sandbox/v1/snapshots/{snapshot['id']}/restore")
                assert restored.status_code == 200, restored.text
            stop.set()
            codes = [run.result() for run in loads]
        assert {code for run in codes for code in run} == {201}
        world.assert_clean()
        other.assert_clean()
        count = stack.execute("SELECT count(*) FROM payouts WHERE merchant_id = $1", other.merchant_id)[0]["count"]
        assert count == len(codes[1]) + len(codes[3])
