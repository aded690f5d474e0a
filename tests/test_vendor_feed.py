"""The vendor feed: the documented format, the limit across processes, and stable pages while rows are added."""

import itertools
import uuid
from datetime import UTC, datetime, timedelta

import httpx

from sandbox.domain.clock import milliseconds, render
from sandbox.domain.ids import uuid7
from tests.harness.world import Stack, World

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
_counter = itertools.count(1)


def add_user(world: World, vendor_user_id: str) -> str:
    """Insert a user with SQL and return its id."""
    user_id = str(uuid.uuid4())
    world.stack.execute(
        "INSERT INTO users (merchant_id, id, name, vendor_user_id, earned, spent, credited, advances, finals, requested, "
        "approved, paid, version, created_at, updated_at) VALUES ($1, $2, 'U', $3, 0, 0, 0, 0, 0, 0, 0, 0, 0, $4, $4)",
        world.merchant_id, user_id, vendor_user_id, START,
    )  # fmt: skip
    return user_id


def add_rows(world: World, user_id: str, rows: list[tuple[str, str, datetime]]) -> list[str]:
    """Insert transactions (type, amount, time) with SQL and return their ids, which are generated as in the application."""
    ids = [uuid7(milliseconds(at), next(_counter), 0) for _, _, at in rows]
    world.stack.execute(
        "INSERT INTO user_transactions (merchant_id, id, user_id, type, amount, transfer_id, payout_id, created_at) "
        "SELECT $1, id, $2, type, amount, CASE WHEN type IN ('EARNED', 'SPENT') THEN id END, "
        "CASE WHEN type IN ('PAYOUT', 'PAID_OUT') THEN id END, at "
        "FROM unnest($3::uuid[], $4::text[], $5::text[]::numeric[], $6::timestamptz[]) AS r (id, type, amount, at)",
        world.merchant_id, user_id, ids, [kind for kind, _, _ in rows], [amount for _, amount, _ in rows],
        [at for _, _, at in rows],
    )  # fmt: skip
    return ids


def new_key_header(world: World) -> dict[str, str]:
    """Create an API key, which has its own rate limit, and return its header."""
    return {"X-API-KEY": world.client.post("/sandbox/v1/keys", json={"role": "member"}).json()["api_key"]}


def test_rows_have_the_documented_format(world: World) -> None:
    ids = add_rows(world, add_user(world, "074092"), [("EARNED", "1.2", START), ("PAID_OUT", "500", START)])
    response = world.get("/vendor/v1/transactions")
    assert response.status_code == 200
    assert response.json() == {
        "items": [
            {"id": ids[0], "userId": "074092", "createdAt": "2026-03-01T12:00:00.000Z", "type": "earned", "amount": "1.20"},
            {"id": ids[1], "userId": "074092", "createdAt": "2026-03-01T12:00:00.000Z", "type": "paid_out", "amount": "500.00"},
        ],
        "meta": {"totalItems": 2, "itemCount": 2, "itemsPerPage": 100, "totalPages": 1, "currentPage": 1},
    }  # fmt: skip


def test_without_rows_every_page_is_empty(world: World) -> None:
    for number in (1, 9):
        assert world.get("/vendor/v1/transactions", page=number).json() == {
            "items": [],
            "meta": {"totalItems": 0, "itemCount": 0, "itemsPerPage": 100, "totalPages": 0, "currentPage": number},
        }


def test_rows_keep_their_pages_while_rows_are_added(world: World) -> None:
    user = add_user(world, "12")
    ids = add_rows(world, user, [("EARNED", "1", START + timedelta(seconds=n)) for n in range(7)])
    first = world.get("/vendor/v1/transactions", page=1, limit=3).json()
    ids += add_rows(world, user, [("SPENT", "1", START + timedelta(seconds=7))])
    rest = [world.get("/vendor/v1/transactions", page=number, limit=3).json() for number in (2, 3)]
    assert [row["id"] for page in (first, *rest) for row in page["items"]] == ids
    assert [page["meta"]["totalItems"] for page in (first, *rest)] == [7, 8, 8]
    assert rest[1]["meta"] == {"totalItems": 8, "itemCount": 2, "itemsPerPage": 3, "totalPages": 3, "currentPage": 3}


def test_start_and_end_dates_are_inclusive_and_a_date_covers_the_whole_day(world: World) -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    times = [START, START + timedelta(milliseconds=1), midnight - timedelta(milliseconds=1), midnight]
    ids = add_rows(world, add_user(world, "12"), [("EARNED", "1", at) for at in times])
    cases = [
        ({"startDate": render(START), "endDate": render(START)}, ids[:1]),
        ({"startDate": "2026-03-01T12:00:00.0005Z"}, ids[1:]),
        ({"startDate": "2026-03-01", "endDate": "2026-03-01"}, ids[:3]),
        ({"startDate": "2026-03-02"}, ids[3:]),
        ({"endDate": "2026-03-01T17:00:00+05:00"}, ids[:1]),
        ({"startDate": "2026-03-03", "endDate": "2026-03-01"}, []),
    ]
    keys = [new_key_header(world), new_key_header(world)]
    for number, (params, expected) in enumerate(cases):
        response = world.client.get("/vendor/v1/transactions", params=params, headers=keys[number % 2])
        assert [row["id"] for row in response.json()["items"]] == expected, params


def test_a_key_is_limited_to_five_requests_per_minute_across_processes_and_parameters(stack: Stack, world: World) -> None:
    key = new_key_header(world)
    # Use a new connection each time, so that both API processes get requests.
    responses = [
        httpx.get(f"{stack.api_url}/vendor/v1/transactions", params=params, headers=key, timeout=60)
        for params in ({}, {"limit": "0"}, {"page": "2"}, {}, {"limit": "1000"}, {}, {"limit": "0"})
    ]
    assert [response.status_code for response in responses] == [200, 400, 200, 200, 200, 429, 429]
    assert responses[5].json()["code"] == "RATE_LIMITED"
    assert 1 <= int(responses[5].headers["retry-after"]) <= 60
    assert world.get("/vendor/v1/transactions").status_code == 200, "another key must have its own limit"


def test_the_keys_of_two_merchants_with_one_seed_have_separate_limits(stack: Stack) -> None:
    """The two keys have the same id."""
    with World.create(stack, seed=1) as world, World.create(stack, seed=1) as twin:
        keys = [merchant.get("/sandbox/v1/keys").json()["data"][0]["id"] for merchant in (world, twin)]
        assert keys[0] == keys[1]
        assert [world.get("/vendor/v1/transactions").status_code for _ in range(6)] == [200] * 5 + [429]
        assert twin.get("/vendor/v1/transactions").status_code == 200
