"""`psp world replay` repeats a world's calls against a fresh world, and shows exactly the answers that differ."""

import copy
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from psp_sandbox.testing.fresh_world import CannotReplayError, FreshWorld
from psp_sandbox.testing.replay import Report, replay
from tests.harness.command import CompletedCommand, invoke
from tests.harness.receiver import Receiver
from tests.harness.world import Stack, World
from tests.test_world_bundles import exported, seeded


def repeat(stack: Stack, bundle: dict[str, Any], **options: Any) -> Report:
    return replay(bundle, stack.api_url, stack.admin_key, **options)


def run_replay(stack: Stack, file: Path, *arguments: str) -> CompletedCommand:
    return invoke("world", "replay", str(file), "--url", stack.api_url, "--admin-key", stack.admin_key, *arguments)


def use_all_parts(world: World, receiver: Receiver) -> None:
    """Make calls of every kind, with all kinds of answers."""
    receiver.respond = lambda _: (500 if len(receiver.received) < 4 else 200, {"Retry-After": "30"}, b"thanks")
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url + "/hook"}).json()
    rule = {"name": "mine", "match": {"amount_to": "7.00"}, "steps": [{"to": "PROCESSING"}, {"to": "FAILED", "after": 60}]}
    world.post("/sandbox/v1/scenarios", rule)
    paid = [world.create_payout(suffix, metadata={"order": suffix}) for suffix in ("0001", "0003", "0011", "0012", "0004")]
    world.create_payout(amount="5.00")
    world.post("/api/v1/payouts/batch", {"payouts": [world.payout_body(suffix) for suffix in ("0001", "0005", "0001")]})
    body = world.payout_body()
    for _ in range(2):
        world.post("/api/v1/payouts", body, "twice")
    world.post("/api/v1/payouts", body)
    world.post("/api/v1/payouts", {**body, "amount": "lots", "unknown": 1})
    world.get(f"/api/v1/payouts/{uuid.uuid4()}")
    world.get("/api/v1/payouts", limit=1000)
    user = world.post("/api/v1/users", {"name": "Ayesha"}).json()["id"]
    world.post(f"/api/v1/users/{user}/transactions", {"type": "EARNED", "amount": "50.25"})
    sale = world.post("/api/v1/sales", {"user_id": user, "brand": "A", "earning": "40.00"}).json()["id"]
    world.post("/api/v1/payouts/advance/run")
    world.post("/api/v1/reconcile", [{"sale_id": sale, "status": "APPROVED"}])
    world.post(f"/api/v1/payouts/{paid[4]['id']}/cancel")
    member = world.post("/sandbox/v1/keys", {"role": "member"}).json()["api_key"]
    forbidden = httpx.post(
        f"{world.stack.api_url}/sandbox/v1/keys", json={"role": "admin"}, headers={"X-API-KEY": member}, timeout=60
    )
    assert forbidden.status_code == 403
    world.post("/sandbox/v1/drain")  # the first attempts: a restore undoes what a receiver answered after the snapshot
    snapshot = world.client.post("/sandbox/v1/snapshots", json={"name": "before"}).json()["id"]
    world.client.post("/sandbox/v1/clock/advance", json={"seconds": 100})
    world.client.post(f"/sandbox/v1/snapshots/{snapshot}/restore")
    world.post(f"/sandbox/v1/payouts/{paid[2]['id']}/simulate", {"status": "FAILED"})
    fault = world.post("/sandbox/v1/faults", {"target": "api", "kind": "error", "status": 503, "count": 1}).json()["id"]
    world.get("/api/v1/balance")
    world.client.delete(f"/sandbox/v1/faults/{fault}")
    world.patch(f"/api/v1/webhook-endpoints/{endpoint['id']}", {"description": "changed"})
    world.client.post("/sandbox/v1/clock/advance", json={"seconds": 3600})
    for path in ("/api/v1/payouts", "/api/v1/events", "/api/v1/balance/history", "/api/v1/webhook-deliveries"):
        world.get(path, limit=100)
    for payout in paid:
        world.get(f"/api/v1/payouts/{payout['id']}/timeline")
    for delivery in world.get("/api/v1/webhook-deliveries", limit=3).json()["data"]:
        world.get(f"/api/v1/webhook-deliveries/{delivery['id']}")
    world.client.head("/api/v1/balance")
    world.get("/sandbox/v1/audit")
    world.get("/api/v1/nothing")


