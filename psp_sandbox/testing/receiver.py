"""The plugin's own webhook endpoint: one server per pytest process, one path per test. It can pass webhooks on."""

import contextlib
import http.server
import secrets
import socket
import threading
from dataclasses import dataclass
from typing import Any, Final

from psp_sandbox.testing.webhooks import Inbox, Received

LOOPBACK: Final = "127.0.0.1"
_FORWARD_SECONDS: Final = 15.0
"""How long an application may take to answer: as long as the sandbox waits for it."""
_HOP_HEADERS: Final = ("host", "connection", "content-length", "transfer-encoding")
"""Headers that belong to one connection, so they are not passed on."""


@dataclass(slots=True)
class Mailbox:
    """A path of the receiver: where to record what arrives, and how to check it."""

    inbox: Inbox
    secret: str | None = None
    forward_to: str | None = None
    """The URL of an application, which gets every request and whose answer is the receiver's."""

    def take(self, headers: list[tuple[str, str]], body: bytes) -> Received:
        """Record a request, pass it on, and return it with its answer: without an application 204, or 401 if it is invalid."""
        received = self.inbox.add(self.secret, headers, body)
        if self.forward_to is None:
            received.status = 204 if received.problem is None else 401
        else:
            status, received.answer = _forward(self.forward_to, headers, body)
            received.status = self.inbox.answered(received, status)
        return received


def _forward(url: str, headers: list[tuple[str, str]], body: bytes) -> tuple[int, bytes]:
    """Send a request to an application, and return its status and body; 502 if it does not answer."""
    import httpx  # imported here, so that projects that do not forward webhooks need not wait for it

    verify = url.startswith("https:")  # plain HTTP needs no certificates
    passed = [(name, value) for name, value in headers if name.lower() not in _HOP_HEADERS]
    try:
        response = httpx.post(url, headers=passed, content=body, timeout=_FORWARD_SECONDS, trust_env=False, verify=verify)
    except httpx.HTTPError as error:
        return 502, f"the application at {url} did not answer: {error or type(error).__name__}".encode()
    return response.status_code, response.content


def listening_address(host: str) -> str:
    """Return the address to listen on so that a sandbox elsewhere reaches this process by the name `host`.

    That is `host` itself if this machine has the address. Else it is loopback, where names such as host.docker.internal lead.
    """
    with socket.socket() as trial:
        try:
            trial.bind((host, 0))
        except OSError:
            return LOOPBACK
    return host


class Receiver(http.server.ThreadingHTTPServer):
    """Listens on loopback, or where a sandbox elsewhere reaches it by the name `host`.

    It answers 410 if the test is over, and otherwise as the test's mailbox says.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: str = LOOPBACK) -> None:
        self._mailboxes: dict[str, Mailbox] = {}
        self._host = host
        super().__init__((listening_address(host), 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), name="psp-receiver", daemon=True).start()

    def open(self, inbox: Inbox) -> tuple[str, Mailbox]:
        """Return a new URL and its mailbox. The secret can be set afterwards, when the endpoint exists."""
        path = f"/{secrets.token_hex(8)}"
        self._mailboxes[path] = Mailbox(inbox)
        return f"http://{self._host}:{self.server_port}{path}", self._mailboxes[path]

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
        """Print nothing if the sender closes the connection early."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        mailbox = self.server.mailbox(self.path)
        status, answer = 410, b""
        if mailbox is not None:
            received = mailbox.take(self.headers.items(), body)
            status, answer = received.status or 500, received.answer
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
