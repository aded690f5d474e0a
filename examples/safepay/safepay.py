"""Payouts over Safepay Raast with httpx."""

import base64
import hmac
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx


class SafepayError(Exception):
    """An error that Safepay answered with."""

    def __init__(self, status: int, body: Any) -> None:
        error = body.get("error", body)
        super().__init__(error.get("message", f"HTTP {status}"))
        self.status = status
        self.code = error.get("code")


class Safepay:
    """The calls that a payout needs."""

    def __init__(self, base_url: str, aggregator_id: str, secret_key: str) -> None:
        self._root = f"{base_url}/v1/aggregators/{aggregator_id}"
        self._headers = {"X-SFPY-AGGREGATOR-SECRET-KEY": secret_key}

    def _call(self, method: str, path: str, **options: Any) -> Any:
        response = httpx.request(method, self._root + path, headers=self._headers, timeout=60, **options)
        if response.is_error:
            raise SafepayError(response.status_code, response.json())
        return response.json()["data"]

    def payout(self, request_id: str, amount: str, iban: str) -> Any:
        """Pay. The request id makes it safe to repeat after an unknown outcome. A new one would pay twice."""
        return self._call("POST", "/payout", json={"request_id": request_id, "amount": amount, "creditor_iban": iban})

    def find(self, request_id: str) -> Any:
        """Return the payment with this request id, or None."""
        payments = self._call("GET", "/payments", params={"request_id": request_id})["payments"]
        return payments[0] if payments else None

    def all(self, limit: int = 10) -> list[Any]:
        """Return all payments, newest first."""
        found: list[Any] = []
        while True:
            page = self._call("GET", "/payments", params={"limit": limit, "offset": len(found)})
            found += page["payments"]
            if len(found) >= int(page["count"]) or not page["payments"]:
                return found

    def title(self, iban: str) -> str | None:
        """Return the name of an account's holder; None if it cannot be paid."""
        found = self._call("GET", "/title-fetch", params={"iban": iban})
        return found["acctitle"] if found["statusCode"] == 0 else None

    def subscribe(self, url: str, *types: str) -> dict[str, str]:
        """Have events sent to a URL. Return the endpoint's token and secret."""
        body = {"url": url, "event_types": types, "description": "payouts", "enabled": True}
        made = self._call("POST", "/webhooks", json=body)
        return {"token": made["endpoint"]["token"], "secret": made["secret"]}

    def rotate(self, token: str) -> Any:
        """Return an endpoint's new secret."""
        return self._call("PUT", f"/webhooks/{token}/rotate")["secret"]

    def deliveries(self, token: str) -> Any:
        """Return an endpoint's newest deliveries."""
        return self._call("GET", f"/webhooks/{token}/deliveries")["deliveries"]


def verify(secret: str, timestamp: str, signature: str, body: bytes) -> Any:
    """Return the event, or None if the webhook is not Safepay's or is older than five minutes."""
    try:
        age = abs(datetime.now(UTC) - datetime.fromisoformat(timestamp))
    except (ValueError, TypeError):
        return None
    mac = hmac.digest(base64.b64decode(secret), f"{timestamp}.".encode() + body, "sha256").hex()
    is_right = hmac.compare_digest(f"sha256={mac}".encode(), signature.encode())
    return json.loads(body) if is_right and age <= timedelta(minutes=5) else None


def main(command: str, *args: str) -> Any:
    """Run one call, as the command line says."""
    if command == "verify":
        return verify(args[0], args[1], args[2], sys.stdin.buffer.read())
    names = ("SAFEPAY_BASE_URL", "SAFEPAY_AGGREGATOR_ID", "SAFEPAY_SECRET_KEY")
    return getattr(Safepay(*(os.environ[name] for name in names)), command)(*args)


if __name__ == "__main__":
    try:
        print(json.dumps(main(*sys.argv[1:])))
    except SafepayError as error:
        print(json.dumps({"status": error.status, "code": error.code, "message": str(error)}))
        sys.exit(1)
