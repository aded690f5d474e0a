"""Payouts over Safepay Raast with httpx."""

import base64
import hmac
import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx


class SafepayError(Exception):
    """An error that Safepay answered with."""

    def __init__(self, response: httpx.Response) -> None:
        try:
            body = response.json()
            error = body.get("error", body)
            self.code, message = error["code"], error["message"]
        except (ValueError, AttributeError, KeyError):  # such as a page of a proxy
            self.code, message = None, f"HTTP {response.status_code}"
        super().__init__(message)
        self.status = response.status_code


class Safepay:
    """The calls that a payout needs."""

    def __init__(self, base_url: str, aggregator_id: str, secret_key: str, retries: int = 3) -> None:
        self._root = f"{base_url.rstrip('/')}/v1/aggregators/{aggregator_id}"
        self._headers = {"X-SFPY-AGGREGATOR-SECRET-KEY": secret_key}
        self._retries = retries

    def _call(self, method: str, path: str, *, repeatable: bool = True, **options: Any) -> Any:
        """Repeat a call that had no answer or a 5xx, if that cannot act twice."""
        left = self._retries if repeatable else 0
        while True:
            try:
                response = httpx.request(method, self._root + path, headers=self._headers, timeout=60, **options)
            except httpx.TransportError:
                if not left:
                    raise
            else:
                if response.is_success:
                    return response.json()["data"]
                if response.status_code < 500 or not left:
                    raise SafepayError(response)
            time.sleep(0.25 * 2 ** (self._retries - left))
            left -= 1

    def payout(self, request_id: str, amount: str, iban: str) -> Any:
        """Pay. The request id makes it safe to repeat after an unknown outcome. A new one would pay twice."""
        return self._call("POST", "/payout", json={"request_id": request_id, "amount": amount, "creditor_iban": iban})

    def payment(self, token: str) -> Any:
        """Return a payment."""
        return self._call("GET", f"/payments/{token}")

    def charges(self, token: str) -> Any:
        """Return what a payment costs, in paisa."""
        return self._call("GET", f"/payments/{token}/charges")

    def payments(self, filters: Mapping[str, Any]) -> Any:
        """Return some payments, newest first, and in `count` how many there are."""
        return self._call("GET", "/payments", params=filters)

    def find(self, request_id: str) -> Any:
        """Return the payment with this request id, or None."""
        found = self.payments({"request_id": request_id})["payments"]
        return found[0] if found else None

    def all(self, limit: int = 10) -> list[Any]:
        """Return all payments, newest first."""
        found: list[Any] = []
        while True:
            page = self.payments({"limit": limit, "offset": len(found)})
            found += page["payments"]
            if len(found) >= int(page["count"]) or not page["payments"]:
                return found

    def title(self, iban: str) -> str | None:
        """Return the name of an account's holder; None if it cannot be paid."""
        found = self._call("GET", "/title-fetch", params={"iban": iban})
        return found["acctitle"] if found["statusCode"] == 0 else None

    def balance(self) -> int:
        """Return what can be paid out, in paisa."""
        return int(self._call("GET", "/ledger/accounts")["balance"])

    def subscribe(self, url: str, *types: str) -> dict[str, str]:
        """Have events sent to a URL. Return the endpoint's token and secret."""
        body = {"url": url, "event_types": types, "description": "payouts", "enabled": True}
        made = self._call("POST", "/webhooks", repeatable=False, json=body)
        return {"token": made["endpoint"]["token"], "secret": made["secret"]}

    def rotate(self, token: str) -> Any:
        """Return an endpoint's new secret."""
        return self._call("PUT", f"/webhooks/{token}/rotate", repeatable=False)["secret"]

    def deliveries(self, token: str) -> Any:
        """Return an endpoint's newest deliveries."""
        return self._call("GET", f"/webhooks/{token}/deliveries")["deliveries"]


def verify(secret: str, headers: Mapping[str, str], body: bytes) -> Any:
    """Return the event, or None if the webhook is not Safepay's, is older than five minutes, or its headers are of another."""
    given = httpx.Headers(headers)
    timestamp = given.get("x-sfpy-timestamp", "")
    mac = hmac.digest(base64.b64decode(secret), f"{timestamp}.".encode() + body, "sha256").hex()
    if not hmac.compare_digest(f"sha256={mac}".encode(), given.get("x-sfpy-signature", "").encode()):
        return None
    if abs(datetime.now(UTC) - datetime.fromisoformat(timestamp)) > timedelta(minutes=5):
        return None
    event = json.loads(body)
    named = {"id": event["identifier"], "type": event["webhook_event_type"]}
    is_same = all(given.get(f"x-sfpy-event-{name}") == value for name, value in named.items())
    return event if is_same and given.get("x-sfpy-aggregator-id") == event["aggregator_id"] else None


def main(command: str, *args: str) -> Any:
    """Run one call, as the command line says. An argument in braces is JSON."""
    parsed: list[Any] = [json.loads(argument) if argument.startswith("{") else argument for argument in args]
    if command == "verify":
        return verify(parsed[0], parsed[1], sys.stdin.buffer.read())
    url, aggregator_id, key = (os.environ[f"SAFEPAY_{name}"] for name in ("BASE_URL", "AGGREGATOR_ID", "SECRET_KEY"))
    return getattr(Safepay(url, aggregator_id, key), command)(*parsed)


if __name__ == "__main__":
    try:
        print(json.dumps(main(*sys.argv[1:])))
    except SafepayError as error:
        print(json.dumps({"status": error.status, "code": error.code, "message": str(error)}))
        sys.exit(1)
