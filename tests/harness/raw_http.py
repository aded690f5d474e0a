"""Send raw bytes that no client library would send, and read the response."""

import http.client
import socket
from urllib.parse import urlsplit

import httpx


def connect(url: str) -> socket.socket:
    """Connect to a server. Each operation times out after 60 s."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def read_response(connection: socket.socket, method: str = "GET") -> httpx.Response:
    """Read the next response from a connection."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return httpx.Response(response.status, headers=response.getheaders(), content=response.read())


def raw_request(url: str, *parts: bytes) -> httpx.Response:
    """Send bytes on a new connection, each part as its own packet, and read one response."""
    with connect(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
        return read_response(connection)
