"""The published webhook libraries verify deliveries of every event type, even if the merchant's clock is ten years ahead.

They are `standardwebhooks` and `svix`, for Python and from npm, and `stripe` for endpoints with its dialect. PyNaCl
verifies Ed25519 signatures. The npm packages are installed once, into the virtual environment. Without node and npm, or without
access to the registry, their tests are skipped with the reason.
"""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import nacl.exceptions
import nacl.signing
import pytest
import standardwebhooks
import stripe
import svix.webhooks

from sandbox.domain.enumerations import EVENT_TYPES
from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.world import Stack, World

NPM = {"standardwebhooks": "1.1.1", "svix": "2.5.0"}
"""Pinned, so that the test always installs the same versions."""
VERIFY = """
const { Webhook: Standard } = require("standardwebhooks");
const { Webhook: Svix } = require("svix");
const { secret, deliveries } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const results = [];
for (const [name, Webhook] of [["standardwebhooks", Standard], ["svix", Svix]]) {
  for (const { headers, body } of deliveries) {
    const verify = (text) => {
      try { new Webhook(secret).verify(text, headers); return "verified"; } catch (error) { return error.name; }
    };
    results.push([name, JSON.parse(body).type, verify(body), verify(body.replace('"livemode":false', '"livemode":true'))]);
  }
}
console.log(JSON.stringify(results));
"""
SIGNINGS = ("v1", "v1a", "stripe")
Deliveries = dict[str, tuple[dict[str, Any], dict[str, Received]]]
"""By signing: the endpoint as it was created, and one delivery of each event type."""


@pytest.fixture(scope="module")
def deliveries(stack: Stack) -> Iterator[Deliveries]:
    """Yield the deliveries of a merchant whose clock is ten years ahead."""
    now = datetime.now(UTC)
    in_ten_years = now.replace(year=now.year + 10, day=min(now.day, 28))
    with World.create(stack, opening_balance="1000000.00") as world, Receiver() as receiver:
        frozen = world.client.post("/sandbox/v1/clock/freeze", json={"at": in_ten_years.isoformat()})
        assert frozen.status_code == 200, frozen.text
        endpoints = {}
        for signing in SIGNINGS:
            body = {"url": f"{receiver.url}?{signing}", "event_types": ["*"], "signing": signing}
            endpoints[signing] = world.post("/api/v1/webhook-endpoints", body).json()
        for suffix in ("0002", "0003", "0005", "0012"):
            last = world.create_payout(suffix)["id"]
            if suffix == "0003":
                assert world.post(f"/api/v1/payouts/{last}/reinitiate").status_code == 200
        world.create_payout("0001", amount="100000.00")
        assert world.post(f"/api/v1/payouts/{world.create_payout('0004')['id']}/cancel").status_code == 200
        requested = world.create_payout("0001", requires_approval=True)["id"]
        assert world.patch(f"/api/v1/payouts/{requested}/reject").status_code == 200
        user = world.post("/api/v1/users", {"name": "Ayesha"}).json()["id"]
        files = {"file": ("credits.csv", f"uuid,amount\n{user},10.00\n".encode(), "text/csv")}
        headers = {"X-IDEMPOTENCY-KEY": "credit"}
        credited = world.client.post("/api/v1/wallet/bulk-credit", files=files, headers=headers)
        assert credited.status_code == 202, credited.text
        assert world.client.post("/sandbox/v1/clock/advance", json={"seconds": 120}).json()["complete"]

        def received_by(signing: str) -> dict[str, Received]:
            found = [received for received in list(receiver.received) if received.path.endswith(f"?{signing}")]
            return {received.event["type"]: received for received in found}

        until(lambda: all(received_by(signing).keys() == set(EVENT_TYPES) for signing in SIGNINGS))
        yield {signing: (endpoint, received_by(signing)) for signing, endpoint in endpoints.items()}


