"""A running `psp listen --json`, and a gate in front of a server that can be closed."""

import contextlib
import json
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit


class Listener:
    """A `psp listen` process. Starting it waits until the endpoint exists."""

    def __init__(self, api_url: str, api_key: str, forward_to: str | None, *arguments: str) -> None:
        forward = () if forward_to is None else ("--forward-to", forward_to)
        command = [sys.executable, "-u", "-m", "sandbox.cli.main", "listen", *forward, "--json", *arguments]
        self.process = subprocess.Popen(
            [*command, "--url", api_url, "--api-key", api_key], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.endpoint = self.next()

    def next(self) -> dict[str, Any]:
        """Return the next line of its output. Raises queue.Empty if there is none within a minute."""
        found: dict[str, Any] = json.loads(self._lines.get(timeout=60))
        return found

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it and return its exit code."""
        self.process.send_signal(number)
        self.process.send_signal(signal.SIGCONT)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()


@contextlib.contextmanager
def listening(api_url: str, api_key: str, forward_to: str | None, *arguments: str) -> Iterator[Listener]:
    """Run a listener until the end of the block."""
    listener = Listener(api_url, api_key, forward_to, *arguments)
    try:
        yield listener
    finally:
        listener.stop()


class Gate:
    """A TCP proxy on a fixed port. While it is closed, it refuses connections, like a stopped server."""

    def __init__(self, server_url: str) -> None:
        target = urlsplit(server_url)
        self._target = (target.hostname, target.port)
        self._sockets: set[socket.socket] = set()
        self._server: socket.socket | None = None
        self._port = 0
        self.open()

    @property
    def url(self) -> str:
        """The root URL of the server behind the gate."""
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Accept connections."""
        self._server = socket.create_server(("127.0.0.1", self._port))
        self._port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def close(self) -> None:
        """Break all connections, and refuse new ones."""
        assert self._server is not None
        # `shutdown` wakes the thread that accepts; `close` alone would not.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for opened in list(self._sockets):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                upstream = socket.create_connection(self._target)
                for source, sink in ((client, upstream), (upstream, client)):
                    self._sockets.add(source)
                    threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._sockets.discard(source)
        source.close()
