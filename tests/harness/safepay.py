"""Calls of the Safepay dialect, as its documentation describes them."""

import uuid
from typing import Any

import httpx

from tests.harness.waiting import until
from tests.harness.world import World

IBANS = {
    "0001": "PK93HABB0000000000000001",
    "0002": "PK66HABB0000000000000002",
    "0003": "PK39HABB0000000000000003",
    "0004": "PK12HABB0000000000000004",
    "0005": "PK82HABB0000000000000005",
    "0006": "PK55HABB0000000000000006",
    "0007": "PK28HABB0000000000000007",
    "0008": "PK98HABB0000000000000008",
    "0009": "PK71HABB0000000000000009",
    "0010": "PK44HABB0000000000000010",
    "0011": "PK17HABB0000000000000011",
    "0012": "PK87HABB0000000000000012",
    "0013": "PK60HABB0000000000000013",
    "0014": "PK33HABB0000000000000014",
}
"""Test accounts, by the digits that choose the outcome."""
KEY = "X-SFPY-AGGREGATOR-SECRET-KEY"


class Safepay:
    """A client with plain HTTP. `aggregator_id` and `key` are a merchant's own, unless given."""

    def __init__(self, world: World, key: str | None = None, aggregator_id: str | None = None) -> None:
        self.aggregator_id = aggregator_id or f"agg_{world.merchant_id}"
        self.base = f"/raastwire/v1/aggregators/{self.aggregator_id}"
        self._url = world.stack.api_url + self.base
        self._headers = {KEY: key or world.api_key}

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request below the aggregator's path."""
        headers = self._headers | options.pop("headers", {})
        return httpx.request(method, self._url + path, headers=headers, timeout=60, **options)

    def get(self, path: str, **params: Any) -> Any:
        """Return the `data` of a successful GET."""
        return _data(self.call("GET", path, params=params))

    def post(self, path: str, body: Any) -> Any:
        """Return the `data` of a successful POST."""
        return _data(self.call("POST", path, json=body))

    def put(self, path: str, body: Any = None) -> Any:
        """Return the `data` of a successful PUT."""
        return _data(self.call("PUT", path, json={} if body is None else body))

    def payout(self, suffix: str = "0001", amount: str = "200", request_id: str | None = None) -> Any:
        """Create a payout to a test account, and return the payment."""
        return self.post("/payout", payout_body(suffix, amount, request_id))

    def until(self, token: str, status: str) -> Any:
        """Wait for a payment's status, and return the payment."""
        return until(lambda: found if (found := self.get(f"/payments/{token}"))["status"] == status else None)


def payout_body(suffix: str = "0001", amount: str = "200", request_id: str | None = None) -> dict[str, str]:
    """Return the body of a payout."""
    return {"request_id": request_id or str(uuid.uuid4()), "amount": amount, "creditor_iban": IBANS[suffix]}


def _data(response: httpx.Response) -> Any:
    body = response.json()
    assert (response.status_code, body.get("api_version")) == (200, "v1"), response.text
    return body["data"]
