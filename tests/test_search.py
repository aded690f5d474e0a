"""Search by a text finds every payout and user that contains it, page by page, however few of many match.

What the text identifies (a reference, the beginning of an id, a user) comes first, on the first page, however old it is.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.world import Stack, World


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
        page = world.client.get("/api/v1/payouts", params={"q": "e-old-on", **cursor}).json()
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


PAYOUTS, USERS = "/api/v1/payouts", "/api/v1/users"
BEFORE_2100 = "2100-01-01T00:00:00Z"
ROWS = 10_001
"""Newer payouts and users than a test creates over the API: more than two pages of a search read."""

_ID = "('10000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid"
_NEWER_PAYOUTS = f"""
INSERT INTO payouts (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, account_number, status,
    scenario, attempts, metadata, step, changes, request_id, created_at, updated_at)
SELECT $1::uuid, {_ID}, CASE n % 1000 WHEN 0 THEN 'deep-' ELSE 'new-' END || n, 1, 'PKR', 'BANK', 'HBL', '12345678900004',
    'PENDING', 'pending', 0, '{{}}', 0, 1, 'r', now(), now() FROM generate_series(1, $2::int) n
"""
_NEWER_USERS = f"""
INSERT INTO users (merchant_id, id, name, external_id, vendor_user_id, earned, spent, credited, advances, finals, requested,
    approved, paid, version, created_at, updated_at)
