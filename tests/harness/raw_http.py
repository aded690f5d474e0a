"""Send raw bytes that no client library would send, and read the response."""

import http.client
import socket
from urllib.parse import urlsplit

import httpx


def connect(url: str) -> socket.socket:
    """Connect to a server, with a timeout of 60 s for each operation."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def read_response(connection: socket.socket, method: str = "GET") -> httpx.Response:
    """Read the next response from a connection."""
    answer = http.client.HTTPResponse(connection, method=method)
    answer.begin()
    return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def raw_request(url: str, *parts: bytes) -> httpx.Response:
    """Send bytes on a new connection, each part as its own packet, and read one response."""
    with connect(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
        return read_response(connection)