def test_a_seeded_frozen_world_gets_the_same_answers_with_ids_and_times(stack: Stack) -> None:
    """Also the answers that depend on its receiver, which is gone by then: a stand-in answers as it did."""
    with Receiver() as receiver, seeded(stack, webhook_url=receiver.url) as world:
        use_all_parts(world, receiver)
        bundle = exported(world)
    report = repeat(stack, bundle)
    assert report.ok, str(report)
    assert report.is_exact
    assert report.skipped == []
    assert report.repeated == len(bundle["journal"]["calls"]) > 40


def test_a_running_world_without_a_seed_gets_the_same_answers_but_for_ids_and_times(world: World, receiver: Receiver) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
    paid = [world.create_payout(suffix) for suffix in ("0001", "0003", "0004")]
    for payout in paid[:2]:
        assert (
            world.get(f"/api/v1/payouts/{payout['id']}", wait_for="SUCCESS,FAILED", timeout="20").json()["status"] != "PENDING"
        )
        world.get(f"/api/v1/payouts/{payout['id']}/timeline")
    world.post(f"/api/v1/payouts/{paid[2]['id']}/cancel")
    world.client.post("/sandbox/v1/drain")
    world.get("/api/v1/events", payout_id=paid[0]["id"])
    bundle = exported(world)
    # The fixture's opening balance is the merchant's, so the fresh world has it too.
    report = repeat(world.stack, bundle)
    assert report.ok, str(report)
    assert not report.is_exact
    assert report.repeated == len(bundle["journal"]["calls"])


def changed_answer(bundle: dict[str, Any], path: str, change: Callable[[Any], None]) -> dict[str, Any]:
    """Return the bundle with a change to the recorded answer of the first call to this path."""
    found = copy.deepcopy(bundle)
    call = next(call for call in found["journal"]["calls"] if call["path"] == path)
    answer = json.loads(call["response_body"])
    change(answer)
    call["response_body"] = json.dumps(answer)
    return found


def test_a_differing_answer_is_shown_with_its_call_and_its_place(stack: Stack, tmp_path: Path) -> None:
    with seeded(stack) as world:
        payout = world.create_payout("0003")
        world.get("/api/v1/payouts")
        world.get("/api/v1/balance")
        bundle = exported(world)
    file = tmp_path / "world.json"
    file.write_text(json.dumps(bundle))
    same = run_replay(stack, file)
    assert (same.exit_code, same.stderr) == (0, "")
    assert same.stdout.startswith("3 calls repeated, 0 answers differ")
    changed = changed_answer(bundle, "/api/v1/payouts", lambda answer: answer.update(amount="7.00", extra=1))
    changed = changed_answer(changed, "/api/v1/balance", lambda answer: answer.update(updated_at="2031-01-01T00:00:01.000Z"))
    changed["journal"]["calls"][1]["status"] = 404
    file.write_text(json.dumps(changed))
    result = run_replay(stack, file, "--json")
    assert result.exit_code == 4
    report = json.loads(result.stdout)
    assert (report["same"], report["repeated"], report["skipped"]) == (False, 3, [])
    assert [(call["number"], call["call"], [d["where"] for d in call["differences"]]) for call in report["differing"]] == [
        (1, "POST /api/v1/payouts", ["amount", "extra"]),
        (2, "GET /api/v1/payouts", ["status"]),
        (3, "GET /api/v1/balance", ["updated_at"]),
    ]
    assert json.loads(result.stderr)["code"] == "CONDITION_NOT_MET"
    plain = run_replay(stack, file)
    assert 'call 1, POST /api/v1/payouts:\n  amount: was "7.00", is "100.00"\n  extra: was 1, is missing' in plain.stdout
    assert payout["id"] in json.dumps(bundle)


def test_another_seed_gives_other_ids_which_an_exact_replay_shows(stack: Stack) -> None:
    with seeded(stack) as world:
        world.create_payout()
        bundle = exported(world)
    bundle["merchant"]["seed"] = 12
    report = repeat(stack, bundle)
    assert [difference.where for difference in report.differing[0].differences] == ["id"]


