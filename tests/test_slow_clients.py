"""A real server closes slow and excessive connections, and serves others meanwhile."""

import contextlib
import resource
import socket
import threading
from typing import Any

import httpx
import pytest

from sandbox.server.protocol import Limits
from sandbox.server.serve import fit_to_open_files
from tests.harness.bounded_server import serving
from tests.harness.raw_http import connect, raw_request, read_response
from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_connections import GET, post


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "connections"),
    [
        (1024, 1_000_000, (4352, 1_000_000), 4096), (1024, 2048, (2048, 2048), 1792), (1024, 1024, (1024, 1024), 768),
        (8192, 8192, None, 4096), (1024, resource.RLIM_INFINITY, (4352, resource.RLIM_INFINITY), 4096),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 4096),
    ],
)  # fmt: skip
def test_the_connection_limit_leaves_open_files_for_the_stores(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: tuple[int, int] | None, connections: int
) -> None:
    set_limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_limits.append(limits))
    assert fit_to_open_files(Limits()).connections == connections
    assert set_limits == ([] if raised is None else [raised])


def test_a_server_closes_slow_connections_and_serves_others_meanwhile() -> None:
    # A head has 3 s, so that the test passes even if the machine stalls between a connection and its first byte.
    limits = Limits(head_seconds=3, body_seconds=0.2, linger_seconds=0.2, connections=50)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while scope["method"] == "POST" and (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def connect_and_send(url: str, data: bytes) -> socket.socket:
        connection = connect(url)
        connection.sendall(data)
        return connection

    with serving(app, limits) as url, contextlib.ExitStack() as open_connections:
        silent = [open_connections.enter_context(connect(url))]
        heads = [open_connections.enter_context(connect_and_send(url, b"GET / HTTP/1.1\r\nHost: ")) for _ in range(10)]
        bodies = [open_connections.enter_context(connect_and_send(url, post(100))) for _ in range(10)]
        assert raw_request(url, GET).status_code == 204
        for connection in bodies + heads:
            assert read_response(connection).status_code == 408
            assert connection.recv(100) == b""
        for connection in silent:
            assert connection.recv(100) == b""
        assert raw_request(url, GET).status_code == 204


def test_closed_connections_no_longer_count_towards_the_limit() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with serving(app, Limits(connections=3)) as url:
        held = [connect(url) for _ in range(3)]
        for connection in held:  # wait until the server has accepted all three
            connection.sendall(GET)
            assert read_response(connection).status_code == 204
        refused = raw_request(url, GET)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        for connection in held:
            connection.close()
        until(lambda: raw_request(url, GET).status_code == 204)


@pytest.mark.parametrize("app", ["api", "ipn"])
def test_a_huge_header_is_refused_and_others_are_served_meanwhile(world: World, app: str) -> None:
    url = world.stack.api_url if app == "api" else world.stack.ipn_url
    slow = [connect(url) for _ in range(300)]
    for connection in slow:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    refused: list[httpx.Response] = []

    def send_100_megabytes() -> None:
        with connect(url) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Large: ")
            try:
                for _ in range(1600):
                    connection.sendall(b"a" * 65_536)
            except (ConnectionError, TimeoutError):
                pass  # the server has sent its response and closed the connection
            refused.append(read_response(connection))

    thread = threading.Thread(target=send_100_megabytes)
    thread.start()
    with httpx.Client(base_url=url, timeout=60) as client:
        while thread.is_alive():
            assert client.get("/health").status_code == 200
        for connection in slow:
            connection.sendall(b"x\r\n\r\n")
            assert read_response(connection).status_code == 200
            connection.close()
    thread.join()
    assert (refused[0].status_code, refused[0].json()["code"]) == (431, "HEADERS_TOO_LARGE")
    assert refused[0].headers["content-type"] == "application/problem+json"


def test_an_unfinished_request_does_not_delay_a_shutdown() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("no request was complete")

    with serving(app, Limits()) as url:
        held = connect(url)
        held.sendall(b"GET / HT")
    with held, contextlib.suppress(ConnectionResetError):
        assert held.recv(100) == b""
