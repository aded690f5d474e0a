"""The plugin's own webhook endpoint: one server per pytest process, one path per test."""

import contextlib
import http.server
import secrets
import threading
from dataclasses import dataclass
from typing import Any

from psp_sandbox.testing.webhooks import Inbox


@dataclass(slots=True)
class Mailbox:
    """A path of the receiver: where to record what arrives, and how to check it."""

    inbox: Inbox
    secret: str | None = None


class Receiver(http.server.ThreadingHTTPServer):
    """Listens on loopback. It answers 204 to a valid webhook, 401 to an invalid one, and 410 if the test is over."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        self._mailboxes: dict[str, Mailbox] = {}
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), name="psp-receiver", daemon=True).start()

    def open(self, inbox: Inbox) -> tuple[str, Mailbox]:
        """Return a new URL and its mailbox. The secret can be set afterwards, when the endpoint exists."""
        path = f"/{secrets.token_hex(8)}"
        self._mailboxes[path] = Mailbox(inbox)
        return f"http://127.0.0.1:{self.server_port}{path}", self._mailboxes[path]

    def close_path(self, url: str) -> None:
        """Forget a URL."""
        self._mailboxes.pop(url[url.rindex("/") :], None)

    def mailbox(self, path: str) -> Mailbox | None:
        """Return the mailbox of a path, or None."""
        return self._mailboxes.get(path)

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing if the sender breaks off."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        mailbox = self.server.mailbox(self.path)
        status = 410
        if mailbox is not None:
            received = mailbox.inbox.add(mailbox.secret, self.headers.items(), body)
            status = received.status = 204 if received.problem is None else 401
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