@pytest.fixture(scope="module")
def delivered(deliveries: Deliveries) -> tuple[str, dict[str, Received]]:
    """Return the secret and the deliveries of the endpoint that signs with `v1`."""
    endpoint, by_type = deliveries["v1"]
    return endpoint["secret"], by_type


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_python_libraries_verify_a_delivery_and_refuse_a_changed_body(
    delivered: tuple[str, dict[str, Received]], event_type: str
) -> None:
    secret, by_type = delivered
    received = by_type[event_type]
    changed = received.body.replace(b'"livemode":false', b'"livemode":true')
    for library, refusal in (
        (standardwebhooks.Webhook, standardwebhooks.WebhookVerificationError),
        (svix.webhooks.Webhook, svix.webhooks.WebhookVerificationError),
    ):
        library(secret).verify(received.body, dict(received.headers))
        with pytest.raises(refusal):
            library(secret).verify(changed, dict(received.headers))


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_pynacl_verifies_a_v1a_delivery_with_the_public_key(deliveries: Deliveries, event_type: str) -> None:
    endpoint, by_type = deliveries["v1a"]
    received = by_type[event_type]
    key = nacl.signing.VerifyKey(base64.b64decode(endpoint["public_key"].removeprefix("whpk_")))
    version, signature = received.headers["webhook-signature"].split(",")
    assert version == "v1a"
    start = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode()
    key.verify(start + received.body, base64.b64decode(signature))
    with pytest.raises(nacl.exceptions.BadSignatureError):
        key.verify(start + received.body + b" ", base64.b64decode(signature))


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_stripe_package_constructs_an_event_from_a_delivery_and_refuses_a_changed_body(
    deliveries: Deliveries, event_type: str
) -> None:
    endpoint, by_type = deliveries["stripe"]
    received = by_type[event_type]
    signature, secret = received.headers["stripe-signature"], endpoint["secret"]
    event = stripe.Webhook.construct_event(received.body, signature, secret)
    assert (event.id, event.type) == (received.headers["webhook-id"], event_type)
    for body, key in ((received.body + b" ", secret), (received.body, secret[:-1])):
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body, signature, key)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_delivery_matches_the_openapi_document(
    stack: Stack, delivered: tuple[str, dict[str, Received]], event_type: str
) -> None:
    document = msgspec.json.decode((Path(__file__).parent.parent / "openapi" / "openapi.json").read_bytes())
    operation = document["webhooks"][event_type]["post"]
    received = delivered[1][event_type]
    components = {"components": document["components"]}
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    jsonschema_rs.Draft202012Validator({**schema, **components}, validate_formats=True).validate(received.event)
    for parameter in operation["parameters"]:
        validator = jsonschema_rs.Draft202012Validator(parameter["schema"], validate_formats=True)
        validator.validate(received.headers[parameter["name"]])


def _npm_packages() -> Path:
    """Return a folder with the npm packages, and install them if they are missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed, so the npm packages are not tested")
    folder = Path(sys.prefix) / "npm" / "-".join(f"{name}-{version}" for name, version in NPM.items())
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": NPM}))
        cache = f"--cache={folder.parent / 'cache'}"
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", cache]
        try:
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("npm install took too long, so the npm packages are not tested")
        if result.returncode != 0:
            pytest.skip(f"the npm packages could not be installed: {result.stderr.strip()[-300:]}")
        (folder / "done").touch()
    return folder


def test_npm_libraries_verify_every_delivery_and_refuse_a_changed_body(delivered: tuple[str, dict[str, Received]]) -> None:
    folder = _npm_packages()
    secret, by_type = delivered
    deliveries = [{"headers": dict(r.headers), "body": r.body.decode()} for r in by_type.values()]
    input_ = json.dumps({"secret": secret, "deliveries": deliveries})
    result = subprocess.run(
        ["node", "-e", VERIFY], cwd=folder, input=input_, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    refusals = {"standardwebhooks": "WebhookVerificationError", "svix": "WebhookVerificationError"}
    assert json.loads(result.stdout) == [
        [library, event_type, "verified", refusals[library]] for library in NPM for event_type in by_type
    ]
