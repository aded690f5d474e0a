"""Sales, advances, reconciliation and final payments: amounts are as documented, and each sale is paid once."""

import threading
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.domain.sale import advance_of, final_of
from sandbox.domain.unit import IdempotencyKey, UnitOfWork
from sandbox.unit_of_work import runner
from sandbox.users.sales.service import CHUNK, SalesService
from tests.harness.work import request_of, units_of_work
from tests.harness.world import World
from tests.test_users import DESTINATION, make_user, summary

ADVANCE, FINAL = "/api/v1/payouts/advance/run", "/api/v1/payouts/final/run"
AMOUNTS = st.decimals(Decimal("0.01"), Decimal("999999999999.99"), places=2)
REFUSED = {**DESTINATION, "account_number": "12345678900003"}


@pytest.fixture
def world(world: World) -> World:
    """Return the test's merchant with a frozen clock, so that the sandbox itself pays no sales."""
    assert world.post("/sandbox/v1/clock/freeze").status_code == 200
    return world


def sell(world: World, user_id: str, earning: str) -> str:
    response = world.post("/api/v1/sales", {"user_id": user_id, "brand": "Khaadi", "earning": earning})
    assert response.status_code == 201, response.text
    assert response.json()["status"] == "PENDING"
    sale_id: str = response.json()["id"]
    return sale_id


def run(world: World, path: str) -> dict[str, Any]:
    response = world.post(path)
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    return result


def reconcile(world: World, **statuses: str) -> httpx.Response:
    return world.post("/api/v1/reconcile", [{"sale_id": sale_id, "status": status} for sale_id, status in statuses.items()])


def sales(world: World, **filters: str) -> dict[str, dict[str, Any]]:
    return {sale["id"]: sale for sale in world.get("/api/v1/sales", **filters).json()["data"]}


def test_three_sales_of_40_with_one_declined_pay_80_in_total(world: World) -> None:
    user_id = make_user(world)
    ids = [sell(world, user_id, "40.00") for _ in range(3)]
    assert run(world, ADVANCE) == {"paid": 3, "failed": 0, "total_amount": "12.00"}
    assert [sale["advance_amount"] for sale in sales(world).values()] == ["4.00"] * 3
    assert run(world, ADVANCE) == {"paid": 0, "failed": 0, "total_amount": "0.00"}
    response = reconcile(world, **{ids[0]: "DECLINED", ids[1]: "APPROVED", ids[2]: "APPROVED"})
    assert response.status_code == 200, response.text
    assert response.json()["reconciled"] == 3
    assert run(world, FINAL) == {"paid": 3, "failed": 0, "total_amount": "68.00"}
    assert [sales(world)[sale_id]["final_amount"] for sale_id in ids] == ["-4.00", "36.00", "36.00"]
    assert run(world, FINAL)["paid"] == 0
    assert summary(world, user_id)["balance"] == "80.00"
    assert set(sales(world, status="APPROVED")) == set(ids[1:])
    world.assert_clean()


@pytest.mark.parametrize(
    ("earning", "status", "advance", "final"),
    [
        ("30", "APPROVED", "3.00", "27.00"),
        ("50", "DECLINED", "5.00", "-5.00"),
        ("0.05", "APPROVED", "0.01", "0.04"),
        ("33.33", "APPROVED", "3.33", "30.00"),
        ("0.04", "DECLINED", "0.00", "0.00"),
    ],
)
def test_advance_and_final_payment_amounts(world: World, earning: str, status: str, advance: str, final: str) -> None:
    sale_id = sell(world, make_user(world), earning)
    assert run(world, ADVANCE)["total_amount"] == advance
    reconcile(world, **{sale_id: status})
    assert run(world, FINAL)["total_amount"] == final
    found = sales(world)[sale_id]
    assert (found["advance_amount"], found["final_amount"]) == (advance, final)
    world.assert_clean()


