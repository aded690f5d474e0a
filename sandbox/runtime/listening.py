"""The listening sockets that API and IPN inherit, and the probe that asks whether they answer."""

import errno
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from sandbox.runtime.run_directories import StartError

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (names them, binds nothing)


BY_MAKE = "PSP_UP_BY_MAKE"
"""Set where make runs `psp up`: advice then says what to give to make."""


def listen_all(host: str, ports: Mapping[str, int]) -> list[socket.socket]:
    """Bind and listen, a socket for each port; port 0 takes a free one. The keys are the command-line options' names.

    The supervisor holds the sockets for the whole run: several API processes share one, and while one that crashed is
    started again, connections wait in its backlog instead of being refused. Raises StartError, which names all ports
    that are in use, so that one correction will do.
    """
    listeners: list[socket.socket] = []
    in_use: list[str] = []
    try:
        for option, port in ports.items():
            found = _listen(host, port, option)
            if found is None:
                in_use.append(option)
            else:
                listeners.append(found)
        if in_use:
            taken = " and ".join(f"{ports[option]}" for option in in_use)
            subject = f"Port {taken} on {host} is" if len(in_use) == 1 else f"Ports {taken} on {host} are"
            raise StartError(f"{subject} already in use; {_advice([f'{option} 0' for option in in_use])}.")
    except StartError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _advice(options: Sequence[str]) -> str:
    given = " ".join(options)
    if os.environ.get(BY_MAKE):
        return f"take a free one with: make up ARGS='{given}'"
    return f"give another one with {given.replace(' 0', ' PORT')}, or take a free one with {given}"


def _listen(host: str, port: int, option: str) -> socket.socket | None:
    """One socket, or None if the port is in use."""
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
            return None
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
                self.last = f"status {response.status}{_detail(response.read())}"
                if response.status == 200:
                    self.answered = True
                    self._wake()
                    return
            except (OSError, http.client.HTTPException) as error:
                self.last = str(error) or type(error).__name__
            finally:
                connection.close()
            time.sleep(0.05)


def _detail(body: bytes) -> str:
    """What a problem says of itself, such as the part that is missing."""
    try:
        return f", {json.loads(body)['detail']}"
    except (ValueError, KeyError, TypeError):
        return ""
