"""A webhook receiver that passes every check of `psp certify`, with only the standard library.

    python -m examples.receivers.correct_python --secret whsec_...
    psp certify http://127.0.0.1:9000/webhooks --secret whsec_... --probe-url http://127.0.0.1:9000/probe

It keeps its state in memory. A real receiver does the steps of `act_on` in one database transaction.
"""

import argparse
import base64
import hmac
import json
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

TOLERANCE: Final = 300
"""Maximum difference in seconds between a webhook's timestamp and our clock."""


class Receiver:
    """Handles webhooks. Header names are in lower case."""

    body_limit = 1024 * 1024

    def __init__(self, secret: str) -> None:
        self.key = base64.b64decode(secret.removeprefix("whsec_"))
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._payouts: dict[str, dict[str, Any]] = {}

    def handle(self, method: str, headers: Mapping[str, str], body: bytes) -> int:
        """Process a request to the webhook's URL. Return the HTTP status of the answer."""
        if method != "POST":
            return 405
        if len(body) > self.body_limit:
            return 413
        if not self.is_valid(headers, body):
            return 401
        # Only now is it safe to look into the body. Unknown types and fields are ignored, not refused.
        event = json.loads(body)
        if event["type"].startswith("payout."):
            self.act_on(event)
        return 200

    def is_valid(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether a webhook is signed with our secret, and recent. `body` is the raw body."""
        message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        return bool(message_id) and self.is_recent(stamp) and self.has_signature(headers, body)

    def is_recent(self, stamp: str) -> bool:
        """Return whether a timestamp is a Unix time of the last five minutes, or of the next."""
        return stamp.isascii() and stamp.isdigit() and len(stamp) <= 12 and abs(time.time() - int(stamp)) <= TOLERANCE

    def has_signature(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether one of the signatures is ours. During a rotation there are several."""
        expected = self.expected(headers, body)
        given = headers.get("webhook-signature", "").encode("utf-8", "replace").split()
        return any(hmac.compare_digest(expected, one) for one in given)

    def expected(self, headers: Mapping[str, str], body: bytes) -> bytes:
        """Return the right signature."""
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        return b"v1," + base64.b64encode(hmac.digest(self.key, content, "sha256"))

    def act_on(self, event: dict[str, Any]) -> None:
        """Act on a payout's event: once, even if it arrives again, and not if a newer one has arrived before it."""
        data = event["data"]
        with self._lock:
            if self.is_duplicate(event):
                return
            payout = self._payouts.setdefault(data["id"], {"status": None, "version": 0, "applied": 0})
            if not self.is_outdated(data, payout):
                payout.update(status=data["status"], version=data["version"], applied=payout["applied"] + 1)

    def is_duplicate(self, event: dict[str, Any]) -> bool:
        """Return whether the event has arrived before, and remember it. The event's id is its webhook-id."""
        if event["id"] in self._seen:
            return True
        self._seen.add(event["id"])
        return False

    def is_outdated(self, data: dict[str, Any], payout: dict[str, Any]) -> bool:
        """Return whether we have already seen a later change of the payout."""
        return bool(data["version"] < payout["version"])

    def probe(self, payout_id: str) -> dict[str, Any]:
        """Return our state of a payout, and how many events we acted on. `psp certify` reads it."""
        with self._lock:
            payout = self._payouts.get(payout_id, {"status": None, "applied": 0})
            return {"status": payout["status"], "applied": payout["applied"]}


class Server(ThreadingHTTPServer):
    """Serves a receiver on loopback: webhooks at /webhooks, the probe at /probe."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, receiver: Receiver, port: int = 0) -> None:
        self.receiver = receiver
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """The URL of the webhooks."""
        return f"http://127.0.0.1:{self.server_port}/webhooks"

    @property
    def probe_url(self) -> str:
        """The URL of the probe."""
        return f"http://127.0.0.1:{self.server_port}/probe"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/probe":
            payout_id = parse_qs(url.query).get("payout_id", [""])[0]
            self._answer(200, json.dumps(self.server.receiver.probe(payout_id)).encode())
        else:
            self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def _handle(self, method: str) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        try:
            status = self.server.receiver.handle(method, headers, body)
        except Exception as error:
            print(f"failed: {error!r}", file=sys.stderr)
            status = 500
        self._answer(status)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def serve(receiver: Receiver, port: int) -> None:
    """Serve until Ctrl-C."""
    with Server(receiver, port) as server:
        print(f"webhooks: {server.url}   probe: {server.probe_url}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def main() -> None:
    """Serve the correct receiver."""
    parser = argparse.ArgumentParser(description="A correct receiver of webhooks.")
    parser.add_argument("--secret", required=True, help="the endpoint's secret, whsec_...")
    parser.add_argument("--port", type=int, default=9000)
    given = parser.parse_args()
    serve(Receiver(given.secret), given.port)


if __name__ == "__main__":
    main()
