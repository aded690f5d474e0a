"""Advances are paid at :00 and final payments at :30 of each merchant's own clock, once, in order with all other due work."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from sandbox.domain.enumerations import SalePaymentKind
from sandbox.domain.errors import unavailable
from sandbox.domain.sale import next_run
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.db.engine import connection
from sandbox.unit_of_work import runner
from sandbox.users.sales import scheduled
from sandbox.users.sales.scheduled import ScheduledSales
from sandbox.worlds.clock import advancer
from sandbox.worlds.clock.advancer import ClockAdvancer
from tests.harness.command import invoke
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.work import units_of_work
from tests.harness.world import Stack, World
from tests.test_clock import clock
from tests.test_due import due
from tests.test_sale_attempts import metric
from tests.test_sales import ADVANCE, REFUSED, reconcile, run, sales, sell
from tests.test_users import DESTINATION, make_user
from tests.test_world_bundles import exported, import_into
from worker.cron import cron_jobs

AT = "2031-01-01T10:10:00.000Z"
_MAKE_DUE = "UPDATE sales SET due_at = created_at WHERE merchant_id = $1 AND due_at IS NOT NULL"
_COUNTER = "SELECT id_sequence FROM worlds WHERE merchant_id = $1"


@pytest.fixture
def world(world: World) -> World:
    """Return the test's merchant, frozen at ten past ten."""
    clock(world, "freeze", at=AT)
    return world


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2031-01-01T{text}+00:00")


def balance(world: World, user_id: str) -> str:
    found: str = world.get(f"/api/v1/users/{user_id}/balance").json()["balance"]  # unlike the summary, not cached
    return found


@pytest.mark.parametrize(
    ("kind", "after", "expected"),
    [
        ("ADVANCE", "10:10:00", "11:00:00"),
        ("ADVANCE", "10:59:59.999", "11:00:00"),
        ("ADVANCE", "11:00:00", "12:00:00"),
        ("FINAL", "10:10:00", "10:30:00"),
        ("FINAL", "10:30:00", "11:30:00"),
        ("FINAL", "10:45:00", "11:30:00"),
    ],
)
def test_the_next_run_is_the_first_one_after_a_time(kind: SalePaymentKind, after: str, expected: str) -> None:
    assert next_run(kind, at(after)) == at(expected)


def test_two_hours_run_advances_and_finals_in_order_with_the_other_work_that_was_listed(
    world: World, receiver: Receiver
) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.failed"]})
    steps = [{"to": "PROCESSING"}, {"to": "FAILED", "after": 50 * 60}]
    assert world.post("/sandbox/v1/scenarios", {"name": "own", "match": {"suffix": "7777"}, "steps": steps}).status_code == 201
    payout = world.create_payout("7777")["id"]
    user_id, refused = make_user(world), make_user(world, destination=REFUSED)
    approved, pending, failing = sell(world, user_id, "40"), sell(world, user_id, "20"), sell(world, refused, "30")
    reconcile(world, **{approved: "APPROVED"})
    listed = due(world)["data"]
    items = [(item["due_at"][11:16], item["kind"], item.get("sale_id"), item.get("amount")) for item in listed]
    assert items == [
        ("10:30", "sale_payment", approved, "40.00"), ("11:00", "payout_step", None, None),
        ("11:00", "sale_payment", pending, "2.00"), ("11:00", "sale_payment", failing, "3.00"),
    ]  # fmt: skip
    assert [item["description"] for item in listed if item["kind"] == "sale_payment"][:2] == [
        "FINAL of 40.00 for Khaadi", "ADVANCE of 2.00 for Khaadi",
    ]  # fmt: skip
    assert due(world, payout_id=payout)["data"] == listed[1:2]
    arguments = ["--url", world.stack.api_url, "--api-key", world.api_key]
    assert f"sale {approved}: FINAL of 40.00 for Khaadi" in invoke("clock", "due", *arguments).stdout

    ran = clock(world, "advance", seconds=7200)
    assert (ran["complete"], ran["steps"]) == (True, 6)
    assert [(step["at"][11:], step["kind"], step.get("sale_id"), step.get("error")) for step in ran["ran"]] == [
        ("10:30:00.000Z", "sale_payment", approved, None), ("11:00:00.000Z", "payout_step", None, None),
        ("11:00:00.000Z", "sale_payment", pending, None),
        ("11:00:00.000Z", "sale_payment", failing, "ADVANCE failed: BANK_REJECTED (scenario failed)"),
        ("11:00:00.000Z", "delivery_attempt", None, None),
        ("12:00:00.000Z", "sale_payment", failing, "ADVANCE failed: BANK_REJECTED (scenario failed)"),
    ]  # fmt: skip
    assert [(step["payment"], step["amount"]) for step in ran["ran"] if step["kind"] == "sale_payment"] == [
        ("FINAL", "40.00"), ("ADVANCE", "2.00"), ("ADVANCE", "3.00"), ("ADVANCE", "3.00"),
    ]  # fmt: skip
    assert (balance(world, user_id), balance(world, refused)) == ("42.00", "0.00")
    found = sales(world)
    assert found[approved]["payments"][0]["created_at"] == "2031-01-01T10:30:00.000Z"
    assert found[pending]["payments"][0]["created_at"] == "2031-01-01T11:00:00.000Z"
    assert found[failing]["attempts"] == 2
    world.assert_clean()

    reconcile(world, **{pending: "DECLINED"})
    shown = invoke("clock", "advance", "1h", *arguments).stdout
    assert f"sale {pending}: FINAL of -2.00" in shown
    assert f"sale {failing}: ADVANCE failed: BANK_REJECTED" in shown


