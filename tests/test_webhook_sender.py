"""The webhook sender handles every kind of server behaviour within its limits of time and size."""

import asyncio
import gzip
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.webhooks.outbound.sender import BODY_LIMIT
from tests.harness.raw_server import OK, Peer, read_request, responding_with, send_once, sending, serving, silent

# ---- the request


async def test_the_body_is_posted_unchanged_with_its_headers_and_the_connection_is_reused() -> None:
    async with serving(responding_with(OK)) as peer, sending() as sender:
        for number in range(5):
            result = await sender.send(peer.url, b'{"n": 1}', {"webhook-id": f"evt-{number}"})
            assert (result.status, result.response_body, result.error) == (200, "{}", None)
            assert result.response_headers == {"content-type": "application/json", "content-length": "2"}
            assert 0 <= result.duration_ms < 15_000
    assert peer.connections == 1
    head, _, body = peer.requests[4].partition(b"\r\n\r\n")
    assert body == b'{"n": 1}'
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"post /hook http/1.1"
    assert {b"webhook-id: evt-4", b"content-type: application/json", b"accept-encoding: identity"} <= set(lines)
    assert sum(line.startswith(b"user-agent:") for line in lines) == 1


async def test_cookies_are_not_stored_and_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1\r\nContent-Length: 0\r\n\r\n"
    async with serving(responding_with(cookie)) as peer, sending() as sender:
        assert (await sender.send(peer.url, b"{}", {})).error is None
        assert (await sender.send(peer.url, b"{}", {})).error is None
    assert b"cookie:" not in peer.requests[1].lower()


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with serving(responding_with(OK)) as target:
        location = f"HTTP/1.1 {status} Moved\r\nLocation: {target.url}\r\nContent-Length: 0\r\n\r\n".encode()
        result = await send_once(responding_with(location))
    assert (result.status, result.error) == (status, "redirect not followed")
    assert target.connections == 0


# ---- the response and its limits


@pytest.mark.parametrize(("status", "reason"), [(204, "No Content"), (410, "Gone"), (500, "Broken"), (503, "Busy")])
async def test_a_response_with_any_status_is_not_an_error(status: int, reason: str) -> None:
    response = f"HTTP/1.1 {status} {reason}\r\nRetry-After: 7\r\n".encode()
    response += b"\r\n" if status == 204 else b"Content-Length: 4\r\n\r\ngone"
    result = await send_once(responding_with(response))
    assert (result.status, result.error) == (status, None)
    assert result.response_headers["retry-after"] == "7"


async def test_an_oversized_body_is_truncated_and_its_connection_closed() -> None:
    async def send_oversized_body(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n" + b"a" * 1_000_000)
        await peer.wait_for_disconnect(reader)

    async with serving(send_oversized_body) as peer, sending() as sender:
        result = await sender.send(peer.url, b"{}", {})
        await asyncio.wait_for(peer.disconnected.wait(), 60)
    assert (result.status, result.error) == (200, None)
    assert result.response_body == "a" * BODY_LIMIT


async def test_a_body_of_exactly_the_limit_is_stored_in_full() -> None:
    body = b"b" * BODY_LIMIT
    result = await send_once(responding_with(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + body))
    assert (result.response_body, result.error) == (body.decode(), None)


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        (b"a\0b", "a\ufffdb"),
        (b"\xff", "\ufffd"),
        ("\u0639\u0644\u06cc".encode(), "\u0639\u0644\u06cc"),
        (b"\xff" * 20_000, "\ufffd" * 6_666),  # replaced by three bytes each: the limit applies to the stored text
        (b"a" + b"\xff" * 19_999, "a" + "\ufffd" * 6_666),
    ],
)
async def test_a_body_is_converted_to_text_that_can_be_stored(raw: bytes, stored: str) -> None:
    result = await send_once(responding_with(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(raw), raw)))
    assert result.response_body == stored
    assert len(result.response_body.encode()) <= BODY_LIMIT


async def test_a_compressed_body_is_not_decompressed() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    response = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(bomb), bomb)
    result = await send_once(responding_with(response))
    assert (result.status, result.error) == (200, None)
    assert len(result.response_body) <= len(bomb)


async def test_response_headers_are_limited_joined_and_converted_to_text() -> None:
    many = b"".join(b"X-Header-%d: %b\r\n" % (number, b"v" * 2000) for number in range(60))
    head = b"HTTP/1.1 200 OK\r\nX-Odd: \xff\xe9\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: 0\r\n"
    result = await send_once(responding_with(head + many + b"\r\n"))
    assert result.error is None
    assert len(result.response_headers) == 50
    assert result.response_headers["x-odd"] == "\ufffd\ufffd"
    assert result.response_headers["x-two"] == "1, 2"
    assert max(map(len, result.response_headers.values())) == 1000


# ---- servers that misbehave


