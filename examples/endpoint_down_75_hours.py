"""Show, within seconds, what happens to a webhook if its endpoint is down for 75 hours, by advancing a frozen clock.

    psp up                                          # in one terminal
    python3 examples/endpoint_down_75_hours.py      # in another; needs httpx

All ten attempts of the standard schedule fail. Then the endpoint recovers and the delivery is resent. `PSP_URL` and
`PSP_ADMIN_KEY` select a sandbox other than the one on port 8000. The exit code is 0 if all of this happened, 1 otherwise.
"""

import http.server
import os
import sys
import threading
import time
import uuid
from typing import Any, Final

import httpx

URL: Final = os.environ.get("PSP_URL", "http://127.0.0.1:8000")
OPERATOR: Final = {"X-ADMIN-KEY": os.environ.get("PSP_ADMIN_KEY", "ak_sandbox_development_admin")}
HOURS: Final = 77
"""The tenth attempt is due at most 75 h 35 min 5 s after the first. Jitter only shortens the delays."""


class Endpoint(http.server.ThreadingHTTPServer):
    """A webhook endpoint that responds with `status`."""

    status = 500

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Endpoint)
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def expect(what: str, *, holds: bool) -> None:
    """Print the expectation and whether it holds. Exit with code 1 if it does not."""
    print(("ok    " if holds else "WRONG ") + what)
    if not holds:
        sys.exit(1)


def run_outage(client: httpx.Client, endpoint: Endpoint) -> None:
    """Run the outage and the resend for a new merchant, whose API key `client` sends."""

    def post(path: str, body: dict[str, Any]) -> Any:
        return client.post(path, json=body, headers={"X-IDEMPOTENCY-KEY": str(uuid.uuid4())}).raise_for_status().json()

    post("/sandbox/v1/clock/freeze", {})
    registration = {"url": f"http://127.0.0.1:{endpoint.server_port}/", "event_types": ["payout.succeeded"]}
    post("/api/v1/webhook-endpoints", registration)
    destination = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
    payout = post("/api/v1/payouts", {"merchant_reference": "while-down", "amount": "10.00", **destination})

    # The workers make the first attempt, as they would with a running clock. Wait for it.
    post("/sandbox/v1/drain", {})
    started = time.perf_counter()
    run = post("/sandbox/v1/clock/advance", {"seconds": HOURS * 3600})
    seconds = time.perf_counter() - started
    expect(f"{HOURS} hours passed in one call, in {seconds:.2f} real seconds", holds=run["complete"])

    def delivery() -> dict[str, Any]:
        (found,) = client.get("/api/v1/webhook-deliveries").raise_for_status().json()["data"]
        details: dict[str, Any] = client.get(f"/api/v1/webhook-deliveries/{found['id']}").raise_for_status().json()
        return details

    failed = delivery()
    for attempt in failed["attempts"]:
        print(f"      {attempt['at']}  {attempt['status']}")
    expect("ten attempts were made", holds=failed["attempt_count"] == len(failed["attempts"]) == 10)
    expect("the delivery failed, and nothing more is due", holds=failed["status"] == "FAILED")
    status = client.get(f"/api/v1/payouts/{payout['id']}").raise_for_status().json()["status"]
    expect("the payout is not affected", holds=status == "SUCCESS")

    endpoint.status = 200
    post(f"/api/v1/webhook-deliveries/{failed['id']}/resend", {})
    post("/sandbox/v1/drain", {})
    expect("after the endpoint recovers, a resend is delivered", holds=delivery()["status"] == "SUCCEEDED")


def main() -> None:
    """Create a merchant, run the outage, and delete the merchant."""
    with httpx.Client(base_url=URL, timeout=60) as operator, Endpoint() as endpoint:
        merchant = {"name": "75 hours", "opening_balance": "100.00"}
        created = operator.post("/sandbox/v1/merchants", json=merchant, headers=OPERATOR).raise_for_status().json()
        try:
            with httpx.Client(base_url=URL, timeout=60, headers={"X-API-KEY": created["api_key"]}) as client:
                run_outage(client, endpoint)
        finally:
            operator.delete(f"/sandbox/v1/merchants/{created['merchant_id']}", headers=OPERATOR).raise_for_status()


if __name__ == "__main__":
    main()