def test_a_corrected_sale_is_paid_by_the_next_of_several_runs_and_a_request_does_not_wait_for_one(world: World) -> None:
    user_id = make_user(world, destination=REFUSED)
    sale_id = sell(world, user_id, "40")
    assert run(world, ADVANCE)["failed"] == 1
    ran = clock(world, "advance", to="2031-01-01T13:05:00Z")["ran"]
    assert [step["at"][11:16] for step in ran] == ["11:00", "12:00", "13:00"]
    world.patch(f"/api/v1/users/{user_id}", {"destination": DESTINATION})
    assert [step["at"][11:16] for step in clock(world, "advance", to="2031-01-01T18:00:00Z")["ran"]] == ["14:00"]
    assert (sales(world)[sale_id]["attempts"], balance(world, user_id)) == (5, "4.00")
    sell(world, user_id, "50")
    assert run(world, ADVANCE)["paid"] == 1
    assert due(world)["data"] == []
    assert clock(world, "advance", seconds=7200)["steps"] == 0
    world.assert_clean()


def test_more_sales_than_one_transaction_pays_are_all_paid_at_their_time_before_webhooks_are_sent(world: World) -> None:
    user_id = make_user(world)
    world.stack.execute(
        "INSERT INTO sales (merchant_id, id, user_id, brand, earning, status, advance_due, final_due, due_at, created_at) "
        "SELECT $1, gen_random_uuid(), $2, 'b', 10, 'PENDING', true, false, '2031-01-01T11:00:00Z', $3 "
        "FROM generate_series(1, 1001)",
        world.merchant_id, user_id, at("10:10:00"),
    )  # fmt: skip
    ran = clock(world, "advance", seconds=7200)
    assert (ran["complete"], ran["steps"], len(ran["ran"])) == (True, 1001, 1000)
    assert {step["at"] for step in ran["ran"]} == {"2031-01-01T11:00:00.000Z"}
    assert balance(world, user_id) == "1001.00"
    world.assert_clean()


