"""HTTP by the byte: what a client library would not send, and the answer as far as it comes."""

import http.client
import socket
from urllib.parse import urlsplit

import httpx


def connect(url: str) -> socket.socket:
    """A connection to a server, with a minute's patience for each step."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def read_answer(connection: socket.socket, method: str = "GET") -> httpx.Response:
    """The one answer that comes next on a connection."""
    answer = http.client.HTTPResponse(connection, method=method)
    answer.begin()
    return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def raw_request(url: str, *parts: bytes) -> httpx.Response:
    """Send bytes on a new connection, each part as a packet of its own, and read one answer."""
    with connect(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
        return read_answer(connection)
