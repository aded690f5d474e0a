"""Limits on connections: the size of a request's head, the time for each part, and the number of connections.

A client that is slow or exceeds a limit is cut off, and other clients are served meanwhile.
"""

import asyncio
import json
from typing import Any

import pytest
from uvicorn.server import ServerState

from sandbox.server.protocol import Limits
from tests.harness.bounded_server import PUBLIC_URL, Connection

LIMITS = Limits(
    head_bytes=1000, head_seconds=30, body_seconds=30, body_rate=100, write_seconds=60, linger_seconds=3, connections=10
)  # fmt: skip
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Responds with the length of the request's body. Waits for `may_read` before reading and for `may_respond` after it."""

    def __init__(self, may_read: bool = True, may_respond: bool = True) -> None:
        self.may_read = asyncio.Event()
        self.may_respond = asyncio.Event()
        self.disconnects = 0
        self.scopes: list[Any] = []
        if may_read:
            self.may_read.set()
        if may_respond:
            self.may_respond.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await self.may_read.wait()
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            size, more = size + len(message["body"]), message["more_body"]
        await self.may_respond.wait()
        body = str(size).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def post(length: int, *headers: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "Host: x", f"Content-Length: {length}", *headers, "", ""]).encode()


def code_of(received: bytes) -> str:
    """Return the code of the received response, which must be a complete problem that closes the connection."""
    head, _, body = received.partition(b"\r\n\r\n")
    problem: dict[str, Any] = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % problem["status"])
    assert b"\r\ncontent-type: application/problem+json\r\n" in head
    assert b"\r\nconnection: close\r\n" in head
    assert b"\r\nx-request-id: " + problem["request_id"].encode() in head
    assert problem["type"] == f"{PUBLIC_URL}/problems/{problem['code']}"
    return str(problem["code"])


async def test_a_connection_that_sends_nothing_is_closed_without_a_response() -> None:
    connection = Connection(App(), LIMITS)
    await connection.wait(29)
    assert connection.is_open
    await connection.wait(1)
    assert not connection.is_open
    assert connection.received == b""


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: x\r\nX-", b"GET /", b"POST / HTTP/1.1\r\n"])
async def test_an_unfinished_head_times_out_even_if_bytes_keep_arriving(sent: bytes) -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(sent)
    for _ in range(29):
        await connection.wait(1)
        await connection.send(b"a")
        assert connection.received == b""
    await connection.wait(1)
    assert code_of(connection.received) == "REQUEST_TIMEOUT"
    await connection.wait(3)
    assert not connection.is_open


@pytest.mark.parametrize("drip", [b"\r\n", b"X"])
async def test_bytes_that_never_form_a_head_time_out(drip: bytes) -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(GET)
    before = connection.received
    for _ in range(30):
        await connection.send(drip)
        await connection.wait(1)
    assert not connection.is_open
    assert connection.received == before


async def test_each_head_has_its_own_time_limit() -> None:
    connection = Connection(App(), LIMITS)
    await connection.wait(29)
    await connection.send(GET)
    await connection.wait(60)
    await connection.send(GET[:10])
    await connection.wait(29)
    await connection.send(GET[10:])
    assert connection.received.count(b"HTTP/1.1 200 OK") == 2
    assert connection.is_open


async def test_a_stalled_body_times_out_and_the_application_sees_a_disconnect() -> None:
    app = App()
    connection = Connection(app, LIMITS)
    await connection.send(post(1000) + b"x" * 500)
    await connection.wait(29)
    assert connection.received == b""
    await connection.wait(1)
    assert code_of(connection.received) == "REQUEST_TIMEOUT"
    assert app.disconnects == 1
    await connection.wait(3)
    assert not connection.is_open


async def test_a_slow_body_above_the_minimum_rate_has_no_time_limit() -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(post(100_000))
    for _ in range(100):
        await connection.wait(10)
        await connection.send(b"x" * 1000)
    assert connection.received.endswith(b"100000")