def test_a_sale_reconciled_before_its_advance_is_paid_in_full_by_the_final_payment(world: World) -> None:
    sale_id = sell(world, make_user(world), "40")
    reconcile(world, **{sale_id: "APPROVED"})
    assert run(world, ADVANCE)["paid"] == 0
    assert run(world, FINAL)["total_amount"] == "40.00"
    world.assert_clean()


def test_concurrent_runs_pay_each_sale_once(world: World) -> None:
    user_id = make_user(world)
    for _ in range(20):
        sell(world, user_id, "10")
    results: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: results.append(run(world, ADVANCE))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result["paid"] for result in results) == 20
    assert sum(Decimal(result["total_amount"]) for result in results) == 20
    assert summary(world, user_id)["balance"] == "20.00"
    world.assert_clean()


def test_a_run_pays_more_sales_than_one_chunk_and_is_replayed(world: World) -> None:
    user_id = make_user(world)
    world.stack.execute(
        "INSERT INTO sales (merchant_id, id, user_id, brand, earning, status, advance_due, final_due, due_at, created_at) "
        "SELECT $1, gen_random_uuid(), $2, 'b', 10, 'PENDING', true, false, now(), now() FROM generate_series(1, $3)",
        world.merchant_id,
        user_id,
        CHUNK + 7,
    )
    key = str(uuid.uuid4())
    first = world.post(ADVANCE, key=key)
    assert first.json() == {"paid": CHUNK + 7, "failed": 0, "total_amount": f"{CHUNK + 7}.00"}
    again = world.post(ADVANCE, key=key)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    world.assert_clean()


def test_reconciliation_is_all_or_nothing(world: World) -> None:
    user_id = make_user(world)
    first, second = sell(world, user_id, "40"), sell(world, user_id, "40")
    response = reconcile(world, **{first: "APPROVED", str(uuid.uuid4()): "APPROVED"})
    assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")
    assert set(sales(world, status="PENDING")) == {first, second}
    assert reconcile(world, **{first: "APPROVED"}).status_code == 200
    response = reconcile(world, **{second: "APPROVED", first: "APPROVED"})
    assert (response.status_code, response.json()["code"]) == (409, "ALREADY_RECONCILED")
    assert set(sales(world, status="PENDING")) == {second}
    item = {"sale_id": second, "status": "APPROVED"}
    assert world.post("/api/v1/reconcile", [item, item]).json()["code"] == "VALIDATION_ERROR"
    member = world.post("/sandbox/v1/keys", {"role": "member"}).json()["api_key"]
    world.client.headers["X-API-KEY"] = member
    assert reconcile(world, **{second: "APPROVED"}).status_code == 403


@given(AMOUNTS)
def test_advance_and_final_add_up_to_the_earning_or_to_zero(earning: Decimal) -> None:
    advance = advance_of(earning)
    assert advance + final_of(earning, advance, "APPROVED") == earning
    assert advance + final_of(earning, advance, "DECLINED") == 0
    assert abs(advance - earning / 10) <= Decimal("0.005")


@pytest.mark.usefixtures("pool")
async def test_a_run_interrupted_between_chunks_resumes_and_reports_the_whole_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = make_user(world)
    for _ in range(5):
        sell(world, user_id, "10")
    monkeypatch.setattr("sandbox.users.sales.service.CHUNK", 2)
    context = request_of(world.merchant_id, IdempotencyKey(str(uuid.uuid4()), b"one run"))
    sales = SalesService(units_of_work())
    write, chunks = runner.write, iter(range(1, 4))

    async def write_or_fail(conn: Any, units: Sequence[UnitOfWork], **_: Any) -> None:
        await write(conn, units)
        if next(chunks) == 3:
            raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(runner, "write", write_or_fail)
        with pytest.raises(MemoryError):
            await sales.run(context, "ADVANCE")
    response = await sales.run(context, "ADVANCE")
    assert response.body == b'{"paid":5,"failed":0,"total_amount":"5.00"}'
    again = await sales.run(context, "ADVANCE")
    assert (again.body, again.replayed) == (response.body, True)
    world.assert_clean()
