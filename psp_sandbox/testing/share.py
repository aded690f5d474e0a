"""One sandbox for all pytest-xdist workers.

The main pytest process starts it when the first worker asks, so it outlives every worker and ends with the main process.
Workers ask through a socket in a folder that only this user can open.
"""

import contextlib
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from psp_sandbox.testing.process import Address, StartError

_MAX_ANSWER_BYTES: Final = 65536


class Share:
    """The server in the main process. It answers each worker with the sandbox's address, which `start` returns."""

    def __init__(self, start: Callable[[], Address]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._answer: bytes | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="psp-"))
        self.path = str(self._folder / "share")
        self._server_socket = socket.socket(socket.AF_UNIX)
        self._server_socket.bind(self.path)
        self._server_socket.listen(64)
        threading.Thread(target=self._serve, name="psp-share", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        with contextlib.suppress(OSError):
            self._server_socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in `accept`
        self._server_socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server_socket.accept()
            except OSError:  # the socket was closed
                return
            # One thread per worker: a worker that has gone away must not keep the others waiting.
            threading.Thread(target=self._reply, args=(connection,), daemon=True).start()

    def _reply(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(self._answer_once())

    def _answer_once(self) -> bytes:
        with self._lock:
            if self._answer is None:
                try:
                    address = self._start()
                    found = asdict(address)
                except Exception as error:  # each worker reports it in its first test
                    found = {"error": str(error)}
                self._answer = json.dumps(found).encode()
            return self._answer


def ask(path: str) -> Address:
    """Return the address of the sandbox that the main process has started, or starts now. Raises StartError."""
    parts = []
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            while part := connection.recv(_MAX_ANSWER_BYTES):
                parts.append(part)
        found = json.loads(b"".join(parts))
    except (OSError, ValueError) as error:
        raise StartError(
            f"The main pytest process does not say where the sandbox is ({error}). If the worker runs on another machine, "
            "start a sandbox there and use --psp-url."
        ) from None
    if "error" in found:
        raise StartError(found["error"])
    return Address(**found)