async def test_a_body_below_the_minimum_rate_times_out() -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(post(100_000))
    for _ in range(40):
        await connection.wait(1)
        await connection.send(b"x")
    assert code_of(connection.received) == "REQUEST_TIMEOUT"


async def test_a_burst_does_not_allow_a_long_silence_afterwards() -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(post(100_000))
    await connection.send(b"x" * 60_000)  # ten minutes' worth at the minimum rate
    await connection.wait(30)
    assert code_of(connection.received) == "REQUEST_TIMEOUT"


async def test_a_body_that_the_application_does_not_read_does_not_time_out() -> None:
    app = App(may_read=False)
    connection = Connection(app, LIMITS)
    await connection.send(post(200_000) + b"x" * 70_000)
    await connection.wait(600)
    assert connection.is_open
    app.may_read.set()
    await connection.send(b"x" * 130_000)
    assert connection.received.endswith(b"200000")


async def test_a_client_that_waits_for_100_continue_does_not_time_out() -> None:
    app = App(may_read=False)
    connection = Connection(app, LIMITS)
    await connection.send(post(3, "Expect: 100-continue"))
    await connection.wait(600)
    app.may_read.set()
    await connection.settle()
    assert connection.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    await connection.send(b"abc")
    assert connection.received.endswith(b"3")


async def test_a_response_has_no_time_limit() -> None:
    app = App(may_respond=False)
    connection = Connection(app, LIMITS)
    await connection.send(post(3) + b"abc")
    await connection.wait(3600)
    assert (connection.is_open, connection.received) == (True, b"")
    app.may_respond.set()
    await connection.settle()
    assert connection.received.endswith(b"3")


async def test_an_unfinished_pipelined_request_does_not_time_out_the_one_being_served() -> None:
    app = App(may_respond=False)
    connection = Connection(app, LIMITS)
    await connection.send(GET + GET[:10])
    await connection.wait(3600)
    app.may_respond.set()
    await connection.settle()
    assert b"HTTP/1.1 200 OK" in connection.received
    await connection.wait(30)
    assert b"HTTP/1.1 408 " in connection.received


async def test_the_rest_of_a_body_is_not_awaited_after_the_response() -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    connection = Connection(refuse, LIMITS)
    await connection.send(post(1_000_000))
    for _ in range(30):
        await connection.send(b"x" * 1000)
        await connection.wait(1)
    assert connection.received.startswith(b"HTTP/1.1 401 ")
    assert connection.received.count(b"HTTP/1.1") == 1
    assert not connection.is_open


async def test_a_client_that_stops_reading_is_cut_off() -> None:
    connection = Connection(App(may_respond=False), LIMITS)
    await connection.send(GET)
    for left in (50_000, 40_000, 30_000):
        connection.set_unsent(left)
        await connection.wait(59)
        assert not connection.is_aborted
    await connection.wait(60)
    assert connection.is_aborted