def test_calls_that_cannot_be_repeated_are_listed_with_the_reason(stack: Stack) -> None:
    with seeded(stack) as world:
        headers = {"X-IDEMPOTENCY-KEY": "upload"}
        file = {"file": ("c.csv", b"uuid,amount\n", "text/csv")}
        world.client.post("/api/v1/wallet/bulk-credit", files=file, headers=headers)
        world.client.put("/aggregator/v1/source", json={"url": None, "headers": {}})
        world.client.put("/aggregator/v1/source", json={"url": "https://vendor.example/feed", "headers": {"X-Key": "secret"}})
        world.post("/api/v1/payouts/batch", {"payouts": [world.payout_body("0004") for _ in range(40)]})
        world.get("/api/v1/payouts", merchant_reference="sk_sandbox_0123456789")
        bundle = exported(world)
    report = repeat(stack, bundle)
    assert [(skipped.number, skipped.reason) for skipped in report.skipped] == [
        (1, "its body is not in the journal"),
        (3, "a part of its body is redacted"),
        (4, "its body is cut off"),
        (5, "a part of its path or query is redacted"),
    ]
    assert report.repeated == 1


def test_a_fault_hits_the_same_calls_again(stack: Stack) -> None:
    with seeded(stack) as world:
        fault = {"target": "api", "kind": "connection_reset", "probability": 0.5, "seed": 5, "match": {"method": "POST"}}
        world.post("/sandbox/v1/faults", fault)
        broken = 0
        for _ in range(8):
            try:
                world.create_payout("0004")
            except httpx.TransportError:
                broken += 1
        assert 0 < broken < 8
        bundle = exported(world)
    assert repeat(stack, bundle).ok
    bundle["journal"]["calls"][0]["request_body"] = json.dumps({**fault, "probability": 0})
    assert len(repeat(stack, bundle).differing) == 1 + broken


def test_the_fresh_merchant_is_deleted_unless_it_is_kept(stack: Stack) -> None:
    with seeded(stack, name=f"replayed {uuid.uuid4()}") as world:
        world.create_payout()
        bundle = exported(world)
        name = bundle["merchant"]["name"]

        def count() -> int:
            return len(stack.execute("SELECT FROM merchants WHERE name = $1", name))

        assert repeat(stack, bundle).merchant_id is None
        assert count() == 1
        kept = repeat(stack, bundle, keep=True).merchant_id
        assert count() == 2
        operator = {"X-ADMIN-KEY": stack.admin_key}
        assert world.client.delete(f"/sandbox/v1/merchants/{kept}", headers=operator).status_code == 204


def test_what_cannot_be_replayed_is_refused(stack: Stack, tmp_path: Path) -> None:
    with seeded(stack) as world:
        bundle = exported(world)
    file = tmp_path / "world.json"
    for content in ("[]", "{", json.dumps({**bundle, "version": 2}), json.dumps({**bundle, "journal": {"complete": False}})):
        file.write_text(content)
        result = run_replay(stack, file)
        assert (result.exit_code, result.stdout) == (1, ""), content
        assert "world bundle" in result.stderr or "newest 1000" in result.stderr
    file.write_text(json.dumps(bundle))
    assert invoke("world", "replay", str(file), "--url", stack.api_url, "--admin-key", "wrong").exit_code == 1
    assert invoke("world", "replay", str(file), "--url", "http://127.0.0.1:9", "--admin-key", "k").exit_code == 3
    assert invoke("world", "replay", str(tmp_path / "none"), "--url", stack.api_url).exit_code == 2
    advice = invoke("world", "replay", str(file), "--url", "http://sandbox.example")
    assert advice.exit_code == 2
    assert "PSP_ADMIN_KEY" in advice.stderr
    with pytest.raises(CannotReplayError, match="PSP_ADMIN_KEY"), FreshWorld(stack.api_url):
        pass


def test_the_world_of_an_application_on_a_port_of_its_own_is_repeated(stack: Stack) -> None:
    """`live_app` lists the endpoints, and gives the merchant's own endpoint another URL. The test then polls."""
    with Receiver() as own, Receiver() as app, seeded(stack, webhook_url=own.url) as world:
        endpoint = world.get("/api/v1/webhook-endpoints").json()["data"][0]
        world.patch(f"/api/v1/webhook-endpoints/{endpoint['id']}", {"url": app.url})
        world.create_payout("0001")
        for _ in range(30):
            world.client.post("/sandbox/v1/drain", json={})
            world.get("/api/v1/payouts")
        for _ in range(30):
            world.get("/api/v1/balance")
        bundle = exported(world)
    report = repeat(stack, bundle)
    assert report.ok, str(report)
    assert len(bundle["journal"]["calls"]) - report.repeated >= 29
