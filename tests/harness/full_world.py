"""Fill a frozen world with every kind of row that its user can create."""

from typing import get_args
from uuid import uuid4

from sandbox.domain.enumerations import FaultKind, Signing
from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_ipn import send


def fill_with_every_kind_of_row(world: World) -> None:
    """Bring the merchant's rows into every status, and set every optional column of what a user can create."""
    slack = {"header": "X-Sig", "algorithm": "sha512", "encoding": "base64", "template": "{timestamp}:{body}"}
    nowhere = "http://127.0.0.1:9/none"
    for signing in get_args(Signing):
        endpoint = {
            "url": f"{nowhere}/{signing}",
            "signing": signing,
            "event_types": ["payout.failed"],
            "description": "\u0645",
        }
        endpoint |= {"custom_signing": slack} if signing == "custom" else {}
        endpoint |= {"filters": [{"field": "data.amount", "op": "in", "value": ["1.00", "2.00"]}], "rate_limit": 5}
        endpoint |= {"ordered": True, "max_in_flight": 3, "retry_profile": "fast", "signing_time": "merchant"}
        created = world.post("/api/v1/webhook-endpoints", endpoint)
        assert created.status_code == 201, created.text
    path = f"/api/v1/webhook-endpoints/{created.json()['id']}"
    assert world.post(f"{path}/rotate-secret").status_code == 200
    assert world.patch(path, {"status": "DISABLED"}).status_code == 200
    parameters = {
        "latency": {"milliseconds": 1, "sigma": 0.5},
        "error": {"status": 418},
        "slow_after_commit": {"milliseconds": 1},
    }
    parameters |= {"delay": {"milliseconds": 1.5}, "rate_limit": {"retry_after": 5}, "truncated_body": {"target": "api"}}
    api = {"latency", "error", "rate_limit", "connection_reset", "slow_after_commit", "truncated_body"}
    for kind in get_args(FaultKind):
        fault = {"kind": kind, "target": "api" if kind in api else "webhooks", "count": 3, "ttl_seconds": 60, "seed": 1}
        fault |= {"match": {"path": "/none"} if kind in api else {"event_type": "payout.none*"}} | parameters.get(kind, {})
        created = world.post("/sandbox/v1/faults", fault)
        assert created.status_code == 201, created.text
    paths = {suffix: world.create_payout(suffix)["id"] for suffix in ("0004", "0005", "0011", "0012", "0013", "0003")}
    world.create_payout("0001", amount="100000.00")
    for action in ("approve", "reject", "cancel"):
        waiting = world.create_payout("0004", requires_approval=True)["id"]
        changed = (
            world.post(f"/api/v1/payouts/{waiting}/cancel")
            if action == "cancel"
            else world.patch(f"/api/v1/payouts/{waiting}/{action}")
        )
        assert changed.status_code == 200, changed.text
    world.create_payout("0004", requires_approval=True, metadata={"order": "\U0001f600"})
    world.post("/sandbox/v1/clock/advance", {"seconds": 3})
    world.post(f"/sandbox/v1/payouts/{paths['0012']}/simulate", {"status": "RETURNED"})
    body = {"payout_id": paths["0004"], "status": "SUCCESS", "psp_reference": "BANK-1"}
    assert send(world, body, message_id="msg_1").status_code == 200
    destinations: list[dict[str, str]] = [
        {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"},
        {"dest_type": "WALLET", "wallet_code": "EASYPAISA", "account_number": "12345678900003"},
    ]
    users = [
        world.post("/api/v1/users", {"name": f"U{n}", "external_id": f"u-{n}", "vendor_user_id": f"0{n}", "destination": where})
        for n, where in enumerate(destinations)
    ]
    ids = [user.json()["id"] for user in users]
    sales = [
        world.post("/api/v1/sales", {"user_id": user, "brand": "B", "earning": "40.00"}).json()["id"]
        for user in ids
        for _ in "ab"
    ]
    for kind in ("advance", "final"):
        assert world.post(f"/api/v1/payouts/{kind}/run").status_code == 200
        verdicts = [
            {"sale_id": sale, "status": verdict} for sale, verdict in zip(sales, ("APPROVED", "DECLINED"), strict=False)
        ]
        world.post("/api/v1/reconcile", verdicts)
    rows = "".join(
        f"{row}\n" for row in ("uuid,amount", f"{ids[0]},1.00", f"{ids[0]},1.00", "x,1", f"{ids[1]},x", f"{uuid4()},1")
    )
    upload = {"files": {"file": ("c.csv", rows.encode(), "text/csv")}, "headers": {"X-IDEMPOTENCY-KEY": "upload"}}
    activity = world.client.post("/api/v1/wallet/bulk-credit", **upload).json()["activity_id"]
    until(lambda: world.get(f"/api/v1/wallet/bulk-credit/{activity}").json()["status"] not in ("UPLOADED", "PROCESSING"))
    assert world.post(f"/api/v1/users/{ids[0]}/payout", {"amount": "1.00"}).status_code == 201
    for refused in (404, 409, 422):  # their responses are stored too
        path, sent = {
            404: (f"/api/v1/payouts/{uuid4()}/cancel", None),
            409: (f"/api/v1/payouts/{paths['0003']}/cancel", None),
            422: ("/api/v1/payouts", world.payout_body("0001", amount="90000000.00")),
        }[refused]
        assert world.post(path, sent).status_code == refused
