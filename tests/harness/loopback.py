"""HTTP servers on loopback for tests."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

_POLL_SECONDS: Final = 0.01
"""How often a server checks whether it must end. The default of half a second would add up over hundreds of tests."""


class QuietHandler(BaseHTTPRequestHandler):
    """A request handler that prints nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


class LoopbackServer(ThreadingHTTPServer):
    """Serves on a free port while its `with` block runs."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[QuietHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a client that does not wait for an answer closes the connection."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(_POLL_SECONDS,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
