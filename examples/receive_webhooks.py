"""Receive webhooks and verify them, with nothing but the standard library: what an integrator has to write.

    psp up                                                    # in one terminal
    python3 examples/receive_webhooks.py --secret whsec_…     # in another; the banner's "Webhook secret"

Without `--secret` it tries itself at a running sandbox (`PSP_URL`, `PSP_ADMIN_KEY`): it makes a merchant, freezes its clock ten
years ahead, registers itself and makes one payout. It ends with 0 when `payout.created`, `payout.processing` and
`payout.succeeded` have come in whole, in order and rightly signed, with 1 if they have not within 30 seconds.
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
"""Seconds that a timestamp may be off: what is older may be a replay."""
EXPECTED: Final = ["payout.created", "payout.processing", "payout.succeeded"]


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    """Why a webhook is not to be trusted, None if it is.

    `body` is the raw bytes, before any parsing; `now` is the host's Unix time, also when the merchant's clock is frozen
    or years ahead. The merchant's time is in the header x-sandbox-now.
    """
    try:
        sent = int(headers["webhook-timestamp"])
        signed = f"{headers['webhook-id']}.{sent}.".encode() + body
        given = headers["webhook-signature"].split()
    except (KeyError, ValueError):
        return "it lacks its three headers"
    if abs(now - sent) > TOLERANCE:
        return "its timestamp is too far off"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    # While a secret is rotated there are two signatures; any that fits will do. Compared in constant time.
    return None if any(hmac.compare_digest(expected, one) for one in given) else "no signature fits"


class Receiver(http.server.ThreadingHTTPServer):
    """Takes webhooks on loopback; `events` has each event once, by its id, however often it was delivered."""

    secret = ""

    def __init__(self, port: int) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.complete = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)

    def take(self, headers: Mapping[str, str], body: bytes) -> int:
        """The status to answer with."""
        fault = verify(self.secret, headers, body, time.time())
        if fault is not None:
            print(f"refused: {fault}", flush=True)
            return 401
        event = json.loads(body)
        if self.events.setdefault(headers["webhook-id"], event) is event:
            # The merchant's time; webhook-timestamp is the host's, which is what a signature's age is counted by.
            print(f"{headers['x-sandbox-now']} {headers['webhook-id']} {event['type']}", flush=True)
        if [one["type"] for one in list(self.events.values())] == EXPECTED:
            self.complete.set()
        return 200


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        status = self.server.take({name.lower(): value for name, value in self.headers.items()}, body)
        # CommandResult first, work later: what takes longer than 15 s counts as failed and comes again.
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


def call(method: str, path: str, key: Mapping[str, str], body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Call the sandbox with a key's header and return the answer's body. Raises urllib's HTTPError for a refusal."""
    url = os.environ.get("PSP_URL", "http://127.0.0.1:8000") + path
    headers = {**key, "X-IDEMPOTENCY-KEY": str(uuid.uuid4()), "Content-Type": "application/json"}
    raw = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, raw, headers, method=method)  # noqa: S310 -- the URL is the operator's own
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 -- as above
        found: dict[str, Any] = json.loads(answer.read() or b"{}")
    return found


def try_it(receiver: Receiver) -> int:
    """Make a merchant in virtual time, register the receiver, make a payout, and wait for its events: the exit code."""
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
    print("all verified" if done else "not all came within 30 s")
    return 0 if done else 1


def main() -> int:
    """Serve with the secret that was given, or try it all."""
    parser = argparse.ArgumentParser(description="Receive signed webhooks.")
    parser.add_argument("--port", type=int, help="9000 with --secret, else any that is free")
    parser.add_argument("--secret", help="whsec_…, as POST /api/v1/webhook-endpoints shows it once")
    given = parser.parse_args()
    with Receiver(given.port or (9000 if given.secret else 0)) as receiver:
        if not given.secret:
            return try_it(receiver)
        receiver.secret = given.secret
        print(f"listening on http://127.0.0.1:{receiver.server_port}/", flush=True)
        try:
            receiver.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
