"""A bank's callback changes a payout and its money, timeline and events, if it is signed and the change is allowed."""

import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from ipn.callback import CallbackBody, CallbackService
from sandbox.domain.errors import Problem
from sandbox.infrastructure.db.all_shards import AllShards
from sandbox.infrastructure.secrets_at_rest import SecretBox
from tests.harness.supervised import end
from tests.harness.waiting import until
from tests.harness.work import request_of, units_of_work
from tests.harness.world import Stack, World


def send(
    world: World,
    body: dict[str, Any],
    *,
    message_id: str | None = None,
    secret: str | None = None,
    at: int | None = None,
    url: str | None = None,
    request_id: str | None = None,
) -> httpx.Response:
    """Sign a callback according to Standard Webhooks, and send it. `at` is the Unix time of its timestamp, by default now.

    `url` is by default that of all merchants.
    """
    raw = json.dumps(body).encode()
    message_id = message_id or f"msg_{uuid.uuid4().hex}"
    timestamp = str(at if at is not None else int(time.time()))
    key = base64.b64decode((secret or world.ipn_secret).removeprefix("whsec_"))
    signature = base64.b64encode(hmac.digest(key, f"{message_id}.{timestamp}.".encode() + raw, hashlib.sha256)).decode()
    headers = {
        "webhook-id": message_id.encode(),
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
        "content-type": "application/json",
        **({} if request_id is None else {"x-request-id": request_id}),
    }
    return httpx.post(url or f"{world.stack.ipn_url}/ipn/callback", content=raw, headers=headers, timeout=60)


def test_a_merchants_ipn_url_takes_callbacks_for_its_payouts_only(stack: Stack) -> None:
    with ExitStack() as worlds:
        options = {"seed": 1, "frozen_at": "2026-01-01T00:00:00Z", "opening_balance": "1000.00"}
        world, other = (worlds.enter_context(World.create(stack, **options)) for _ in range(2))
        listed = httpx.get(f"{stack.api_url}/sandbox/v1/merchants", headers={"X-ADMIN-KEY": stack.admin_key}, timeout=60)
        urls = {merchant["merchant_id"]: merchant["ipn_url"] for merchant in listed.json()["data"]}
        url = f"{stack.ipn_url}/ipn/{world.merchant_id}/callback"
        assert urls[world.merchant_id] == url
        payouts = [one.create_payout("0004") for one in (world, other)]
        assert payouts[0]["id"] == payouts[1]["id"]
        body = {"payout_id": payouts[0]["id"], "status": "SUCCESS", "psp_reference": "BANK-1"}
        refused = send(other, body, url=url)
        assert (refused.status_code, refused.json()["code"]) == (401, "INVALID_SIGNATURE")
        assert send(world, body, url=url).json()["status"] == "SUCCESS"
        returned = send(world, {"psp_reference": "BANK-1", "status": "RETURNED"}, url=url)
        assert (returned.status_code, returned.json()["status"]) == (200, "RETURNED")
        assert other.payout(payouts[1]["id"])["status"] == "PENDING"
        for merchant_id in (str(uuid.uuid4()), "nobody"):
            stranger = send(world, body, url=f"{stack.ipn_url}/ipn/{merchant_id}/callback")
            assert (stranger.status_code, stranger.json()["code"]) == (401, "INVALID_SIGNATURE")


