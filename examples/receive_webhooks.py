"""Receive webhooks and verify their signatures, using only the standard library.

    psp up                                                    # in one terminal
    python3 examples/receive_webhooks.py --secret whsec_…     # in another; the banner's "Webhook secret"

Without `--secret` it runs a demonstration against a running sandbox (`PSP_URL`, `PSP_ADMIN_KEY`): it creates a merchant,
freezes the clock ten years ahead, registers itself and creates a payout. The exit code is 0 when `payout.created`,
`payout.processing` and `payout.succeeded` have arrived in order with valid signatures, and 1 if that takes over 30 seconds.
"""

import argparse
import base64
import hashlib
import hmac
import http.server
import json
import os
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

TOLERANCE: Final = 300
"""Maximum difference in seconds between a timestamp and the host's clock. An older webhook could be a replay."""
EXPECTED: Final = ["payout.created", "payout.processing", "payout.succeeded"]


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    """Verify a webhook's signature. Return why it is invalid, or None if it is valid.

    `body` is the raw body, before parsing. `now` is the host's Unix time, even if the merchant's clock is frozen or years
    ahead; the merchant's time is in the header x-sandbox-now.
    """
    try:
        sent = int(headers["webhook-timestamp"][:13])  # no clock needs more digits, and a huge number has no difference
        signed = f"{headers['webhook-id']}.{sent}.".encode() + body
        given = headers["webhook-signature"].split()
    except (KeyError, ValueError):
        return "a signature header is missing or malformed"
    if abs(now - sent) > TOLERANCE:
        return "the timestamp is too far from the host's time"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    # While a secret is being rotated, there are two signatures, and one must match. Compare in constant time.
    return None if any(hmac.compare_digest(expected, one) for one in given) else "no signature matches"


class Receiver(http.server.ThreadingHTTPServer):
    """Receives webhooks on loopback. `events` holds each event once, by id, even if it is delivered several times."""

    secret = ""

    def __init__(self, port: int) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.complete = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)

    def receive(self, headers: Mapping[str, str], body: bytes) -> int:
        """Process a webhook and return the HTTP status of the response."""
        error = verify(self.secret, headers, body, time.time())
        if error is not None:
            print(f"refused: {error}", flush=True)
            return 401
        event = json.loads(body)
        if self.events.setdefault(headers["webhook-id"], event) is event:
            # x-sandbox-now is the merchant's time. webhook-timestamp is the host's time, to check the signature's age.
            print(f"{headers['x-sandbox-now']} {headers['webhook-id']} {event['type']}", flush=True)
        if [one["type"] for one in list(self.events.values())] == EXPECTED:
            self.complete.set()
        return 200


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        status = self.server.receive({name.lower(): value for name, value in self.headers.items()}, body)
        # Respond first and do slow work later: an attempt that gets no response within 15 s fails and is retried.
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def call(method: str, path: str, key: Mapping[str, str], body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Call the sandbox with `key` as a header and return the response's body. Raises urllib's HTTPError for a 4xx or 5xx."""
    url = os.environ.get("PSP_URL", "http://127.0.0.1:8000") + path
    headers = {**key, "X-IDEMPOTENCY-KEY": str(uuid.uuid4()), "Content-Type": "application/json"}
    raw = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, raw, headers, method=method)  # noqa: S310 -- the URL is the operator's own
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 -- as above
        found: dict[str, Any] = json.loads(response.read() or b"{}")
    return found


def demonstrate(receiver: Receiver) -> int:
    """Create a merchant in the future, register the receiver, create a payout and wait for its events. Return an exit code."""
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    operator = {"X-ADMIN-KEY": os.environ.get("PSP_ADMIN_KEY", "ak_sandbox_development_admin")}
    merchant = call("POST", "/sandbox/v1/merchants", operator, {"name": "receiver", "opening_balance": "100.00"})
    try:
        key = {"X-API-KEY": merchant["api_key"]}
        ahead = datetime.now(UTC) + timedelta(days=3650)
        call("POST", "/sandbox/v1/clock/freeze", key, {"at": ahead.isoformat()})
        url = f"http://127.0.0.1:{receiver.server_port}/"
        receiver.secret = call("POST", "/api/v1/webhook-endpoints", key, {"url": url, "retry_profile": "fast"})["secret"]
        destination = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
        call("POST", "/api/v1/payouts", key, {"merchant_reference": "one", "amount": "10.00", **destination})
        done = receiver.complete.wait(30)
    finally:
        call("DELETE", f"/sandbox/v1/merchants/{merchant['merchant_id']}", operator)
    print("all verified" if done else "not all events arrived within 30 s")
    return 0 if done else 1


def main() -> int:
    """Serve with the given secret, or run the demonstration. Return the exit code."""
    parser = argparse.ArgumentParser(description="Receive signed webhooks.")
    parser.add_argument("--port", type=int, help="default: 9000 with --secret, otherwise a free port")
    parser.add_argument("--secret", help="whsec_…, which POST /api/v1/webhook-endpoints shows once")
    given = parser.parse_args()
    with Receiver(given.port or (9000 if given.secret else 0)) as receiver:
        if not given.secret:
            return demonstrate(receiver)
        receiver.secret = given.secret
        print(f"listening on http://127.0.0.1:{receiver.server_port}/", flush=True)
        try:
            receiver.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
