"""The listening sockets that API and IPN inherit, and the probe that asks whether they answer."""

import errno
import http.client
import os
import socket
import threading
import time
from collections.abc import Callable

from sandbox.runtime.places import StartError

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (names them, binds nothing)


def listen(host: str, port: int, option: str) -> socket.socket:
    """Bind and listen; port 0 takes a free one. `option` names the command-line option in the sentence of an error.

    The supervisor holds the socket for the whole run: several API processes share it, and while one that crashed is
    started again, connections wait in its backlog instead of being refused.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise StartError(f"The host {host!r} cannot be resolved ({error}); give another one with --host.") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"Port {port} on {host} is in use by another program; give another one with {option} (0 picks a free one)."
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise StartError(f"{host} is not an address of this machine; give another one with --host.") from error
        raise StartError(f"Port {port} on {host} cannot be used ({os.strerror(error.errno or 0)}); see {option}.") from error
    return listener


def http_url(host: str, port: int) -> str:
    """The URL a client on this machine uses (an address that means "all" stands for loopback)."""
    host = _WILDCARDS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Probe:
    """Asks GET `path` in a thread until the answer is 200, then calls `wake`. `answered` tells.

    In a thread, because the socket listens before the process behind it accepts: a connection then waits for it, which
    is also the quickest way to learn that it is ready.
    """

    def __init__(self, host: str, port: int, path: str, wake: Callable[[], None]) -> None:
        self.answered = False
        self.last = "no answer"
        self._stopped = threading.Event()
        self._target = (_WILDCARDS.get(host, host), port, path)
        self._wake = wake
        threading.Thread(target=self._ask, name=f"probe {path}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _ask(self) -> None:
        host, port, path = self._target
        while not self._stopped.is_set():
            connection = http.client.HTTPConnection(host, port, timeout=5)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
                self.last = f"status {response.status}"
                if response.status == 200:
                    self.answered = True
                    self._wake()
                    return
            except (OSError, http.client.HTTPException) as error:
                self.last = str(error) or type(error).__name__
            finally:
                connection.close()
            time.sleep(0.05)