async def test_the_shared_url_answers_503_if_the_payout_may_be_on_a_node_that_does_not_respond(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one_node_is_down(_: object) -> AllShards[Any]:
        return AllShards([], ["10.0.0.9:5432"])

    monkeypatch.setattr("ipn.callback.on_every_shard", one_node_is_down)
    service = CallbackService(units_of_work(), SecretBox(bytes(32)))
    with pytest.raises(Problem) as raised:
        await service.receive(CallbackBody(psp_reference="BANK-1", status="SUCCESS"), b"{}", {}, request_of(""))
    assert (raised.value.code, raised.value.headers) == ("UNAVAILABLE", {"Retry-After": "1"})


def test_a_callback_settles_a_pending_payout_with_its_timeline_and_balance(world: World) -> None:
    payout = world.create_payout("0004")
    response = send(world, {"payout_id": payout["id"], "status": "SUCCESS", "psp_reference": "BANK-77"})
    assert (response.status_code, response.json()["status"]) == (200, "SUCCESS")
    assert world.payout(payout["id"])["psp_reference"] == "BANK-77"
    timeline = world.get(f"/api/v1/payouts/{payout['id']}/timeline").json()["data"]
    assert [(entry["to"], entry["cause"]) for entry in timeline] == [("PENDING", "api"), ("SUCCESS", "ipn")]
    assert world.balance() == ("999900.00", "0.00")
    returned = send(world, {"psp_reference": "BANK-77", "status": "RETURNED"})
    assert (returned.status_code, returned.json()["failure_code"]) == (200, "RETURNED_BY_BANK")
    assert world.balance() == ("1000000.00", "0.00")
    world.assert_clean()


def test_a_callback_fails_a_payout_with_the_banks_code_and_reason(world: World) -> None:
    payout = world.create_payout("0004")
    body = {
        "payout_id": payout["id"],
        "status": "FAILED",
        "failure_code": "LIMIT_EXCEEDED",
        "failure_reason": "Too much",
    }
    assert send(world, body).status_code == 200
    found = world.payout(payout["id"])
    assert (found["failure_code"], found["failure_reason"]) == ("LIMIT_EXCEEDED", "Too much")
    assert world.balance() == ("1000000.00", "0.00")


def test_a_callback_releases_a_hold_and_the_payout_continues(world: World) -> None:
    payout = world.create_payout("0005")
    world.wait_for(payout["id"], "ON_HOLD")
    assert send(world, {"payout_id": payout["id"], "status": "PROCESSING"}).status_code == 200
    world.wait_for(payout["id"], "SUCCESS")
    assert world.path_of(payout["id"]) == ["PENDING", "PROCESSING", "ON_HOLD", "PROCESSING", "SUCCESS"]
    world.assert_clean()


def test_a_repeated_message_has_no_further_effect(world: World) -> None:
    payout = world.create_payout("0004")
    body = {"payout_id": payout["id"], "status": "FAILED"}
    assert send(world, body, message_id="msg_1").status_code == 200
    world.post(f"/api/v1/payouts/{payout['id']}/reinitiate")
    # The repeated message must not fail the payout again.
    assert send(world, body, message_id="msg_1").status_code == 200
    assert world.payout(payout["id"])["status"] == "PENDING"
    assert send(world, {"payout_id": payout["id"], "status": "PENDING"}).status_code == 200
    world.assert_clean()


def test_concurrent_copies_of_a_message_get_the_same_response_and_have_one_effect(world: World) -> None:
    payout = world.create_payout("0004")
    body = {"payout_id": payout["id"], "status": "SUCCESS"}
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda _: send(world, body, message_id="msg_1"), range(32)))
    assert {response.status_code for response in responses} == {200}
    assert len({response.content for response in responses}) == 1
    assert world.path_of(payout["id"]) == ["PENDING", "SUCCESS"]
    world.assert_clean()


def test_a_callback_changes_the_payout_of_the_merchant_whose_secret_signed_it(stack: Stack) -> None:
    """Merchants with the same seed have payouts with the same ids, and there may be many such merchants."""
    with ExitStack() as worlds:
        spec = {"seed": 1, "frozen_at": "2031-01-01T00:00:00Z", "opening_balance": "1000.00"}
        twins = [worlds.enter_context(World.create(stack, **spec)) for _ in range(25)]
        assert len({twin.create_payout("0004")["id"] for twin in twins}) == 1
        for number, twin in enumerate(twins):
            payout = twin.get("/api/v1/payouts").json()["data"][0]
            body = {"payout_id": payout["id"], "status": "SUCCESS", "psp_reference": "BANK-1"}
            assert send(twin, body).status_code == 200
            has_succeeded = [other.payout(payout["id"])["status"] == "SUCCESS" for other in twins]
            assert has_succeeded == [True] * (number + 1) + [False] * (len(twins) - number - 1)
        for twin in (twins[0], twins[-1]):
            assert send(twin, {"psp_reference": "BANK-1", "status": "RETURNED"}).status_code == 200
            assert twin.payout(payout["id"])["status"] == "RETURNED"
        assert [other.payout(payout["id"])["status"] for other in twins[1:-1]] == ["SUCCESS"] * 23