@pytest.mark.usefixtures("pool")
async def test_a_merchant_without_open_sales_has_one_transaction_and_no_more_statements(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = make_user(world)
    sell(world, user_id, "40")
    run(world, ADVANCE)
    async with connection(world.merchant_id) as conn:
        counter = await conn.fetchval(_COUNTER, world.merchant_id)
    work = units_of_work()
    transactions: list[object] = []
    run_transaction = work.run_transaction

    async def count(*arguments: Any, **options: Any) -> Any:
        transactions.append(arguments)
        return await run_transaction(*arguments, **options)

    async def fail(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(work, "run_transaction", count)
    for name in ("pay_due", "claim_due"):
        monkeypatch.setattr(advancer, name, fail)
    done = await ClockAdvancer(work).run(world.merchant_id, at("19:00:00"))
    assert (done.steps, len(transactions)) == (0, 1)
    async with connection(world.merchant_id) as conn:
        assert await conn.fetchval(_COUNTER, world.merchant_id) == counter


@pytest.mark.usefixtures("pool")
async def test_an_advance_that_fails_while_it_pays_continues_and_pays_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = make_user(world)
    sale_id = sell(world, user_id, "40")
    reconcile(world, **{sell(world, user_id, "30"): "APPROVED"})
    write, calls = runner.write, iter(range(1, 9))

    async def write_or_fail(conn: Any, units: Sequence[UnitOfWork], **_: Any) -> None:
        await write(conn, units)
        if next(calls) == 2:
            raise MemoryError

    runs = metric("psp_sales_runs", kind="ADVANCE", cause="clock")
    clocks = ClockAdvancer(units_of_work())
    with monkeypatch.context() as patched:
        patched.setattr(runner, "write", write_or_fail)
        with pytest.raises(MemoryError):
            await clocks.run(world.merchant_id, at("12:00:00"))
    assert world.get("/sandbox/v1/clock").json()["now"] == "2031-01-01T10:30:00.000Z"
    assert balance(world, user_id) == "30.00"
    done = await clocks.run(world.merchant_id, at("12:00:00"))
    assert [getattr(step, "sale_id", None) for step in done.executed] == [sale_id]
    assert (balance(world, user_id), sales(world)[sale_id]["attempts"]) == ("34.00", 1)
    assert metric("psp_sales_runs", kind="ADVANCE", cause="clock") == runs + 1
    world.assert_clean()


@pytest.mark.usefixtures("pool")
async def test_a_worker_pays_by_each_running_merchants_own_clock_and_never_a_frozen_one(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    past, soon = "2020-01-01T10:10:00Z", "2031-01-01T10:59:59.900Z"
    with World.create(stack, frozen_at=past) as frozen, World.create(stack, frozen_at=soon) as running:
        users = {merchant: make_user(merchant) for merchant in (frozen, running)}
        for merchant, user_id in users.items():
            for _ in range(3):
                sell(merchant, user_id, "40")
        assert running.client.post("/sandbox/v1/clock/resume").status_code == 200
        monkeypatch.setattr("sandbox.users.sales.payments.CHUNK", 2)
        monkeypatch.setattr(scheduled, "CHUNK", 2)
        payer = ScheduledSales(units_of_work())
        while running.get("/sandbox/v1/clock").json()["now"] < "2031-01-01T11":
            pass
        await payer.pay_all()
        assert (balance(running, users[running]), balance(frozen, users[frozen])) == ("12.00", "0.00")
        for merchant in (running, frozen):
            assert not await payer.pay(merchant.merchant_id)
        assert (balance(running, users[running]), balance(frozen, users[frozen])) == ("12.00", "0.00")
        running.assert_clean()
        assert [step["at"] for step in clock(frozen, "advance", seconds=3600)["ran"]] == ["2020-01-01T11:00:00.000Z"] * 3


def test_the_workers_schedule_pays_a_running_merchant(world: World) -> None:
    user_id = make_user(world)
    sell(world, user_id, "40")
    clock(world, "freeze", at="2031-01-01T10:59:59.900Z")
    clock(world, "resume")
    until(lambda: balance(world, user_id) == "4.00", 30)
    assert re.fullmatch(r"2031-01-01T11:00:[012]\d\.\d{3}Z", next(iter(sales(world).values()))["payments"][0]["created_at"])


def test_the_worker_looks_for_due_sales_every_ten_seconds() -> None:
    (job,) = cron_jobs()
    job.calculate_next(datetime(2026, 3, 1, 11, 59, 51, tzinfo=UTC))
    assert job.next_run.replace(microsecond=0) == datetime(2026, 3, 1, 12, tzinfo=UTC)
    job.calculate_next(job.next_run)
    assert job.next_run.replace(microsecond=0) == datetime(2026, 3, 1, 12, 0, 10, tzinfo=UTC)


@pytest.mark.usefixtures("pool")
async def test_a_merchant_whose_payments_fail_does_not_stop_those_of_the_others(stack: Stack) -> None:
    with World.create(stack) as deleted, World.create(stack) as contended, World.create(stack) as broken:
        for merchant in (deleted, contended, broken):
            sell(merchant, make_user(merchant, destination=REFUSED), "40")
        with World.create(stack) as last:
            user_id = make_user(last)
            sell(last, user_id, "40")

            class Failing(ScheduledSales):
                async def pay(self, merchant_id: str) -> bool:
                    if merchant_id == deleted.merchant_id:
                        headers = {"X-ADMIN-KEY": stack.admin_key}
                        deleted.client.delete(f"/sandbox/v1/merchants/{merchant_id}", headers=headers)
                    if merchant_id == contended.merchant_id:
                        raise unavailable("Too much contention; retry.")
                    if merchant_id == broken.merchant_id:
                        raise ArithmeticError
                    return await super().pay(merchant_id)

            failed: set[str] = set()
            while not failed:  # again, if the sandbox's own worker came first
                for merchant in (deleted, contended, broken, last):
                    async with connection(merchant.merchant_id) as conn:
                        await conn.execute(_MAKE_DUE, merchant.merchant_id)
                with capture_logs() as logs:
                    await Failing(units_of_work()).pay_all()
                failed = {log["merchant_id"] for log in logs if log["event"] == "sales_run_failed"}
            assert failed == {contended.merchant_id, broken.merchant_id}
            assert balance(last, user_id) == "4.00"


def test_a_snapshot_and_a_bundle_keep_due_times(stack: Stack, world: World) -> None:
    user_id = make_user(world)
    for earning in ("40", "30", "20"):
        sale_id = sell(world, user_id, earning)
    reconcile(world, **{sale_id: "APPROVED"})
    listed = due(world)["data"]
    assert [(item["due_at"][11:16], item["payment"]) for item in listed] == [
        ("10:30", "FINAL"), ("11:00", "ADVANCE"), ("11:00", "ADVANCE"),
    ]  # fmt: skip
    snapshot = world.post("/sandbox/v1/snapshots", {"name": "open"}).json()["id"]
    bundle = exported(world)
    assert clock(world, "advance", seconds=3600)["steps"] == 3
    assert world.post(f"/sandbox/v1/snapshots/{snapshot}/restore").status_code == 200
    assert due(world)["data"] == listed
    with World.create(stack) as other:
        import_into(other, bundle)
        assert due(other)["data"] == listed
        assert clock(other, "advance", seconds=3600)["steps"] == 3
        assert balance(other, user_id) == "27.00"
        other.assert_clean()
