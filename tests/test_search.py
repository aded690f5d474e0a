"""Search by a text finds every payout and user that contains it, page by page, however few of many match."""

from typing import Any

import pytest

from tests.harness.world import World


def found(world: World, path: str, field: str, **params: Any) -> list[str]:
    """Fetch all pages of a search, and return a field of the items."""
    items: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        response = world.client.get(path, params={**params, **cursor})
        assert response.status_code == 200, response.text
        page = response.json()
        items += [item[field] for item in page["data"]]
        if not page["has_more"]:
            return items
        cursor = {"cursor": page["next_cursor"]}


def references(world: World, q: str, **params: Any) -> list[str]:
    return found(world, "/api/v1/payouts", "merchant_reference", q=q, **params)


@pytest.fixture
def payouts(world: World) -> list[dict[str, Any]]:
    user = world.post(
        "/api/v1/users",
        {"name": "Ayesha Khan", "external_id": "customer-7",
         "destination": {"dest_type": "BANK", "bank_code": "HBL", "account_number": "99999999990004"}},
    ).json()  # fmt: skip
    world.post(f"/api/v1/users/{user['id']}/transactions", {"type": "EARNED", "amount": "50.00"})
    requested = world.post(f"/api/v1/users/{user['id']}/payout", {"amount": "5.00"}).json()
    created = [
        world.create_payout("0004", merchant_reference="Order-100%", account_title="Bilal Ahmed"),
        world.create_payout("0004", merchant_reference="order_2", account_number="11112222330004"),
        world.create_payout("0003", merchant_reference="refund-3"),
    ]
    return [requested, *created]


def test_payouts_are_found_by_reference_account_title_id_and_user(world: World, payouts: list[dict[str, Any]]) -> None:
    requested, first, second, third = payouts
    assert references(world, "ORDER") == ["order_2", "Order-100%"]
    assert references(world, "r", limit=1) == ["refund-3", "order_2", "Order-100%", *references(world, "r")[3:]]
    assert references(world, "1111 2222") == ["order_2"]
    assert references(world, "bilal") == ["Order-100%"]
    assert references(world, third["id"]) == ["refund-3"]
    assert references(world, second["id"][-8:]) == ["order_2"]
    assert references(world, "customer-7") == [requested["merchant_reference"]]
    assert references(world, requested["user_id"]) == [requested["merchant_reference"]]
    assert references(world, "nothing like it") == []
    assert first["id"] in found(world, "/api/v1/payouts", "id", q="Order-100%")


def test_a_text_is_not_a_pattern(world: World, payouts: list[dict[str, Any]]) -> None:
    assert references(world, "%") == ["Order-100%"]
    assert references(world, "order_") == ["order_2"]
    assert references(world, "order.*") == []


def test_a_search_combines_with_the_filters(world: World, payouts: list[dict[str, Any]]) -> None:
    assert references(world, "order", merchant_reference="order_2") == ["order_2"]
    assert references(world, "order", status="FAILED,SUCCESS") == []
    assert references(world, "order", dest_type="WALLET") == []
    assert references(world, "order", created_to="2000-01-01T00:00:00Z") == []
    assert references(world, "5", user_id=payouts[0]["user_id"]) in ([payouts[0]["merchant_reference"]], [])


def test_a_page_reads_a_bounded_number_of_payouts_and_the_next_page_continues(world: World) -> None:
    """More payouts than one page reads: an old match is on a later page, and the pages before it are empty."""
    old = world.create_payout("0004", merchant_reference="the-old-one", amount="1.00")
    columns = "dest_type, bank_code, account_number, account_title, amount, currency, scenario, status"
    known = [
        row["column_name"]
        for row in world.stack.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'payouts' AND is_generated = 'NEVER'"
        )
    ]
    copied = ", ".join(name for name in known if name not in ("id", "merchant_reference", "due_at"))
    assert all(name in known for name in columns.split(", "))
    world.stack.execute(
        f"INSERT INTO payouts (id, merchant_reference, {copied}) "
        f"SELECT ('ffffffff-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'bulk-' || n, {copied} "
        "FROM payouts CROSS JOIN generate_series(1, 10001) n WHERE id = $1",
        old["id"],
    )
    pages, cursor = [], {}
    while True:
        page = world.client.get("/api/v1/payouts", params={"q": "the-old-one", **cursor}).json()
        pages.append([payout["id"] for payout in page["data"]])
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert pages == [[], [], [old["id"]]]
    world.stack.execute("DELETE FROM payouts WHERE merchant_reference LIKE 'bulk-%' AND merchant_id = $1", world.merchant_id)


def test_users_are_found_by_name_external_id_and_id(world: World) -> None:
    for number, name in enumerate(("Ayesha Khan", "Bilal Khan", "Danish")):
        assert world.post("/api/v1/users", {"name": name, "external_id": f"customer-{number}"}).status_code == 201
    everyone = {user["name"]: user["id"] for user in world.get("/api/v1/users").json()["data"]}

    def names(q: str, **params: Any) -> list[str]:
        return found(world, "/api/v1/users", "name", q=q, **params)

    assert names("khan", limit=1) == ["Bilal Khan", "Ayesha Khan"]
    assert names("CUSTOMER-2") == ["Danish"]
    assert names(everyone["Danish"]) == ["Danish"]
    assert names("customer", external_id="customer-1") == ["Bilal Khan"]
    assert names("_") == []