@pytest.mark.parametrize("url", ["/ipn/callback", "/ipn/{merchant_id}/callback"])
def test_without_a_merchants_signature_nothing_tells_which_payouts_exist(world: World, stack: Stack, url: str) -> None:
    known = {"payout_id": world.create_payout("0004")["id"], "status": "SUCCESS"}
    unknown = {"payout_id": str(uuid.uuid4()), "status": "SUCCESS"}
    address = stack.ipn_url + url.format(merchant_id=world.merchant_id)
    stranger = "whsec_" + base64.b64encode(b"x" * 32).decode()
    for at in (None, int(time.time()) - 400):
        answers = [
            send(world, body, secret=stranger, at=at, url=address) for body in (known, unknown, {**known, "payout_id": "x"})
        ]
        details = {(answer.status_code, answer.json()["code"], answer.json()["detail"]) for answer in answers}
        assert [(status, code) for status, code, _ in details] == [(401, "INVALID_SIGNATURE")]
    missing = send(world, unknown, url=address)
    assert (missing.status_code, missing.json()["code"]) == (404, "NOT_FOUND")


def test_a_signed_callback_is_in_the_merchants_journal(world: World, stack: Stack) -> None:
    payout = world.create_payout("0004")["id"]
    request_id = str(uuid.uuid4())
    body = {"payout_id": payout, "status": "SUCCESS"}
    send(world, body, secret="whsec_" + base64.b64encode(b"x" * 32).decode())
    send(world, {**body, "payout_id": str(uuid.uuid4())})
    send(world, body, request_id=request_id)

    def calls() -> list[dict[str, Any]]:
        return [call for call in world.get("/sandbox/v1/requests").json()["data"] if call["path"] == "/ipn/callback"]

    until(lambda: len(calls()) == 2, 30)
    # Two processes write them, so they may come in either order.
    by_status = {call["status"]: call for call in calls()}
    assert set(by_status) == {200, 404}
    accepted = by_status[200]
    assert (accepted["request_id"], json.loads(accepted["request_body"])) == (request_id, body)
    assert accepted["api_key_id"] is None
    assert accepted["request_headers"]["webhook-signature"] == "[redacted]"
    # What the timeline names can be found in the journal.
    assert world.get(f"/api/v1/payouts/{payout}/timeline").json()["data"][-1]["request_id"] == request_id


def test_another_merchants_signature_does_not_tell_that_a_payout_exists(world: World, stack: Stack) -> None:
    with World.create(stack) as other:
        answer = send(other, {"payout_id": world.create_payout("0004")["id"], "status": "SUCCESS"})
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


def test_a_callback_cannot_give_a_payout_the_reference_of_another_one(world: World) -> None:
    first, second = world.create_payout("0004"), world.create_payout("0004")
    body = {"status": "SUCCESS", "psp_reference": "BANK-1"}
    assert send(world, {"payout_id": first["id"], **body}).status_code == 200
    refused = send(world, {"payout_id": second["id"], **body})
    assert (refused.status_code, refused.json()["code"]) == (409, "DUPLICATE_REFERENCE")
    assert first["id"] in refused.json()["detail"]
    assert world.payout(second["id"])["status"] == "PENDING"
    assert send(world, {"psp_reference": "BANK-1", "status": "RETURNED"}).json()["id"] == first["id"]


