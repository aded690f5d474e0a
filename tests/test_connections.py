"""What a client may ask of a connection: so much of a head, so long for each part, so many connections. The rest goes on."""

import asyncio
import contextlib
import json
import resource
import socket
import threading
from typing import Any

import httpx
import pytest
from uvicorn.server import ServerState

from sandbox.server.protocol import Limits
from sandbox.server.serve import fit_to_open_files
from tests.harness.bounded_server import PUBLIC_URL, Connection, serving
from tests.harness.raw_http import connect, raw_request, read_response
from tests.harness.waiting import until
from tests.harness.world import World

LIMITS = Limits(
    head_bytes=1000, head_seconds=30, body_seconds=30, body_rate=100, write_seconds=60, linger_seconds=3, connections=10
)  # fmt: skip
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Answers with the length of the body that it was sent, once `may_answer` is set."""

    def __init__(self, may_read: bool = True, may_answer: bool = True) -> None:
        self.may_read = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.disconnects = 0
        self.scopes: list[Any] = []
        if may_read:
            self.may_read.set()
        if may_answer:
            self.may_answer.set()

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
        await self.may_answer.wait()
        body = str(size).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def post(length: int, *headers: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "Host: x", f"Content-Length: {length}", *headers, "", ""]).encode()


def code_of(got: bytes) -> str:
    """The code of the problem that was answered."""
    head, _, body = got.partition(b"\r\n\r\n")
    problem: dict[str, Any] = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % problem["status"])
    assert b"\r\ncontent-type: application/problem+json\r\n" in head
    assert b"\r\nconnection: close\r\n" in head
    assert b"\r\nx-request-id: " + problem["request_id"].encode() in head
    assert problem["type"] == f"{PUBLIC_URL}/problems/{problem['code']}"
    return str(problem["code"])


async def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    connection = Connection(App(), LIMITS)
    await connection.wait(29)
    assert connection.is_open
    await connection.wait(1)
    assert not connection.is_open
    assert connection.received == b""


@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\r\nHost: x\r\nX-", b"GET /", b"POST / HTTP/1.1\r\n"])
async def test_a_head_that_does_not_end_is_timed_out_however_it_drips(begun: bytes) -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(begun)
    for _ in range(29):
        await connection.wait(1)
        await connection.send(b"a")
        assert connection.received == b""
    await connection.wait(1)
    assert code_of(connection.received) == "REQUEST_TIMEOUT"
    await connection.wait(3)
    assert not connection.is_open


@pytest.mark.parametrize("drip", [b"\r\n", b"X"])
async def test_what_is_no_head_at_all_is_timed_out_too(drip: bytes) -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(GET)
    answered = connection.received
    for _ in range(30):
        await connection.send(drip)
        await connection.wait(1)
    assert not connection.is_open
    assert connection.received == answered


async def test_a_second_head_has_its_own_time() -> None:
    connection = Connection(App(), LIMITS)
    await connection.wait(29)
    await connection.send(GET)
    await connection.wait(60)
    await connection.send(GET[:10])
    await connection.wait(29)
    await connection.send(GET[10:])
    assert connection.received.count(b"HTTP/1.1 200 OK") == 2
    assert connection.is_open


async def test_a_body_that_stops_is_timed_out_and_the_application_is_told() -> None:
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


async def test_a_slow_body_that_keeps_its_rate_takes_as_long_as_it_needs() -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(post(100_000))
    for _ in range(100):
        await connection.wait(10)
        await connection.send(b"x" * 1000)
    assert connection.received.endswith(b"100000")


async def test_a_body_slower_than_its_rate_is_timed_out() -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(post(100_000))
    for _ in range(40):
        await connection.wait(1)
        await connection.send(b"x")
    assert code_of(connection.received) == "REQUEST_TIMEOUT"


async def test_a_burst_does_not_buy_a_long_silence() -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(post(100_000))
    await connection.send(b"x" * 60_000)  # at the lowest rate that is ten minutes' worth
    await connection.wait(30)
    assert code_of(connection.received) == "REQUEST_TIMEOUT"


async def test_a_body_that_we_do_not_read_is_nobody_elses_fault() -> None:
    app = App(may_read=False)
    connection = Connection(app, LIMITS)
    await connection.send(post(200_000) + b"x" * 70_000)
    await connection.wait(600)
    assert connection.is_open
    app.may_read.set()
    await connection.send(b"x" * 130_000)
    assert connection.received.endswith(b"200000")


async def test_a_client_that_waits_for_a_100_is_waited_for() -> None:
    app = App(may_read=False)
    connection = Connection(app, LIMITS)
    await connection.send(post(3, "Expect: 100-continue"))
    await connection.wait(600)
    app.may_read.set()
    await connection.settle()
    assert connection.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    await connection.send(b"abc")
    assert connection.received.endswith(b"3")


async def test_an_answer_may_take_its_time() -> None:
    app = App(may_answer=False)
    connection = Connection(app, LIMITS)
    await connection.send(post(3) + b"abc")
    await connection.wait(3600)
    assert (connection.is_open, connection.received) == (True, b"")
    app.may_answer.set()
    await connection.settle()
    assert connection.received.endswith(b"3")


async def test_a_request_begun_behind_one_that_is_served_does_not_end_it() -> None:
    app = App(may_answer=False)
    connection = Connection(app, LIMITS)
    await connection.send(GET + GET[:10])
    await connection.wait(3600)
    app.may_answer.set()
    await connection.settle()
    assert b"HTTP/1.1 200 OK" in connection.received
    await connection.wait(30)
    assert b"HTTP/1.1 408 " in connection.received


async def test_the_rest_of_a_body_that_was_answered_already_is_not_waited_for() -> None:
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


async def test_a_client_that_reads_nothing_is_cut_off() -> None:
    connection = Connection(App(may_answer=False), LIMITS)
    await connection.send(GET)
    for left in (50_000, 40_000, 30_000):
        connection.set_unsent(left)
        await connection.wait(59)
        assert not connection.is_aborted
    await connection.wait(60)
    assert connection.is_aborted


SHAPES = {
    "one header in one packet": [b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\nA: " + b"a" * 2000 + b"\r\n\r\n"],
    "one header that does not end": [b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\nA: ", *[b"a" * 100] * 12],
    "many headers": [b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\n", *[b"a: b\r\n"] * 200],
    "a long path": [b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\nX-Request-Id: mine\r\n\r\n"],
    "a long path that does not end": [b"GET /", *[b"a" * 100] * 12],
    "blank lines": [b"\r\n" * 50] * 12,
    "a chunk's extension": [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=", *[b"a" * 100] * 12],
    "a trailer": [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: ", *[b"a" * 100] * 12],
    "a head after another's": [GET + b"GET / HTTP/1.1\r\nA: " + b"a" * 2000 + b"\r\n\r\n"],
}


@pytest.mark.parametrize("name", SHAPES)
async def test_a_head_that_is_too_long_is_refused_in_any_shape(name: str) -> None:
    connection = Connection(App(), LIMITS)
    for part in SHAPES[name]:
        await connection.send(part)
    if name == "a head after another's":
        # The first is answered, and then the connection is closed.
        assert connection.received.count(b"HTTP/1.1 200 OK") == 1
        assert not connection.is_open
        return
    assert code_of(connection.received) == "HEADERS_TOO_LARGE"
    if name in ("one header in one packet", "one header that does not end", "many headers"):
        assert b"\r\nx-request-id: mine\r\n" in connection.received
    said = connection.received
    await connection.send(b"a" * 100_000)
    await connection.wait(2)
    assert connection.is_open  # so that the client can read what it was told
    await connection.wait(1)
    assert not connection.is_open
    assert connection.received == said


async def test_a_head_within_the_limit_passes_and_so_does_any_body() -> None:
    connection = Connection(App(), LIMITS)
    await connection.send(post(50_000, "A: " + "a" * 800) + b"x" * 50_000)
    assert connection.received.endswith(b"50000")
    chunks = b"".join(b"1\r\nx\r\n" for _ in range(5000))
    await connection.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert connection.received.endswith(b"5000")


async def test_trailers_are_no_headers() -> None:
    app = App()
    connection = Connection(app, LIMITS)
    await connection.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-API-KEY: other\r\n\r\n")
    assert connection.received.startswith(b"HTTP/1.1 200 ")
    assert [name for name, _ in app.scopes[0]["headers"]] == [b"transfer-encoding"]


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POSTX", "FOO", "PROPFIND"])
async def test_a_method_may_come_byte_by_byte(method: str) -> None:
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
    "asked",
    [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n",
    ],
)
async def test_a_request_that_asks_for_another_protocol_keeps_its_body(asked: str, parts: int) -> None:
    app = App()
    connection = Connection(app, LIMITS)
    head = f"POST /path?a=b HTTP/1.1\r\nHost: x\r\n{asked}X-Request-Id: mine\r\nContent-Length: 5\r\n\r\n".encode()
    for part in {1: [head + b"hello" + GET], 2: [head, b"hello" + GET], 3: [head[:40], head[40:] + b"he", b"llo" + GET]}[parts]:
        await connection.send(part)
    assert [response.rpartition(b"\r\n")[2] for response in connection.received.split(b"HTTP/1.1 200 OK")[1:]] == [b"5", b"0"]
    assert connection.is_open
    request = app.scopes[0]
    assert (request["method"], request["path"], request["query_string"]) == ("POST", "/path", b"a=b")
    headers = dict(request["headers"])
    assert headers[b"x-request-id"] == b"mine"
    assert not {b"upgrade", b"http2-settings"} & headers.keys()


async def test_one_connection_too_many_is_told_so_and_closed() -> None:
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


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "connections"),
    [
        (1024, 1_000_000, (4352, 1_000_000), 4096), (1024, 2048, (2048, 2048), 1792), (1024, 1024, (1024, 1024), 768),
        (8192, 8192, None, 4096), (1024, resource.RLIM_INFINITY, (4352, resource.RLIM_INFINITY), 4096),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 4096),
    ],
)  # fmt: skip
def test_connections_leave_files_for_the_stores(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: tuple[int, int] | None, connections: int
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert fit_to_open_files(Limits()).connections == connections
    assert asked == ([] if raised is None else [raised])


def test_a_server_closes_what_is_slow_and_serves_the_others_meanwhile() -> None:
    # Time for a whole head, so that a machine which stands still between a connection and its first byte fails nothing.
    limits = Limits(head_seconds=3, body_seconds=0.2, linger_seconds=0.2, connections=50)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while scope["method"] == "POST" and (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def held(url: str, begun: bytes) -> socket.socket:
        connection = connect(url)
        connection.sendall(begun)
        return connection

    with serving(app, limits) as url, contextlib.ExitStack() as open_ones:
        silent = [open_ones.enter_context(connect(url))]
        heads = [open_ones.enter_context(held(url, b"GET / HTTP/1.1\r\nHost: ")) for _ in range(10)]
        bodies = [open_ones.enter_context(held(url, post(100))) for _ in range(10)]
        assert raw_request(url, GET).status_code == 204
        for connection in bodies + heads:
            assert read_response(connection).status_code == 408
            assert connection.recv(100) == b""
        for connection in silent:
            assert connection.recv(100) == b""
        assert raw_request(url, GET).status_code == 204


def test_a_server_has_room_again_when_connections_end() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with serving(app, Limits(connections=3)) as url:
        held = [connect(url) for _ in range(3)]
        for connection in held:  # all three are there
            connection.sendall(GET)
            assert read_response(connection).status_code == 204
        refused = raw_request(url, GET)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        for connection in held:
            connection.close()
        until(lambda: raw_request(url, GET).status_code == 204)


@pytest.mark.parametrize("app", ["api", "ipn"])
def test_an_endless_header_is_refused_and_others_are_served_meanwhile(world: World, app: str) -> None:
    url = world.stack.api_url if app == "api" else world.stack.ipn_url
    slow = [connect(url) for _ in range(300)]
    for connection in slow:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    refused: list[httpx.Response] = []

    def send_100_megabytes() -> None:
        with connect(url) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Large: ")
            try:
                for _ in range(1600):
                    connection.sendall(b"a" * 65_536)
            except (ConnectionError, TimeoutError):
                pass  # closed by then; the response was sent before
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


async def test_a_stream_outlives_the_limits_of_requests() -> None:
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


def test_a_half_open_connection_does_not_hold_up_a_stop() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nothing was asked")

    with serving(app, Limits()) as url:
        held = connect(url)
        held.sendall(b"GET / HT")
    with held, contextlib.suppress(ConnectionResetError):
        assert held.recv(100) == b""