SELECT $1::uuid, {_ID}, CASE n % 1000 WHEN 0 THEN 'Deep ' ELSE 'New ' END || n, 'new-' || n, n::text, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    now(), now() FROM generate_series(1, $2::int) n
"""


@pytest.fixture(scope="module")
def large(stack: Stack) -> Iterator[World]:
    with World.create(stack, opening_balance="1000.00") as world:
        stack.execute(_NEWER_PAYOUTS, world.merchant_id, ROWS)
        stack.execute(_NEWER_USERS, world.merchant_id, ROWS)
        yield world


def create_user(world: World, name: str, external_id: str | None = None) -> str:
    destination = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900004"}
    response = world.post(USERS, {"name": name, "external_id": external_id, "destination": destination})
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def pay(world: World, user_id: str) -> str:
    """Create a payout of the user and return its id."""
    world.post(f"{USERS}/{user_id}/transactions", {"type": "EARNED", "amount": "10.00"}).raise_for_status()
    response = world.post(f"{USERS}/{user_id}/payout", {"amount": "10.00"})
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def ids(world: World, path: str, q: str, **params: Any) -> list[str]:
    """Return the ids of all pages of a search, after checking that no page repeats an item."""
    items = found(world, path, "id", q=q, **params)
    assert len(items) == len(set(items))
    return items


def first_page(world: World, path: str, q: str, **params: Any) -> list[str]:
    return [item["id"] for item in world.get(path, q=q, **params).json()["data"]]


def deep(path: str) -> list[str]:
    return [f"10000000-0000-7000-8000-{number:012}" for number in range(ROWS - 1, 0, -1000)]


def test_a_payout_that_the_text_identifies_is_on_the_first_page_however_old_it_is(large: World) -> None:
    user_id = create_user(large, "U", "old-customer")
    payouts = [pay(large, user_id), pay(large, user_id)][::-1]
    old = large.create_payout("0005", merchant_reference="deep", account_title="Deep OLD")["id"]
    assert [first_page(large, PAYOUTS, text) for text in (old, old.upper(), f" {old} ", old[:-1])] == [[old]] * 4
    assert first_page(large, PAYOUTS, old[:2])[:3] == [old, *payouts]
    for text in (user_id, "old-customer"):
        assert [first_page(large, PAYOUTS, text), ids(large, PAYOUTS, text, limit=1)] == [payouts, payouts]
    assert first_page(large, PAYOUTS, payouts[1], user_id=user_id) == [payouts[1]]
    assert first_page(large, PAYOUTS, "old-customer", status="REQUESTED", merchant_reference="deep") == []
    # The reference comes first. The others that contain it follow, newest first, over several pages.
    for limit in (1, 2, 3, 10, 11, 12):
        assert ids(large, PAYOUTS, "deep", limit=limit) == [old, *deep(PAYOUTS)]
    assert ids(large, PAYOUTS, "DEEP", limit=5) == [*deep(PAYOUTS), old]
    assert ids(large, PAYOUTS, "deep", status="ON_HOLD") == [old]
    assert first_page(large, PAYOUTS, "EP OL", created_to=BEFORE_2100) == [old]
    assert ids(large, PAYOUTS, "deep", created_from=BEFORE_2100) == deep(PAYOUTS)
    assert ids(large, PAYOUTS, old[:2], status="ON_HOLD") == [old]
    assert ids(large, PAYOUTS, "10000000", status="ON_HOLD") == []
    assert ids(large, PAYOUTS, "10000000-0000-7000-8000-00000000000", limit=2) == [
        f"10000000-0000-7000-8000-00000000000{number}" for number in range(9, 0, -1)
    ]


def test_a_user_that_the_text_identifies_is_on_the_first_page_however_old_it_is(large: World) -> None:
    old = create_user(large, "An older one", "deep")
    assert [first_page(large, USERS, text) for text in (old, old.upper(), f" {old} ", old[:-1])] == [[old]] * 4
    for limit in (1, 2, 3, 10, 11, 12):
        assert ids(large, USERS, "deep", limit=limit) == [old, *deep(USERS)]
    assert ids(large, USERS, "DEEP", limit=5) == [*deep(USERS), old]
    assert first_page(large, USERS, "ee", external_id="deep") == first_page(large, USERS, old, external_id="deep") == [old]
    assert first_page(large, USERS, "nothing", external_id="deep") == []
    assert first_page(large, USERS, "N OLDER", created_to=BEFORE_2100) == [old]
    assert ids(large, USERS, "deep", created_from=BEFORE_2100) == deep(USERS)


def test_pages_of_what_is_identified_and_of_what_contains_the_text_neither_repeat_nor_miss_items(world: World) -> None:
    user_id = create_user(world, "U", "inv")
    of_user, containing, even = [], [], []
    for number in range(9):
        fields = {"merchant_reference": f"Inv-{number}", "metadata": {"even": str(number % 2 == 0)}}
        containing.append(world.create_payout("0004", **fields)["id"])
        even += containing[-1:] if number % 2 == 0 else []
        of_user += [pay(world, user_id)] if number % 3 == 0 else []
        world.create_payout("0004", merchant_reference=f"other-{number}", metadata={"even": "True"})
    for limit in (1, 2, 3, 4, 11, 12, 13):
        assert ids(world, PAYOUTS, "inv", limit=limit) == [*of_user[::-1], *containing[::-1]]
    assert ids(world, PAYOUTS, "inv", limit=2, **{"metadata[even]": "True"}) == even[::-1]
    assert ids(world, PAYOUTS, "inv", limit=2, user_id=user_id) == of_user[::-1]
    assert ids(world, PAYOUTS, "Inv-0", user_id=user_id) == ids(world, PAYOUTS, containing[0], user_id=user_id) == []
    assert ids(world, PAYOUTS, user_id, user_id=containing[0]) == []
    assert ids(world, PAYOUTS, "Inv-0", merchant_reference="Inv-2") == []
    assert ids(world, PAYOUTS, "Inv-0", created_to="2000-01-01T00:00:00Z") == []
    assert ids(world, PAYOUTS, "  ", limit=7) == found(world, PAYOUTS, "id")
    with World.create(world.stack) as other:
        assert [ids(other, PAYOUTS, text) for text in ("Inv-0", containing[0], user_id, "inv")] == [[]] * 4
        assert [ids(other, USERS, text) for text in (user_id, "inv")] == [[]] * 2


@pytest.mark.parametrize("text", ["%", "_", "\\", "a_b", "a%b", "\\%", "'", "[a]", "(?i)a"])
def test_characters_of_patterns_have_no_special_meaning(world: World, text: str) -> None:
    world.create_payout("0004", merchant_reference="axb", account_title="axb AXB")
    with_text = world.create_payout("0004", merchant_reference=f"1{text}2")["id"]
    in_title = world.create_payout("0004", account_title=f"1{text}2")["id"]
    create_user(world, "axb", "axb")
    user_id = create_user(world, f"1{text}2")
    assert ids(world, PAYOUTS, text) == [in_title, with_text]
    assert ids(world, USERS, text) == [user_id]