@pytest.mark.parametrize(
    "response",
    [
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"\x00\xff" * 100,
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_a_malformed_response_is_an_error(response: bytes) -> None:
    result = await send_once(responding_with(response, then_close=True))
    assert result.status is None
    assert result.error in {
        "the response is not valid HTTP",
        "the server closed the connection without a complete response",
    }


@pytest.mark.parametrize(
    ("response", "stored"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", "part"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", "part"),
    ],
)
async def test_the_received_part_of_an_incomplete_body_is_stored(response: bytes, stored: str) -> None:
    result = await send_once(responding_with(response, then_close=True))
    assert result.error == "the response broke off or its body is malformed"
    assert (result.status, result.response_body) == (200, stored)


async def test_huge_response_headers_are_an_error() -> None:
    result = await send_once(responding_with(b"HTTP/1.1 200 OK\r\nX-Huge: " + b"h" * 200_000 + b"\r\n\r\n", then_close=True))
    assert (result.status, result.error) == (None, "the response's headers are too large")


async def test_a_server_that_never_responds_times_out() -> None:
    async with serving(silent) as peer, sending(seconds=2) as sender:
        result = await sender.send(peer.url, b"{}", {})
        await asyncio.wait_for(peer.disconnected.wait(), 60)
    assert (result.status, result.error) == (None, "timed out after 2 s")
    assert result.duration_ms >= 1950


async def test_the_timeout_limits_a_body_that_is_sent_very_slowly() -> None:
    async def send_slowly(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        while not peer.test_ended.is_set() and not writer.is_closing():
            writer.write(b"d")
            await writer.drain()
            await asyncio.sleep(0.02)

    result = await send_once(send_slowly, seconds=2)
    assert (result.status, result.error) == (200, "timed out after 2 s")
    assert set(result.response_body) <= {"d"}


async def test_a_request_on_a_dead_pooled_connection_is_repeated_once() -> None:
    async def drop_second_request(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            request = await read_request(reader)
            if request is None:
                return
            peer.requests.append(request)
            if len(peer.requests) == 2:
                return  # like a server that closes an idle connection just as it is reused
            writer.write(OK)
            await writer.drain()

    async with serving(drop_second_request) as peer, sending() as sender:
        assert (await sender.send(peer.url, b"{}", {})).error is None
        result = await sender.send(peer.url, b"{}", {})
        assert (result.status, result.error) == (200, None)
    assert (len(peer.requests), peer.connections) == (3, 2)


async def test_a_request_on_a_new_connection_is_not_repeated() -> None:
    async def drop(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.requests.append(await read_request(reader) or b"")

    async with serving(drop) as peer, sending() as sender:
        result = await sender.send(peer.url, b"{}", {})
    assert result.error == "the server closed the connection without a complete response"
    assert len(peer.requests) == 1


async def test_a_closed_port_is_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening, so that no other program can use the port
        async with sending() as sender:
            result = await sender.send(f"http://127.0.0.1:{unused.getsockname()[1]}/", b"{}", {})
    assert (result.status, result.error) == (None, "connection refused")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "not a url",
        "/hook",
        "http://",
        "http://:80/",
        "ftp://127.0.0.1/",
        "ws://127.0.0.1/",
        "tcp://127.0.0.1/",
        "file:///etc/passwd",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:port/",
        "http://[::1/",
        "http://xn--\ud800/",
        "http://exa mple.com/",
        "http://\u2024.\u2024/",
        "http://" + "a" * 300 + ".com/",
    ],
)
async def test_an_invalid_url_is_an_error_in_the_result(url: str) -> None:
    async with sending() as sender:
        result = await sender.send(url, b"{}", {})
    assert result.status is None
    assert result.error is not None
    assert result.error.startswith(("the URL is not valid", "the host name does not resolve", "the request could not"))


@given(st.text())
async def test_any_url_gives_an_error_and_does_not_raise(text: str) -> None:
    async with sending(seconds=0.05) as sender:
        result = await sender.send(f"http://127.0.0.1:1/{text}", b"{}", {})
        assert result.error is not None
        assert (await sender.send(text, b"{}", {})).error is not None


async def test_errors_do_not_contain_the_url() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with sending() as sender:
            for url in (f"http://user:hunter2@127.0.0.1:{port}/?token=hunter2", "ftp://user:hunter2@example.com/"):
                assert "hunter2" not in ((await sender.send(url, b"{}", {})).error or "")


async def test_header_injection_is_an_error_and_nothing_is_sent() -> None:
    async with serving(responding_with(OK)) as peer, sending() as sender:
        result = await sender.send(peer.url, b"{}", {"webhook-id": "x\r\nEvil: 1"})
        assert (result.status, result.error) == (
            None,
            "the request could not be written: a header or the URL is not valid",
        )
        assert (await sender.send(peer.url, b"{}", {})).error is None
    assert len(peer.requests) == 1


async def test_a_closed_sender_returns_an_error() -> None:
    async with serving(responding_with(OK)) as peer, sending() as sender:
        await sender.close()
        assert (await sender.send(peer.url, b"{}", {})).error == "the request failed (RuntimeError)"


async def test_cancellation_raises_and_closes_the_connection() -> None:
    async with serving(silent) as peer, sending() as sender:
        task = asyncio.create_task(sender.send(peer.url, b"{}", {}))
        await asyncio.wait_for(peer.request_arrived.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(peer.disconnected.wait(), 60)


# ---- fairness


async def test_under_load_every_caller_is_served_and_none_times_out() -> None:
    """Waiting callers get connections in order. Otherwise new callers could take each free connection before them."""
    async with serving(responding_with(OK)) as peer, sending(seconds=60, limit=2) as sender:

        async def send_many(name: str) -> None:
            for _ in range(20):
                result = await sender.send(peer.url, b"{}", {"webhook-id": name})
                assert result.error is None

        await asyncio.gather(*(send_many(f"worker-{number}") for number in range(10)))
    assert peer.connections <= 2
    first_forty = b"".join(peer.requests[:40])
    assert all(f"worker-{number}\r\n".encode() in first_forty for number in range(10))