def test_of_concurrent_callbacks_with_one_reference_for_two_payouts_one_is_refused(world: World) -> None:
    payouts = [world.create_payout("0004") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        bodies = [{"payout_id": payout["id"], "status": "SUCCESS", "psp_reference": "BANK-1"} for payout in payouts]
        statuses = sorted(response.status_code for response in pool.map(lambda body: send(world, body), bodies))
    assert statuses == [200] + [409] * 7


def test_a_reference_that_a_rule_gave_to_several_payouts_identifies_none(world: World) -> None:
    rule = {
        "name": "same",
        "match": {"suffix": "4444"},
        "steps": [{"to": "PROCESSING"}, {"to": "SUCCESS", "psp_reference": "B"}],
    }
    assert world.post("/sandbox/v1/scenarios", rule).status_code == 201
    payouts = [world.create_payout("4444") for _ in range(2)]
    for payout in payouts:
        world.wait_for(payout["id"], "SUCCESS")
    refused = send(world, {"psp_reference": "B", "status": "RETURNED"})
    assert (refused.status_code, refused.json()["code"]) == (409, "DUPLICATE_REFERENCE")
    assert {world.payout(payout["id"])["status"] for payout in payouts} == {"SUCCESS"}


def test_a_message_is_remembered_for_longer_than_a_day_of_the_merchants_time(world: World) -> None:
    """By the host's clock its signature is still valid, even if the merchant's clock was advanced."""
    payout = world.create_payout("0004")
    body = {"payout_id": payout["id"], "status": "FAILED"}
    first = send(world, body, message_id="msg_1")
    world.post(f"/api/v1/payouts/{payout['id']}/reinitiate")
    assert world.client.post("/sandbox/v1/clock/advance", json={"seconds": 25 * 3600}).json()["complete"]
    again = send(world, body, message_id="msg_1")
    assert (again.status_code, again.content) == (200, first.content)
    assert world.payout(payout["id"])["status"] == "PENDING"
    world.assert_clean()


def test_a_callback_with_the_current_status_returns_200_without_a_change(world: World) -> None:
    payout = world.create_payout("0001")
    world.wait_for(payout["id"], "SUCCESS")
    assert send(world, {"payout_id": payout["id"], "status": "SUCCESS"}).status_code == 200
    assert world.path_of(payout["id"]) == ["PENDING", "PROCESSING", "SUCCESS"]


def test_a_callback_cannot_request_reject_or_reinitiate_a_payout(world: World) -> None:
    payout = world.create_payout("0004")
    for status in ("REQUESTED", "REJECTED"):
        refused = send(world, {"payout_id": payout["id"], "status": status})
        assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE")
        assert "PROCESSING, SUCCESS, FAILED or CANCELLED" in refused.json()["detail"]
    assert send(world, {"payout_id": payout["id"], "status": "FAILED"}).status_code == 200
    again = send(world, {"payout_id": payout["id"], "status": "PENDING"})
    assert (again.status_code, again.json()["code"]) == (409, "INVALID_STATE")
    assert world.path_of(payout["id"]) == ["PENDING", "FAILED"]
    world.assert_clean()


def test_invalid_callbacks_are_refused(world: World) -> None:
    payout = world.create_payout("0001")
    world.wait_for(payout["id"], "SUCCESS")
    body = {"payout_id": payout["id"], "status": "RETURNED"}
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    refused = [
        (send(world, body, secret=other), 401, "INVALID_SIGNATURE"),
        (send(world, body, at=int(time.time()) - 301), 401, "INVALID_SIGNATURE"),
        (send(world, body, at=int(time.time()) + 400), 401, "INVALID_SIGNATURE"),
        (send(world, {"payout_id": str(uuid.uuid4()), "status": "SUCCESS"}), 404, "NOT_FOUND"),
        (send(world, {"payout_id": payout["id"], "status": "FAILED"}), 409, "INVALID_STATE"),
        (send(world, {"status": "FAILED"}), 400, "VALIDATION_ERROR"),
        (send(world, {"payout_id": payout["id"], "status": "NO"}), 400, "VALIDATION_ERROR"),
    ]
    for response, status, code in refused:
        assert (response.status_code, response.json()["code"]) == (status, code)
    unsigned = httpx.post(f"{world.stack.ipn_url}/ipn/callback", json=body, timeout=60)
    assert (unsigned.status_code, unsigned.json()["code"]) == (401, "INVALID_SIGNATURE")
    assert world.payout(payout["id"])["status"] == "SUCCESS"
    world.assert_clean()


@pytest.mark.parametrize("signature", ["", "v1,é", "v1,!!!", "v2,abc", "v1", "," * 1000])
def test_a_malformed_signature_gets_401(world: World, signature: str) -> None:
    payout = world.create_payout("0004")
    headers = [
        (b"webhook-id", b"msg_x"),
        (b"webhook-timestamp", str(int(time.time())).encode()),
        (b"webhook-signature", signature.encode("latin-1")),
        (b"content-type", b"application/json"),
    ]
    body = json.dumps({"payout_id": payout["id"], "status": "FAILED"})
    response = httpx.post(f"{world.stack.ipn_url}/ipn/callback", content=body, headers=httpx.Headers(headers), timeout=60)
    assert (response.status_code, response.json()["code"]) == (401, "INVALID_SIGNATURE")


@pytest.mark.parametrize("message_id", ["x" * 256, "x" * 20_000])
def test_a_message_id_that_cannot_be_remembered_is_refused(world: World, message_id: str) -> None:
    payout = world.create_payout("0004")
    response = send(world, {"payout_id": payout["id"], "status": "SUCCESS"}, message_id=message_id)
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")
    assert world.payout(payout["id"])["status"] == "PENDING"


def test_the_ports_of_one_process_serve_only_their_own_operations(world: World) -> None:
    assert httpx.get(f"{world.stack.ipn_url}/health", timeout=60).status_code == 200
    on_ipn = httpx.get(f"{world.stack.ipn_url}/api/v1/balance", headers={"X-API-KEY": world.api_key}, timeout=60)
    on_api = httpx.post(f"{world.stack.api_url}/ipn/callback", json={}, timeout=60)
    assert [(answer.status_code, answer.json()["code"]) for answer in (on_ipn, on_api)] == [(404, "NOT_FOUND")] * 2


def test_the_receiver_also_runs_as_a_process_of_its_own(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        variables = {
            "DATABASE_URL": stack.database_url, "REDIS_URL": stack.redis_url,
            "SANDBOX_SECRET_KEY": base64.b64encode(bytes(32)).decode(), "SANDBOX_LISTEN_FD": str(listener.fileno()),
        }  # fmt: skip
        command = [sys.executable, "-m", "ipn"]
        process = subprocess.Popen(command, env=os.environ | variables, pass_fds=[listener.fileno()], stdout=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert httpx.get(f"{url}/health/ready", timeout=60).json() == {"status": "ready"}
            body = {"payout_id": str(uuid.uuid4()), "status": "SUCCESS"}
            unsigned = httpx.post(f"{url}/ipn/callback", json=body, timeout=60)
            assert (unsigned.status_code, unsigned.json()["code"]) == (401, "INVALID_SIGNATURE")
        finally:
            end(process)


def test_psp_ipn_send_signs_and_sends(world: World) -> None:
    payout = world.create_payout("0004")
    command = [sys.executable, "-m", "sandbox.cli.main", "ipn", "send", payout["id"], "success", "--json"]
    options = ["--url", world.stack.ipn_url, "--secret", world.ipn_secret]
    sent = subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(sent.stdout)["status"] == "SUCCESS"
    again = subprocess.run([*command[:-1], *options], capture_output=True, text=True, check=True, timeout=120)
    assert again.stdout == f"Accepted: {payout['id']}  SUCCESS\n"
    refused = subprocess.run([*command[:-2], "failed", *options], capture_output=True, text=True, check=False, timeout=120)
    assert (refused.returncode, "INVALID_STATE" in refused.stderr) == (1, True)
