"""A merchant's API keys can be created and revoked, but the last admin key remains. Also the options of new merchants."""

import hashlib
import threading
import uuid
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.worlds.merchants.key_format import SECRET_SIZE, merchant_of, new_api_key
from tests.harness.waiting import until
from tests.harness.world import Stack, World

KEYS = "/sandbox/v1/keys"


def _ids(world: World) -> dict[str, str]:
    return {key["name"]: key["id"] for key in world.get(KEYS).json()["data"]}


def test_keys_can_be_created_listed_and_revoked(world: World) -> None:
    created = world.post(KEYS, {"role": "member", "name": "checkout"})
    assert created.status_code == 201
    assert sorted(created.json()) == ["api_key", "id", "role"]
    assert created.headers["location"] == f"{KEYS}/{created.json()['id']}"
    listed = world.get(KEYS).json()["data"]
    assert [(key["name"], key["role"]) for key in listed] == [("checkout", "member"), ("first key", "admin")]
    assert sorted(listed[0]) == ["created_at", "id", "name", "role"]
    assert world.client.delete(f"{KEYS}/{created.json()['id']}").status_code == 204
    assert [key["name"] for key in world.get(KEYS).json()["data"]] == ["first key"]
    assert world.client.delete(f"{KEYS}/{created.json()['id']}").status_code == 404


def test_the_last_admin_key_cannot_be_revoked(world: World) -> None:
    world.post(KEYS, {"role": "member"})
    (first,) = [key["id"] for key in world.get(KEYS).json()["data"] if key["role"] == "admin"]
    refused = world.client.delete(f"{KEYS}/{first}")
    assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE")
    assert "admin" in refused.json()["detail"]
    second = world.post(KEYS, {"role": "admin", "name": "second"}).json()
    assert world.client.delete(f"{KEYS}/{first}").status_code == 204
    with httpx.Client(base_url=world.stack.api_url, headers={"X-API-KEY": second["api_key"]}, timeout=60) as client:
        assert client.delete(f"{KEYS}/{second['id']}").status_code == 409
        assert client.get("/api/v1/balance").status_code == 200


def test_two_admins_that_revoke_each_other_leave_one_admin_key(stack: Stack) -> None:
    for _ in range(5):
        with World.create(stack) as world:
            other = world.post(KEYS, {"role": "admin", "name": "other"}).json()
            first_id = _ids(world)["first key"]
            barrier, statuses = threading.Barrier(2), []

            def revoke(api_key: str, key_id: str, barrier: threading.Barrier = barrier, to: list[int] = statuses) -> None:
                with httpx.Client(base_url=stack.api_url, headers={"X-API-KEY": api_key}, timeout=60) as client:
                    client.get("/health")
                    barrier.wait()
                    to.append(client.delete(f"{KEYS}/{key_id}").status_code)

            threads = [
                threading.Thread(target=revoke, args=pair)
                for pair in ((world.api_key, other["id"]), (other["api_key"], first_id))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # The slower request is refused: by the rule, or because its own key was revoked before the request arrived.
            assert sorted(statuses) in ([204, 401], [204, 409])
            admins = "SELECT count(*) FROM api_keys WHERE merchant_id = $1 AND role = 'admin' AND revoked_at IS NULL"
            assert stack.execute(admins, world.merchant_id) == [{"count": 1}]


# New merchants.


@pytest.mark.parametrize("zero", [0, "0", "0.00", 0.0])
def test_a_merchant_may_start_with_a_zero_balance(stack: Stack, zero: Any) -> None:
    with World.create(stack, opening_balance=zero) as world:
        assert world.balance() == ("0.00", "0.00")
        assert world.get("/api/v1/balance/history").json()["data"] == []
        assert world.post("/sandbox/v1/reset").json()["balance"]["available_balance"] == "0.00"
        world.assert_clean()


def test_a_merchant_may_start_with_a_frozen_clock_which_a_reset_restores(stack: Stack) -> None:
    at = "2036-01-31T12:00:00.000Z"
    with World.create(stack, opening_balance="10.00", frozen_at="2036-01-31T17:00:00+05:00", seed=7) as world:
        clock = world.get("/sandbox/v1/clock").json()
        assert (clock["now"], clock["frozen"]) == (at, True)
        assert {entry["created_at"] for entry in world.get("/api/v1/balance/history").json()["data"]} == {at}
        ids = [entry["id"] for entry in world.get("/api/v1/balance/history").json()["data"]]
        world.post("/sandbox/v1/clock/advance", {"seconds": 3600})
        world.post("/sandbox/v1/clock/resume")
        world.post("/sandbox/v1/reset")
        clock = world.get("/sandbox/v1/clock").json()
        assert (clock["now"], clock["frozen"]) == (at, True)
        assert [entry["id"] for entry in world.get("/api/v1/balance/history").json()["data"]] == ids
        world.assert_clean()


@pytest.mark.parametrize("at", ["tomorrow", "1969-12-31T23:59:59Z", "2031-01-01T00:00:00", "9500-01-01T00:00:00Z", 1, ""])
def test_an_invalid_frozen_at_is_refused(stack: Stack, at: Any) -> None:
    response = httpx.post(
        f"{stack.api_url}/sandbox/v1/merchants",
        json={"name": "x", "frozen_at": at},
        headers={"X-ADMIN-KEY": stack.admin_key, "X-IDEMPOTENCY-KEY": str(uuid.uuid4())},
    )
    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "frozen_at")


