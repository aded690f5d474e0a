"""An endpoint's webhooks are signed as it asks, also during a rotation; its secrets are shown once."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.domain.clock import render
from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.world import Stack, World
from tests.test_signing_vectors import accepts

PATH = "/api/v1/webhook-endpoints"
SLACK = {
    "header": "X-Slack-Signature",
    "algorithm": "sha256",
    "encoding": "hex",
    "template": "v0:{timestamp}:{body}",
    "prefix": "v0=",
    "timestamp_header": "X-Slack-Request-Timestamp",
}
DIALECTS = ("v1", "v1a", "stripe", "github", "custom")


def create(world: World, url: str, signing: str = "v1", **fields: Any) -> dict[str, Any]:
    """Create an endpoint that receives one event for each payout."""
    settings = {"custom_signing": SLACK} if signing == "custom" else {}
    body = {"url": url, "event_types": ["payout.created"], "retry_profile": "fast", "signing": signing, **settings, **fields}
    response = world.post(PATH, body)
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


def rotate(world: World, endpoint: dict[str, Any], **body: Any) -> dict[str, Any]:
    response = world.post(f"{PATH}/{endpoint['id']}/rotate-secret", body)
    assert response.status_code == 200, response.text
    rotated: dict[str, Any] = response.json()
    return rotated


def deliver(world: World, receiver: Receiver) -> Received:
    """Create a payout and return its delivery."""
    before = len(receiver.received)
    world.create_payout("0004")
    until(lambda: len(receiver.received) > before)
    return receiver.received[before]


def is_signed_by(shown: dict[str, Any], signing: str, received: Received) -> bool:
    """Verify a delivery with what the API showed (`secret` or `public_key`). Only for v1, its time must be the present."""
    known = {"public_keys": [shown["public_key"]]} if signing == "v1a" else {"secrets": [shown["secret"]]}
    vector = {"signing": signing, "headers": received.headers, "body": received.body.decode(), "custom_signing": SLACK, **known}
    return accepts(vector, int(time.time()) if signing in ("v1", "github") else timestamp_of(signing, received))


def timestamp_of(signing: str, received: Received) -> int:
    if signing == "stripe":
        return int(received.headers["stripe-signature"].split(",")[0].removeprefix("t="))
    return int(received.headers["x-slack-request-timestamp" if signing == "custom" else "webhook-timestamp"])


# ---- deliveries


@pytest.mark.parametrize("signing", DIALECTS)
def test_a_delivery_has_the_signature_of_its_dialect_and_the_log_shows_it(
    world: World, receiver: Receiver, signing: str
) -> None:
    endpoint = create(world, receiver.url, signing)
    received = deliver(world, receiver)
    assert is_signed_by(endpoint, signing, received)
    assert not is_signed_by(create(world, receiver.url, signing, event_types=["payout.returned"]), signing, received)
    assert received.headers["webhook-id"] == received.event["id"]
    assert "x-sandbox-now" in received.headers
    assert ("webhook-signature" in received.headers) is (signing in ("v1", "v1a"))
    if signing != "github":
        assert abs(timestamp_of(signing, received) - time.time()) < 60
    found = f"/api/v1/webhook-deliveries?endpoint_id={endpoint['id']}&status=SUCCEEDED"
    until(lambda: world.get(found).json()["data"])
    delivery = world.get(found).json()["data"][0]["id"]
    (attempt,) = world.get(f"/api/v1/webhook-deliveries/{delivery}").json()["attempts"]
    shown = {name.lower(): value for name, value in attempt["request"]["headers"].items()}
    assert shown.items() <= received.headers.items()
    assert {name for name in received.headers if "signature" in name} <= shown.keys()


@pytest.mark.parametrize("signing", ["v1", "v1a", "stripe", "custom"])
def test_with_signing_time_merchant_the_signature_has_the_merchants_time(
    stack: Stack, receiver: Receiver, signing: str
) -> None:
    in_ten_years = datetime.now(UTC).replace(month=1, day=1, microsecond=0) + timedelta(days=3653)
    with World.create(stack, opening_balance="1000.00", frozen_at=render(in_ten_years)) as world:
        endpoint = create(world, receiver.url, signing, signing_time="merchant")
        received = deliver(world, receiver)
        assert is_signed_by(endpoint, signing, received) is (signing != "v1"), "a receiver of v1 refuses a time in the future"
        assert timestamp_of(signing, received) == in_ten_years.timestamp()


@pytest.mark.parametrize("signing", DIALECTS)
def test_signature_faults_hit_each_dialect(stack: Stack, receiver: Receiver, signing: str) -> None:
    with World.create(stack, opening_balance="1000.00") as world:
        endpoint = create(world, receiver.url, signing)
        for kind, parameters in (("wrong_key", {}), ("tampered_body", {}), ("stale_timestamp", {"seconds": 3600})):
            fault = {"target": "webhooks", "kind": kind, "count": 1, **parameters}
            response = world.post("/sandbox/v1/faults", fault)
            assert response.status_code == 201, response.text
            received = deliver(world, receiver)
            if kind != "stale_timestamp":
                assert not is_signed_by(endpoint, signing, received), kind
            elif signing != "github":  # whose signature has no timestamp
                assert 3590 < time.time() - timestamp_of(signing, received) < 3700
                # The signature itself is good: the receiver must refuse the age. The public library does so by itself.
                assert is_signed_by(endpoint, signing, received) is (signing != "v1")
        assert is_signed_by(endpoint, signing, deliver(world, receiver))


# ---- rotation


@pytest.mark.parametrize("signing", DIALECTS)
def test_during_the_grace_period_the_previous_secret_signs_too(stack: Stack, receiver: Receiver, signing: str) -> None:
    with World.create(stack, opening_balance="1000.00", frozen_at="2030-01-01T00:00:00.000Z") as world:
        first = create(world, receiver.url, signing)
        second = rotate(world, first, grace_seconds=600)
        assert second["previous_expires_at"] == "2030-01-01T00:10:00.000Z"
        received = deliver(world, receiver)
        assert is_signed_by(second, signing, received)
        assert is_signed_by(first, signing, received) is (signing in ("v1", "v1a", "stripe"))
        assert world.post("/sandbox/v1/clock/advance", {"seconds": 600}).status_code == 200
        received = deliver(world, receiver)
        assert is_signed_by(second, signing, received)
        assert not is_signed_by(first, signing, received)


def test_several_rotations_keep_the_newest_four_previous_secrets_until_a_rotation_without_grace(
    stack: Stack, receiver: Receiver
) -> None:
    with World.create(stack, opening_balance="1000.00", frozen_at="2030-01-01T00:00:00.000Z") as world:
        endpoint = create(world, receiver.url)
        shown = [endpoint, *(rotate(world, endpoint) for _ in range(5))]
        assert shown[-1]["previous_expires_at"] == "2030-01-02T00:00:00.000Z"
        received = deliver(world, receiver)
        assert [is_signed_by(one, "v1", received) for one in shown] == [False, True, True, True, True, True]
        last = rotate(world, endpoint, grace_seconds=0)
        assert last["previous_expires_at"] == "2030-01-01T00:00:00.000Z"
        received = deliver(world, receiver)
        assert [is_signed_by(one, "v1", received) for one in (*shown, last)] == [False] * 6 + [True]
        assert received.headers["webhook-signature"].count("v1,") == 1


def test_a_rotation_is_replayed_and_its_stored_response_is_encrypted(world: World, receiver: Receiver) -> None:
    endpoint = create(world, receiver.url)
    path = f"{PATH}/{endpoint['id']}/rotate-secret"
    first, second = (world.post(path, {"grace_seconds": 60}, key="rotate-once") for _ in range(2))
    assert first.content == second.content
    assert second.headers["Idempotent-Replayed"] == "true"
    secret = first.json()["secret"]
    stored = world.stack.execute(
        "SELECT body FROM idempotency_keys WHERE merchant_id = $1 AND key = 'rotate-once'", world.merchant_id
    )
    assert secret.encode() not in bytes(stored[0]["body"])
    statement = "SELECT to_jsonb(e)::text AS row FROM webhook_endpoints e WHERE merchant_id = $1"
    rows = world.stack.execute(statement, world.merchant_id)
    assert not any(secret in row["row"] or endpoint["secret"] in row["row"] for row in rows)


# ---- secrets and settings


def test_a_v1a_endpoint_shows_its_public_key_and_never_its_private_key(world: World, receiver: Receiver) -> None:
    created = create(world, receiver.url, "v1a")
    path = f"{PATH}/{created['id']}"
    rotated = rotate(world, created)
    found = world.get(path).json()
    assert created["secret"] is rotated["secret"] is None
    assert created["public_key"].startswith("whpk_")
    assert found["public_key"] == rotated["public_key"] != created["public_key"]
    assert found in world.get(PATH).json()["data"]
    assert "secret" not in found
    assert "whsk_" not in json.dumps([created, rotated, found])
    assert create(world, receiver.url)["public_key"] is None


def test_a_change_of_dialect_keeps_the_secret_unless_another_kind_of_key_is_needed(stack: Stack, receiver: Receiver) -> None:
    with World.create(stack, opening_balance="1000.00") as world:
        endpoint = create(world, receiver.url)
        path = f"{PATH}/{endpoint['id']}"
        for change in ({"signing": "stripe"}, {"signing": "custom", "custom_signing": SLACK}, {"signing": "github"}):
            changed = world.patch(path, change)
            assert changed.status_code == 200, changed.text
            assert is_signed_by(endpoint, change["signing"], deliver(world, receiver))
        assert changed.json()["custom_signing"] is None
        rotate(world, endpoint)
        asymmetric = world.patch(path, {"signing": "v1a"}).json()
        received = deliver(world, receiver)
        assert is_signed_by(asymmetric, "v1a", received)
        assert received.headers["webhook-signature"].count("v1a,") == 1
        assert world.patch(path, {"signing": "v1"}).json()["public_key"] is None
        received = deliver(world, receiver)
        assert not is_signed_by(endpoint, "v1", received)
        rotated = rotate(world, endpoint)
        assert is_signed_by(rotated, "v1", deliver(world, receiver))


def test_custom_settings_are_stored_and_changed(world: World, receiver: Receiver) -> None:
    created = create(world, receiver.url, "custom")
    path = f"{PATH}/{created['id']}"
    assert created["custom_signing"] == SLACK
    assert world.patch(path, {"description": "x"}).json()["custom_signing"] == SLACK
    assert world.patch(path, {"custom_signing": SLACK | {"prefix": "v1="}}).json()["custom_signing"]["prefix"] == "v1="
    assert world.get(path).json()["custom_signing"]["prefix"] == "v1="


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"signing": "v2"}, "signing"),
        ({"signing": "custom"}, "custom_signing"),
        ({"custom_signing": SLACK}, "custom_signing"),
        ({"signing": "stripe", "custom_signing": SLACK}, "custom_signing"),
        ({"signing": "custom", "custom_signing": SLACK | {"template": "{secret}{body}"}}, "custom_signing.template"),
        ({"signing": "custom", "custom_signing": SLACK | {"header": "content-length"}}, "custom_signing.header"),
        ({"signing": "custom", "custom_signing": SLACK | {"algorithm": "md5"}}, "custom_signing.algorithm"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_field(
    world: World, receiver: Receiver, body: dict[str, Any], field: str
) -> None:
    endpoint = create(world, receiver.url)
    for response in (
        world.post(PATH, {"url": receiver.url, **body}),
        world.patch(f"{PATH}/{endpoint['id']}", body),
    ):
        assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR"), response.text
        assert [error["field"] for error in response.json()["errors"]] == [field]


# ---- examples


@pytest.mark.parametrize("signing", DIALECTS)
def test_an_example_is_signed_like_a_delivery_and_shows_no_secret(world: World, receiver: Receiver, signing: str) -> None:
    endpoint = create(world, receiver.url, signing)
    body, now = '{"type": "payout.succeeded" }', int(time.time())
    response = world.post(f"{PATH}/{endpoint['id']}/signing-example", {"body": body, "timestamp": now, "id": "evt-1"})
    assert response.status_code == 200, response.text
    example = response.json()
    assert example.keys() == {"signed_content", "headers", "steps"}
    headers = {name.lower(): value for name, value in example["headers"].items()}
    assert headers["webhook-id"] == "evt-1"
    assert is_signed_by(endpoint, signing, Received(headers, body.encode()))
    assert example["signed_content"].endswith(body)
    assert endpoint["secret"] is None or endpoint["secret"] not in response.text
    assert "whsk_" not in response.text


def test_an_example_without_a_body_signs_a_sample_at_the_present_time(world: World, receiver: Receiver) -> None:
    endpoint = create(world, receiver.url)
    path = f"{PATH}/{endpoint['id']}/signing-example"
    example = world.post(path).json()
    body = example["signed_content"].split(".", 2)[2]
    assert json.loads(body)["type"] == "payout.succeeded"
    assert is_signed_by(endpoint, "v1", Received(example["headers"], body.encode()))
    as_object = world.post(path, {"body": {"a": 1}}).json()
    assert as_object["signed_content"].endswith('.{"a":1}')