LONG_HEADS = {
    "one header in one packet": [b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nA: " + b"a" * 2000 + b"\r\n\r\n"],
    "one header that does not end": [b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nA: ", *[b"a" * 100] * 12],
    "many headers": [b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n", *[b"a: b\r\n"] * 200],
    "a long path": [b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n"],
    "a long path that does not end": [b"GET /", *[b"a" * 100] * 12],
    "blank lines": [b"\r\n" * 50] * 12,
    "a chunk's extension": [b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=", *[b"a" * 100] * 12],
    "a trailer": [b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: ", *[b"a" * 100] * 12],
    "a second head in the same packet": [GET + b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 2000 + b"\r\n\r\n"],
}


@pytest.mark.parametrize("name", LONG_HEADS)
async def test_a_head_that_is_too_long_is_refused_in_every_form(name: str) -> None:
    connection = Connection(App(), LIMITS)
    for part in LONG_HEADS[name]:
        await connection.send(part)
    if name == "a second head in the same packet":
        # The first request gets a response, and then the connection is closed.
        assert connection.received.count(b"HTTP/1.1 200 OK") == 1
        assert not connection.is_open
        return
    assert code_of(connection.received) == "HEADERS_TOO_LARGE"
    if name in ("one header in one packet", "one header that does not end", "many headers"):
        assert b"\r\nx-request-id: mine\r\n" in connection.received
    response = connection.received
    await connection.send(b"a" * 100_000)
    await connection.wait(2)
    assert connection.is_open  # so that the client can read the response
    await connection.wait(1)
    assert not connection.is_open
    assert connection.received == response


async def test_a_head_within_the_limit_is_accepted_with_a_body_of_any_size() -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(post(50_000, "A: " + "a" * 800) + b"x" * 50_000)
    assert connection.received.endswith(b"50000")
    chunks = b"".join(b"1\r\nx\r\n" for _ in range(5000))
    await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert connection.received.endswith(b"5000")


async def test_trailers_are_not_passed_on_as_headers() -> None:
    app = App()
    connection = Connection(app, LIMITS)
    await connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-API-KEY: other\r\n\r\n")
    assert connection.received.startswith(b"HTTP/1.1 200 ")
    assert [name for name, _ in app.scopes[0]["headers"]] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POSTX", "FOO", "PROPFIND"])
async def test_a_method_may_arrive_byte_by_byte(method: str) -> None:
    app = App()
    connection = Connection(app, LIMITS)
    for byte in f"{method} /path HTTP/1.1\r\nHost: x\r\n\r\n".encode():
        await connection.send(bytes([byte]))
    assert (app.scopes[0]["method"], app.scopes[0]["path"]) == (method, "/path")
    for part in (method[:-1], method[-1:] + " /again HTTP/1.1\r\nHost: x\r\n\r\n"):
        await connection.send(part.encode())
    assert (app.scopes[1]["method"], app.scopes[1]["path"]) == (method, "/again")


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize(
    "upgrade",
    [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n",
    ],
)
async def test_a_request_to_upgrade_the_protocol_is_served_with_its_body(upgrade: str, parts: int) -> None:
    app = App()
    connection = Connection(app, LIMITS)
    head = f"POST /path?a=b HTTP/1.1\r\nHost: x\r\n{upgrade}X-Request-Id: mine\r\nContent-Length: 5\r\n\r\n".encode()
    for part in {1: [head + b"hello" + GET], 2: [head, b"hello" + GET], 3: [head[:40], head[40:] + b"he", b"llo" + GET]}[parts]:
        await connection.send(part)
    assert [response.rpartition(b"\r\n")[2] for response in connection.received.split(b"HTTP/1.1 200 OK")[1:]] == [b"5", b"0"]
    assert connection.is_open
    request = app.scopes[0]
    assert (request["method"], request["path"], request["query_string"]) == ("POST", "/path", b"a=b")
    headers = dict(request["headers"])
    assert headers[b"x-request-id"] == b"mine"
    assert not {b"upgrade", b"http2-settings"} & headers.keys()


async def test_a_connection_above_the_limit_gets_503_and_is_closed() -> None:
    state = ServerState()
    connections = [Connection(App(), LIMITS, state) for _ in range(LIMITS.connections)]
    assert all(connection.is_open for connection in connections)
    late = Connection(App(), LIMITS, state)
    assert code_of(late.received) == "UNAVAILABLE"
    assert b"\r\nretry-after: 1\r\n" in late.received
    assert not late.is_open
    connections[0].protocol.connection_lost(None)
    late.protocol.connection_lost(None)
    again = Connection(App(), LIMITS, state)
    await again.send(GET)
    assert again.received.startswith(b"HTTP/1.1 200 ")
    for connection in connections[1:]:
        connection.protocol.connection_lost(None)


async def test_a_streamed_response_has_no_time_limit() -> None:
    more = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await more.wait()
            more.clear()
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body"})

    connection = Connection(app, LIMITS)
    await connection.send(GET)
    for number in range(1, 4):
        await connection.wait(3600)
        more.set()
        await connection.settle()
        assert connection.received.count(b"1\r\nx\r\n") == number
    assert connection.received.endswith(b"0\r\n\r\n")
