"""A test of "the bank sends the money back a minute later" that takes no minute: a merchant of its own, its clock frozen.

    psp up --ephemeral --port 0 --ready-file ready.json &
    PSP_URL=http://127.0.0.1:… pytest examples/pytest_virtual_time.py

`PSP_URL` is the sandbox's (default http://127.0.0.1:8000), `PSP_ADMIN_KEY` the operator's key (default: the development key).
Needs pytest and httpx. No sleeps, and no other test can disturb this one: each has a whole sandbox to itself.
"""

import os
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

URL = os.environ.get("PSP_URL", "http://127.0.0.1:8000")
OPERATOR = {"X-ADMIN-KEY": os.environ.get("PSP_ADMIN_KEY", "ak_sandbox_development_admin")}


@pytest.fixture
def merchant() -> Iterator[httpx.Client]:
    """A client of a new merchant with 1,000.00 and a frozen clock; the merchant is deleted afterwards."""
    with httpx.Client(base_url=URL, timeout=60) as operator:
        wanted = {"name": "virtual time", "opening_balance": "1000.00", "seed": 7}
        made = operator.post("/sandbox/v1/merchants", json=wanted, headers=OPERATOR).raise_for_status().json()
        with httpx.Client(base_url=URL, timeout=60, headers={"X-API-KEY": made["api_key"]}) as client:
            client.post("/sandbox/v1/clock/freeze", json={}).raise_for_status()
            yield client
        operator.delete(f"/sandbox/v1/merchants/{made['merchant_id']}", headers=OPERATOR).raise_for_status()


def create_payout(client: httpx.Client, account_number: str) -> dict[str, Any]:
    """A payout of 250.00."""
    body = {
        "merchant_reference": str(uuid.uuid4()), "amount": "250.00",
        "dest_type": "BANK", "bank_code": "HBL", "account_number": account_number,
    }  # fmt: skip
    answer = client.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": str(uuid.uuid4())})
    made: dict[str, Any] = answer.raise_for_status().json()
    return made


def status_and_available(client: httpx.Client, payout_id: str) -> tuple[str, str]:
    """The payout's status, and what the merchant has left."""
    payout = client.get(f"/api/v1/payouts/{payout_id}").raise_for_status().json()
    balance = client.get("/api/v1/balance").raise_for_status().json()
    return payout["status"], balance["available_balance"]


def test_a_returned_payout_gives_the_money_back(merchant: httpx.Client) -> None:
    payout_id = create_payout(merchant, "12345678900012")["id"]
    # In a frozen world the call itself takes the steps that are due: there is nothing to wait for.
    assert status_and_available(merchant, payout_id) == ("SUCCESS", "750.00")

    ran = merchant.post("/sandbox/v1/clock/advance", json={"seconds": 59}).raise_for_status().json()
    assert (ran["complete"], ran["ran"]) == (True, [])
    assert status_and_available(merchant, payout_id) == ("SUCCESS", "750.00")

    ran = merchant.post("/sandbox/v1/clock/advance", json={"seconds": 1}).raise_for_status().json()
    assert [(step["from"], step["to"]) for step in ran["ran"]] == [("SUCCESS", "RETURNED")]
    assert status_and_available(merchant, payout_id) == ("RETURNED", "1000.00")

    assert merchant.get("/sandbox/v1/audit").raise_for_status().json()["ok"] is True
