"""A webhook endpoint for tests: an HTTP server on loopback that records every delivery."""

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from standardwebhooks import Webhook

from tests.harness.loopback import LoopbackServer, QuietHandler
from tests.harness.waiting import until


@dataclass(frozen=True)
class Received:
    """A delivery attempt as received. Header names are in lower case."""

    headers: Mapping[str, str]
    body: bytes
    path: str = "/webhooks"
    """Includes the query."""

    @property
    def event(self) -> dict[str, Any]:
        """The parsed body."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    def verify(self, secret: str) -> dict[str, Any]:
        """Verify the signature with the public library and return the parsed body. Raises if the signature is invalid."""
        verified: dict[str, Any] = Webhook(secret).verify(self.body, dict(self.headers))
        return verified


class Receiver:
    """Responds with 200, unless the test sets `respond`: a function from the delivery to (status, headers, body)."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.respond: Callable[[Received], tuple[int, dict[str, str], bytes]] = lambda _: (200, {}, b"")
        receiver = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received = Received({name.lower(): value for name, value in self.headers.items()}, body, self.path)
                status, headers, response = receiver.respond(received)
                receiver.received.append(received)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(response)))
                self.end_headers()
                self.wfile.write(response)

        self._server = LoopbackServer(Handler)

    @property
    def url(self) -> str:
        """The URL of the endpoint."""
        return f"{self._server.url}/webhooks"

    def wrap(self, context: ssl.SSLContext) -> None:
        """Accept TLS connections only, with the certificate of this server context, from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def events(self, payout_id: str | None = None) -> list[dict[str, Any]]:
        """Return the events received so far, for one payout or for all. An event that arrived twice is returned once."""
        found = {received.headers["webhook-id"]: received.event for received in list(self.received)}
        return [event for event in found.values() if payout_id is None or event["data"]["id"] == payout_id]

    def wait_for(self, *types: str, payout_id: str | None = None, seconds: float = 30) -> list[dict[str, Any]]:
        """Wait until events of all these types have arrived, and return all events received."""
        until(lambda: set(types) <= {event["type"] for event in self.events(payout_id)}, seconds)
        return self.events(payout_id)

    def __enter__(self) -> "Receiver":
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()
