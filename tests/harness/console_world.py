"""A merchant that has something on every page of the console, with hostile text in every field that a user can write."""

import uuid
from typing import Any, Final

from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

HOSTILE: Final = "\"><script>pwned=1</script>'{{7*7}}"
"""At most 64 characters, the shortest limit of a text."""
HOSTILE_LONG: Final = f"{HOSTILE}<img src=x onerror=pwned=1><svg onload=pwned=1>"


def fill(world: World, receiver: Receiver, *, plain: bool = False) -> dict[str, str]:
    """Create one of everything. Return the ids by the name of the path parameter that they belong to.

    `plain`: with texts as a user would write them, for pictures.
    """

    def short(text: str) -> str:
        return text if plain else HOSTILE

    def long(text: str) -> str:
        return text if plain else HOSTILE_LONG

    page, script = f"<h1>{long('Out of order')}</h1>", "orders" if plain else "<script>pwned=1</script>"
    receiver.respond = lambda _: (500, {"x-hostile": script}, page.encode())
    created = _post(
        world,
        "/api/v1/webhook-endpoints",
        {"url": f"{receiver.url}?q={script}", "description": long("Orders"), "retry_profile": "fast"},
    )
    payout = _post(
        world,
        "/api/v1/payouts",
        {**world.payout_body("0003"), "merchant_reference": short("INV-1001"), "account_title": long("AYESHA KHAN"),
         "metadata": {short("order"): long("17")}},
    )  # fmt: skip
    user = _post(
        world,
        "/api/v1/users",
        {"name": long("Ayesha Khan"), "external_id": short("customer-17"),
         "destination": {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}},
    )  # fmt: skip
    _post(
        world, f"/api/v1/users/{user['id']}/transactions", {"type": "EARNED", "amount": "500.00", "reference": short("week 46")}
    )
    _post(world, f"/api/v1/users/{user['id']}/payout", {"amount": "5.00"})
    sale = _post(world, "/api/v1/sales", {"user_id": user["id"], "brand": long("Daraz"), "earning": "40.00"})
    _post(world, "/api/v1/payouts/advance/run", {})
    rows = f'uuid,amount\n{user["id"]},10.00\n"{short("unknown").replace(chr(34), chr(34) * 2)}",=1+1\n'
    upload = world.client.post(
        "/api/v1/wallet/bulk-credit",
        files={"file": (f"{script}.csv", rows.encode(), "text/csv")},
        headers={"X-IDEMPOTENCY-KEY": str(uuid.uuid4())},
    ).json()
    snapshot = _post(world, "/sandbox/v1/snapshots", {"name": long("before the test")})
    scenario = _post(
        world,
        "/sandbox/v1/scenarios",
        {
            "name": "own_rule",
            "match": {"metadata": {short("order"): short("18")}},
            "steps": [{"to": "PROCESSING"}, {"to": "SUCCESS"}],
        },
    )
    fault = _post(world, "/sandbox/v1/faults", {"target": "webhooks", "kind": "duplicate"})
    key = _post(world, "/sandbox/v1/keys", {"role": "member", "name": long("QA")})
    test = _post(world, "/sandbox/v1/receiver-tests", {"url": receiver.url, "secret": world.webhook_secret})
    world.get(f"/api/v1/users/{short('unknown').replace('/', '')}")
    delivery = until(lambda: next((row for row in _data(world, "/api/v1/webhook-deliveries") if _was_tried(world, row)), None))
    event = until(lambda: next(iter(_data(world, f"/api/v1/events?payout_id={payout['id']}")), None))
    entry = until(lambda: next(iter(_data(world, "/sandbox/v1/requests?method=POST")), None))
    until(lambda: world.get(f"/api/v1/payouts/{payout['id']}").json()["status"] == "FAILED")
    activity = upload["activity_id"]
    until(lambda: world.get(f"/api/v1/wallet/bulk-credit/{activity}").json()["status"] not in ("UPLOADED", "PROCESSING"))
    until(lambda: world.get(f"/sandbox/v1/receiver-tests/{test['id']}").json()["status"] != "RUNNING", seconds=60)
    return {
        "payout_id": payout["id"],
        "dialect": "safepay",
        "user_id": user["id"],
        "sale_id": sale["id"],
        "activity_id": activity,
        "endpoint_id": created["id"],
        "delivery_id": delivery["id"],
        "event_id": event["id"],
        "entry_id": entry["id"],
        "snapshot_id": snapshot["id"],
        "rule_id": scenario["id"],
        "fault_id": fault["id"],
        "key_id": key["id"],
        "test_id": test["id"],
    }


def _post(world: World, path: str, body: Any) -> Any:
    response = world.post(path, body)
    assert response.status_code in (200, 201, 202), (path, response.text)
    return response.json()


def _data(world: World, path: str) -> list[Any]:
    found: list[Any] = world.client.get(path).json()["data"]
    return found


def _was_tried(world: World, delivery: Any) -> bool:
    return bool(world.get(f"/api/v1/webhook-deliveries/{delivery['id']}").json()["attempts"])
