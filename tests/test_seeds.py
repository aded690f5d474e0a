"""The demo merchants have the documented data, and seeding again changes nothing."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import httpx
import pytest

from sandbox.infrastructure.settings import DEVELOPMENT_API_KEYS, DEVELOPMENT_USERS_KEY, Settings
from sandbox.server.runtime.ready import SeedKeys
from seeds.demo import seed
from tests.harness.waiting import until
from tests.harness.world import Stack, World

_ROWS = """
SELECT (SELECT count(*) FROM users WHERE merchant_id = $1) AS users,
    (SELECT count(*) FROM user_transactions WHERE merchant_id = $1) AS transactions,
    (SELECT count(*) FROM sales WHERE merchant_id = $1) AS sales,
    (SELECT count(*) FROM payouts WHERE merchant_id = $1) AS payouts,
    (SELECT count(*) FROM transfers WHERE merchant_id = $1) AS transfers,
    (SELECT count(*) FROM events WHERE merchant_id = $1) AS events,
    (SELECT count(*) FROM idempotency_keys WHERE merchant_id = $1) AS keys,
    (SELECT count(*) FROM api_keys WHERE merchant_id = $1) AS api_keys
"""


Seed = Callable[[], dict[str, int]]


@pytest.fixture
def seed_and_count(world: World, monkeypatch: pytest.MonkeyPatch) -> Seed:
    """Return a function that seeds the running sandbox and returns the row counts.

    This test's merchant takes the place of the demo merchant with users.
    """

    async def secrets(*_: object) -> tuple[str, str]:
        return "", ""  # sealed with a key that only the running sandbox has

    monkeypatch.setattr("seeds.demo.MerchantService.secrets", secrets)
    monkeypatch.setattr("seeds.demo.USERS_MERCHANT", world.merchant_id)
    monkeypatch.setattr("seeds.demo_users.USERS_MERCHANT", world.merchant_id)
    monkeypatch.setattr("seeds.demo.DEVELOPMENT_USERS_KEY", world.api_key)
    # The half-hourly runs skip frozen merchants.
    world.post("/sandbox/v1/clock/freeze")

    def run() -> dict[str, int]:
        asyncio.run(seed(settings(world)))
        (found,) = world.stack.execute(_ROWS, world.merchant_id)
        return found

    return run


def settings(world: World, host: str = "127.0.0.1") -> Settings:
    return Settings.load(
        {
            "DATABASE_URL": world.stack.database_url, "REDIS_URL": world.stack.redis_url, "SANDBOX_HOST": host,
            "SANDBOX_SECRET_KEY": "A" * 43 + "=", "SANDBOX_ADMIN_KEY": "ak_sandbox_of_this_test",
        }
    )  # fmt: skip


def test_the_demo_users_belong_to_a_second_merchant(stack: Stack) -> None:
    """The first demo merchant has only its opening balance, which stays a round number."""
    found = stack.execute(
        "SELECT count(*) AS users FROM users WHERE merchant_id = $1 AND external_id = 'ayesha'", stack.merchant_id
    )
    assert found == [{"users": 0}]
    response = httpx.get(f"{stack.api_url}/api/v1/users", headers={"X-API-KEY": DEVELOPMENT_USERS_KEY}, timeout=60)
    assert {user["external_id"] for user in response.json()["data"]} == {"ayesha", "bilal", "sana", "umar"}


def test_the_demo_users_are_as_the_readme_describes(world: World, seed_and_count: Seed) -> None:
    seed_and_count()
    found = {user["external_id"]: user for user in world.get("/api/v1/users").json()["data"]}
    ayesha = world.get(f"/api/v1/users/{found['ayesha']['id']}/summary").json()
    assert {name: ayesha[name] for name in ("earned", "spent", "payout_requested", "balance", "available")} == {
        "earned": "1000.00", "spent": "200.00", "payout_requested": "300.00", "balance": "800.00", "available": "500.00",
    }  # fmt: skip
    waiting = world.get("/api/v1/payouts/requests").json()["data"]
    assert waiting == [{"user_id": found["ayesha"]["id"], "total_requested": "300.00"}]
    sales = [(sale["user_id"], sale["earning"]) for sale in world.get("/api/v1/sales").json()["data"]]
    assert sorted(sales) == sorted([(found["bilal"]["id"], "40.00")] * 3 + [(found["sana"]["id"], "40.00")])
    assert found["sana"]["destination"]["account_number"].endswith("0003")
    world.assert_clean()


def test_seeding_again_changes_nothing(seed_and_count: Seed) -> None:
    assert seed_and_count() == seed_and_count()


def test_an_interrupted_seeding_is_completed(world: World, seed_and_count: Seed) -> None:
    """Seeding again creates only the missing objects."""
    before = seed_and_count()
    for statement in (
        "DELETE FROM accounts a USING users u WHERE a.merchant_id = $1 AND u.merchant_id = $1 AND u.external_id = 'umar' "
        "AND a.account = 'WALLET:' || u.id",
        "DELETE FROM users WHERE merchant_id = $1 AND external_id = 'umar'",
        "DELETE FROM idempotency_keys WHERE merchant_id = $1 AND key = 'demo-users-umar'",
    ):
        world.stack.execute(statement, world.merchant_id)
    assert seed_and_count() == before
    world.assert_clean()


def test_on_other_hosts_the_well_known_key_is_revoked(
    world: World, seed_and_count: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, the merchant with users gets an API key that is derived from the secret key."""
    seed_and_count()

    def seed_elsewhere() -> SeedKeys:
        return asyncio.run(seed(settings(world, host="192.0.2.1")))

    with World.create(world.stack) as other:
        # Do not give the running sandbox's demo merchant the keys that it has on another host.
        monkeypatch.setattr("seeds.demo.DEMO_MERCHANT", other.merchant_id)
        seeded = seed_elsewhere()
        assert seed_elsewhere() == seeded
    until(lambda: world.get("/api/v1/users").status_code == 401)
    assert seeded.users_api_key is not None
    response = httpx.get(f"{world.stack.api_url}/api/v1/users", headers={"X-API-KEY": seeded.users_api_key}, timeout=60)
    assert {user["external_id"] for user in response.json()["data"]} == {"ayesha", "bilal", "sana", "umar"}


def test_on_other_hosts_a_remaining_well_known_key_is_refused(stack: Stack) -> None:
    """A server without seeding revokes no keys. The database can still have the keys of an earlier start on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        env = os.environ | {
            "DATABASE_URL": stack.database_url, "REDIS_URL": stack.redis_url, "SANDBOX_HOST": "192.0.2.1",
            "SANDBOX_SECRET_KEY": "A" * 43 + "=", "SANDBOX_ADMIN_KEY": "ak_sandbox_of_this_test",
            "SANDBOX_LISTEN_FD": str(listener.fileno()),
        }  # fmt: skip
        arguments = [sys.executable, "-m", "sandbox.server.serve"]
        with subprocess.Popen(arguments, env=env, pass_fds=[listener.fileno()], stdout=subprocess.DEVNULL) as process:
            try:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/balance"
                for key in DEVELOPMENT_API_KEYS:
                    response = httpx.get(url, headers={"X-API-KEY": key}, timeout=60)
                    assert (response.status_code, response.json()["code"]) == (401, "INVALID_API_KEY")
                    assert "loopback" in response.json()["detail"]
                # The same keys work on loopback.
                response = httpx.get(f"{stack.api_url}/api/v1/balance", headers={"X-API-KEY": stack.api_key}, timeout=60)
                assert response.status_code == 200
            finally:
                process.terminate()
