"""The listening sockets that the API and the IPN receiver inherit, and the probe that checks whether they respond."""

import errno
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence

from sandbox.server.runtime.run_directories import StartError

_PROBE_SECONDS = 5.0
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (only names them; binds nothing)
BY_MAKE = "PSP_UP_BY_MAKE"
"""Set when make runs `psp up`. Error messages then show the make command line."""


def listen_all(host: str, ports: Mapping[str, int]) -> list[socket.socket]:
    """Open one listening socket per port; port 0 picks a free one. The keys of `ports` are command-line options.

    The supervisor keeps the sockets open during the whole run, and several API processes share one. While a crashed process
    restarts, connections wait in the backlog instead of being refused. Raises StartError, which names all ports in use.
    """
    sockets: list[socket.socket] = []
    in_use: list[str] = []
    try:
        for option, port in ports.items():
            server_socket = _listen(host, port, option)
            if server_socket is None:
                in_use.append(option)
            else:
                sockets.append(server_socket)
        if in_use:
            numbers = " and ".join(f"{ports[option]}" for option in in_use)
            subject = f"Port {numbers} on {host} is" if len(in_use) == 1 else f"Ports {numbers} on {host} are"
            raise StartError(f"{subject} already in use; {_advice([f'{option} 0' for option in in_use])}.")
    except StartError:
        for server_socket in sockets:
            server_socket.close()
        raise
    return sockets


def _advice(options: Sequence[str]) -> str:
    arguments = " ".join(options)
    if os.environ.get(BY_MAKE):
        return f"to use a free port, run: make up ARGS='{arguments}'"
    return f"choose another port with {arguments.replace(' 0', ' PORT')}, or use a free one with {arguments}"


def _listen(host: str, port: int, option: str) -> socket.socket | None:
    """Return a listening socket, or None if the port is in use. Raises StartError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise StartError(f"The host {host!r} cannot be resolved ({error}); choose another one with --host.") from error
    server_socket = socket.socket(family, kind, protocol)
    try:
        server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server_socket.bind(address)
        server_socket.listen(2048)
    except OSError as error:
        server_socket.close()
        if error.errno == errno.EADDRINUSE:
            return None
        if error.errno == errno.EADDRNOTAVAIL:
            raise StartError(f"{host} is not an address of this machine; choose another one with --host.") from error
        reason = os.strerror(error.errno or 0)
        raise StartError(f"Cannot listen on port {port} on {host} ({reason}); choose another one with {option}.") from error
    return server_socket


def http_url(host: str, port: int) -> str:
    """Return the URL for clients on this machine. A wildcard address becomes the loopback address."""
    host = _WILDCARDS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Probe:
    """Sends GET `path` until the response is 200. It never blocks: each call of `succeeded` continues the request.

    The socket listens before the process accepts connections, so the request waits in the backlog and gets its response as soon
    as the process is ready.
    """

    def __init__(self, host: str, port: int, path: str) -> None:
        self.last_result = "no response"
        self._has_succeeded = False
        self._target = (_WILDCARDS.get(host, host), port)
        self._request = f"GET {path} HTTP/1.1\r\nHost: {http_url(host, port)[7:]}\r\nConnection: close\r\n\r\n".encode()
        self._connection: socket.socket | None = None
        self._received = b""
        self._deadline = 0.0

    def succeeded(self) -> bool:
        """Send the request, or read its response. Return whether a response was 200."""
        try:
            if not self._has_succeeded:
                self._continue_request()
        except BlockingIOError:
            if time.monotonic() > self._deadline:
                self.last_result = f"no response within {_PROBE_SECONDS:.0f} seconds"
                self.close()
        except OSError as error:
            self.last_result = str(error) or type(error).__name__
            self.close()
        return self._has_succeeded

    def close(self) -> None:
        """Drop the current request."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _continue_request(self) -> None:
        if self._connection is None:
            self._deadline, self._received = time.monotonic() + _PROBE_SECONDS, b""
            self._connection = socket.create_connection(self._target, timeout=1)
            self._connection.sendall(self._request)
            self._connection.setblocking(False)
        while part := self._connection.recv(65_536):
            self._received += part
        self.close()
        head, _, body = self._received.partition(b"\r\n\r\n")
        status = head[9:12].decode("ascii", "replace")
        self.last_result = f"status {status}{_detail(body)}"
        self._has_succeeded = status == "200"


def _detail(body: bytes) -> str:
    """Return the detail of a problem response, such as the part that is not ready; empty for any other body."""
    try:
        return f", {json.loads(body)['detail']}"
    except (ValueError, KeyError, TypeError):
        return ""
