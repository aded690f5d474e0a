"""Example tests in virtual time: a payout is returned a minute later without waiting a minute, and its webhooks still verify.

Each test has its own merchant with a frozen clock, so it needs no sleeps and other tests cannot disturb it.

    psp up --ephemeral --port 0 --ready-file ready.json &
    PSP_URL=http://127.0.0.1:… pytest examples/pytest_virtual_time.py

`PSP_URL` is the sandbox's URL (default http://127.0.0.1:8000), `PSP_ADMIN_KEY` the operator's key (default: the development
key). Needs pytest, httpx and standardwebhooks.
"""

import http.server
import os
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

URL = os.environ.get("PSP_URL", "http://127.0.0.1:8000")
OPERATOR = {"X-ADMIN-KEY": os.environ.get("PSP_ADMIN_KEY", "ak_sandbox_development_admin")}


@pytest.fixture
def merchant() -> Iterator[httpx.Client]:
    """Yield a client of a new merchant with 1,000.00 and a frozen clock, and delete the merchant afterwards."""
    with httpx.Client(base_url=URL, timeout=60) as operator:
        body = {"name": "virtual time", "opening_balance": "1000.00", "seed": 7}
        created = operator.post("/sandbox/v1/merchants", json=body, headers=OPERATOR).raise_for_status().json()
        with httpx.Client(base_url=URL, timeout=60, headers={"X-API-KEY": created["api_key"]}) as client:
            client.post("/sandbox/v1/clock/freeze", json={}).raise_for_status()
            yield client
        operator.delete(f"/sandbox/v1/merchants/{created['merchant_id']}", headers=OPERATOR).raise_for_status()


class Endpoint(http.server.ThreadingHTTPServer):
    """A webhook endpoint on loopback that records each request as (headers, body)."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Endpoint)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """Yield a listening webhook endpoint, and stop it afterwards."""
    with Endpoint() as server:
        yield server
        server.shutdown()


def create_payout(client: httpx.Client, account_number: str) -> dict[str, Any]:
    """Create a payout of 250.00 and return it."""
    body = {
        "merchant_reference": str(uuid.uuid4()), "amount": "250.00",
        "dest_type": "BANK", "bank_code": "HBL", "account_number": account_number,
    }  # fmt: skip
    response = client.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": str(uuid.uuid4())})
    payout: dict[str, Any] = response.raise_for_status().json()
    return payout


def status_and_available(client: httpx.Client, payout_id: str) -> tuple[str, str]:
    """Return the payout's status and the merchant's available balance."""
    payout = client.get(f"/api/v1/payouts/{payout_id}").raise_for_status().json()
    balance = client.get("/api/v1/balance").raise_for_status().json()
    return payout["status"], balance["available_balance"]


def test_a_returned_payout_returns_the_money(merchant: httpx.Client) -> None:
    payout_id = create_payout(merchant, "12345678900012")["id"]
    # With a frozen clock, the call itself takes the due steps before it responds, so there is nothing to wait for.
    assert status_and_available(merchant, payout_id) == ("SUCCESS", "750.00")

    advanced = merchant.post("/sandbox/v1/clock/advance", json={"seconds": 59}).raise_for_status().json()
    assert (advanced["complete"], advanced["ran"]) == (True, [])
    assert status_and_available(merchant, payout_id) == ("SUCCESS", "750.00")

    advanced = merchant.post("/sandbox/v1/clock/advance", json={"seconds": 1}).raise_for_status().json()
    assert [(step["from"], step["to"]) for step in advanced["ran"]] == [("SUCCESS", "RETURNED")]
    assert status_and_available(merchant, payout_id) == ("RETURNED", "1000.00")

    assert merchant.get("/sandbox/v1/audit").raise_for_status().json()["ok"] is True


def test_webhooks_verify_even_if_the_clock_is_years_ahead(merchant: httpx.Client, endpoint: Endpoint) -> None:
    merchant.post("/sandbox/v1/clock/freeze", json={"at": "2036-01-01T00:00:00Z"}).raise_for_status()
    registration = {"url": f"http://127.0.0.1:{endpoint.server_port}/", "event_types": ["payout.*"]}
    key = {"X-IDEMPOTENCY-KEY": str(uuid.uuid4())}
    registered = merchant.post("/api/v1/webhook-endpoints", json=registration, headers=key).raise_for_status().json()
    create_payout(merchant, "12345678900012")
    merchant.post("/sandbox/v1/clock/advance", json={"seconds": 60}).raise_for_status()

    # With a frozen clock, an endpoint receives its events one at a time, in order. `webhook-timestamp` is the host's time, so
    # that any library verifies the signature; `x-sandbox-now` is the merchant's time.
    events = [Webhook(registered["secret"]).verify(body, headers) for headers, body in endpoint.received]
    assert [(event["type"], event["previous_status"], event["data"]["version"]) for event in events] == [
        ("payout.created", None, 1),
        ("payout.processing", "PENDING", 2),
        ("payout.succeeded", "PROCESSING", 3),
        ("payout.returned", "SUCCESS", 4),
    ]
    times = [headers["x-sandbox-now"] for headers, _ in endpoint.received]
    assert times == [*["2036-01-01T00:00:00.000Z"] * 3, "2036-01-01T00:01:00.000Z"]