# A key names its merchant.


def balance_with(stack: Stack, api_key: str) -> httpx.Response:
    return httpx.get(f"{stack.api_url}/api/v1/balance", headers={"X-API-KEY": api_key}, timeout=60)


def test_new_keys_name_their_merchant(world: World) -> None:
    created = world.post(KEYS, {"role": "member"}).json()["api_key"]
    assert [merchant_of(key) for key in (world.api_key, created)] == [world.merchant_id] * 2
    assert balance_with(world.stack, created).status_code == 200
    assert world.stack.execute("SELECT FROM key_merchants WHERE merchant = $1", world.merchant_id) == []


def test_a_key_is_good_for_the_merchant_that_it_names_only(world: World, stack: Stack) -> None:
    with World.create(stack) as other:
        secret = world.api_key.rpartition("_")[2]
        for merchant_id in (other.merchant_id, str(uuid.uuid4())):
            response = balance_with(stack, new_api_key(merchant_id, bytes.fromhex(secret)))
            assert (response.status_code, response.json()["code"]) == (401, "INVALID_API_KEY")


def test_a_key_that_names_no_merchant_is_found(world: World) -> None:
    """A demo key: a row of its own names its merchant."""
    api_key, stack = f"sk_sandbox_{uuid.uuid4().hex}", world.stack
    digest = hashlib.sha256(api_key.encode()).digest()
    stack.execute("UPDATE api_keys SET key_hash = $2 WHERE merchant_id = $1", world.merchant_id, digest)
    assert balance_with(stack, api_key).status_code == 401
    stack.execute("INSERT INTO key_merchants VALUES ($1, $2)", digest, world.merchant_id)
    assert balance_with(stack, api_key).status_code == 200
    # A row may outlive its key.
    stack.execute("UPDATE key_merchants SET merchant = $2 WHERE key_hash = $1", digest, uuid.uuid4())
    until(lambda: balance_with(stack, api_key).status_code == 401)


@given(st.uuids(), st.binary(min_size=SECRET_SIZE, max_size=SECRET_SIZE))
def test_the_merchant_of_a_key_is_the_one_it_was_made_for(merchant_id: uuid.UUID, secret: bytes) -> None:
    assert merchant_of(new_api_key(str(merchant_id), secret)) == str(merchant_id)


@pytest.mark.parametrize("text", ["", "demo_admin", "0" * 48, f"{'0' * 32}_{'0' * 47}", f"{'g' * 32}_{'0' * 48}"])
def test_other_text_names_no_merchant(text: str) -> None:
    assert merchant_of(f"sk_sandbox_{text}") is None
