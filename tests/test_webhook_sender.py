"""The sender survives every server it may meet, keeps its bounds, and connects to no address that it must not.

The servers are real ones on loopback that speak raw bytes, so that they can misbehave.
"""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from sandbox.webhooks.address_guard import refusal
from sandbox.webhooks.sender import BODY_LIMIT, SendResult, WebhookSender

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Peer:
    """A local server, what it saw, and how its handlers learn that the test is over."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def until_left(self, reader: asyncio.StreamReader) -> None:
        """Wait until the client has closed the connection."""
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.left.set()


Handler = Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> bytes | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Peer]:
    peer = Peer()
    running: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        peer.connections += 1
        try:
            await handler(peer, reader, writer)
        except ConnectionError:
            pass
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        peer.over.set()
        server.close()
        if running:
            await asyncio.wait(running, timeout=10)


def answering(answer: bytes, then_close: bool = False) -> Handler:
    """Answer every request with these bytes, on one connection as long as the client keeps it."""

    async def handler(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            peer.requests.append(request)
            writer.write(answer)
            await writer.drain()
            if then_close:
                return
        peer.left.set()

    return handler


async def silent(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await read_request(reader)
    if request is not None:
        peer.requests.append(request)
        peer.asked.set()
        await peer.until_left(reader)


@asynccontextmanager
async def sending(
    seconds: float = 15.0, limit_per_host: int = 256, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(LOOPBACK, timeout=seconds, limit_per_host=limit_per_host, ssl_context=ssl_context)
    try:
        yield sender
    finally:
        await sender.close()


async def sent_to(handler: Handler, seconds: float = 15.0) -> SendResult:
    async with serving(handler) as peer, sending(seconds) as sender:
        return await sender.send(peer.url, b"{}", {"webhook-id": "evt-1"})


# The request


async def test_it_posts_the_body_as_it_is_with_the_headers_and_keeps_the_connection() -> None:
    async with serving(answering(OK)) as peer, sending() as sender:
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


async def test_cookies_are_not_kept_and_proxies_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1\r\nContent-Length: 0\r\n\r\n"
    async with serving(answering(cookie)) as peer, sending() as sender:
        assert (await sender.send(peer.url, b"{}", {})).error is None
        assert (await sender.send(peer.url, b"{}", {})).error is None
    assert b"cookie:" not in peer.requests[1].lower()


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with serving(answering(OK)) as target, sending() as sender:
        location = f"HTTP/1.1 {status} Moved\r\nLocation: {target.url}\r\nContent-Length: 0\r\n\r\n".encode()
        async with serving(answering(location)) as peer:
            result = await sender.send(peer.url, b"{}", {})
    assert (result.status, result.error) == (status, "redirect not followed")
    assert target.connections == 0


# The answer, and its bounds


@pytest.mark.parametrize(("status", "reason"), [(204, "No Content"), (410, "Gone"), (500, "Broken"), (503, "Busy")])
async def test_every_status_is_an_answer_and_not_an_error(status: int, reason: str) -> None:
    answer = f"HTTP/1.1 {status} {reason}\r\nRetry-After: 7\r\n".encode()
    answer += b"\r\n" if status == 204 else b"Content-Length: 4\r\n\r\ngone"
    result = await sent_to(answering(answer))
    assert (result.status, result.error) == (status, None)
    assert result.response_headers["retry-after"] == "7"


async def test_an_endless_body_is_cut_and_costs_the_connection() -> None:
    async def endless(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n" + b"a" * 1_000_000)
        await peer.until_left(reader)

    async with serving(endless) as peer, sending() as sender:
        result = await sender.send(peer.url, b"{}", {})
        await asyncio.wait_for(peer.left.wait(), 10)
    assert (result.status, result.error) == (200, None)
    assert result.response_body == "a" * BODY_LIMIT


async def test_a_body_of_exactly_the_limit_is_whole() -> None:
    body = b"b" * BODY_LIMIT
    result = await sent_to(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + body))
    assert (result.response_body, result.error) == (body.decode(), None)


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (b"a\0b", "a\ufffdb"),
        (b"\xff", "\ufffd"),
        ("\u0639\u0644\u06cc".encode(), "\u0639\u0644\u06cc"),
        (b"\xff" * 20_000, "\ufffd" * 6_666),  # three bytes each once replaced: the bound holds for what is stored
        (b"a" + b"\xff" * 19_999, "a" + "\ufffd" * 6_666),
    ],
)
async def test_a_body_can_be_stored_as_text(raw: bytes, kept: str) -> None:
    result = await sent_to(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(raw), raw)))
    assert result.response_body == kept
    assert len(result.response_body.encode()) <= BODY_LIMIT


async def test_a_compressed_body_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(bomb), bomb)
    result = await sent_to(answering(answer))
    assert (result.status, result.error) == (200, None)
    assert len(result.response_body) <= len(bomb)


async def test_response_headers_are_bounded_joined_and_storable() -> None:
    many = b"".join(b"X-Header-%d: %b\r\n" % (number, b"v" * 2000) for number in range(60))
    head = b"HTTP/1.1 200 OK\r\nX-Odd: \xff\xe9\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: 0\r\n"
    result = await sent_to(answering(head + many + b"\r\n"))
    assert result.error is None
    assert len(result.response_headers) == 50
    assert result.response_headers["x-odd"] == "\ufffd\ufffd"
    assert result.response_headers["x-two"] == "1, 2"
    assert max(map(len, result.response_headers.values())) == 1000


# Servers that misbehave


@pytest.mark.parametrize(
    "answer",
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
async def test_a_malformed_response_is_an_error(answer: bytes) -> None:
    result = await sent_to(answering(answer, then_close=True))
    assert result.status is None
    assert result.error in {
        "the response is not valid HTTP",
        "the server closed the connection without a complete answer",
    }


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", "part"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", "part"),
    ],
)
async def test_a_body_that_breaks_off_keeps_what_came(answer: bytes, kept: str) -> None:
    result = await sent_to(answering(answer, then_close=True))
    assert result.error == "the response broke off or its body is malformed"
    assert (result.status, result.response_body) == (200, kept)


async def test_huge_response_headers_are_an_error() -> None:
    result = await sent_to(answering(b"HTTP/1.1 200 OK\r\nX-Huge: " + b"h" * 200_000 + b"\r\n\r\n", then_close=True))
    assert (result.status, result.error) == (None, "the response's headers are too large")


async def test_a_server_that_never_answers_times_out() -> None:
    async with serving(silent) as peer, sending(seconds=0.3) as sender:
        result = await sender.send(peer.url, b"{}", {})
        await asyncio.wait_for(peer.left.wait(), 10)
    assert (result.status, result.error) == (None, "timed out after 0.3 s")
    assert result.duration_ms >= 250


async def test_a_slow_drip_is_bounded_by_the_whole_timeout() -> None:
    async def drip(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        while not peer.over.is_set() and not writer.is_closing():
            writer.write(b"d")
            await writer.drain()
            await asyncio.sleep(0.02)

    result = await sent_to(drip, seconds=0.5)
    assert (result.status, result.error) == (200, "timed out after 0.5 s")
    assert set(result.response_body) <= {"d"}


async def test_a_connection_that_died_in_the_pool_is_replaced_once() -> None:
    async def drops_the_second(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            request = await read_request(reader)
            if request is None:
                return
            peer.requests.append(request)
            if len(peer.requests) == 2:
                return  # as a server that closes an idle connection just as it is used again
            writer.write(OK)
            await writer.drain()

    async with serving(drops_the_second) as peer, sending() as sender:
        assert (await sender.send(peer.url, b"{}", {})).error is None
        result = await sender.send(peer.url, b"{}", {})
        assert (result.status, result.error) == (200, None)
    assert (len(peer.requests), peer.connections) == (3, 2)


async def test_a_server_that_drops_a_fresh_connection_is_asked_only_once() -> None:
    async def drop(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.requests.append(await read_request(reader) or b"")

    async with serving(drop) as peer, sending() as sender:
        result = await sender.send(peer.url, b"{}", {})
    assert result.error == "the server closed the connection without a complete answer"
    assert len(peer.requests) == 1


async def test_a_closed_port_is_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can take the port meanwhile
        async with sending() as sender:
            result = await sender.send(f"http://127.0.0.1:{unused.getsockname()[1]}/", b"{}", {})
    assert (result.status, result.error) == (None, "connection refused")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "no url",
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
async def test_no_url_raises(text: str) -> None:
    async with sending(seconds=0.05) as sender:
        result = await sender.send(f"http://127.0.0.1:1/{text}", b"{}", {})
        assert result.error is not None
        assert (await sender.send(text, b"{}", {})).error is not None


async def test_errors_do_not_repeat_the_url() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with sending() as sender:
            for url in (f"http://user:hunter2@127.0.0.1:{port}/?token=hunter2", "ftp://user:hunter2@example.com/"):
                assert "hunter2" not in ((await sender.send(url, b"{}", {})).error or "")


async def test_header_injection_is_an_error_and_nothing_is_sent() -> None:
    async with serving(answering(OK)) as peer, sending() as sender:
        result = await sender.send(peer.url, b"{}", {"webhook-id": "x\r\nEvil: 1"})
        assert (result.status, result.error) == (
            None,
            "the request could not be written: a header or the URL is not valid",
        )
        assert (await sender.send(peer.url, b"{}", {})).error is None
    assert len(peer.requests) == 1


async def test_a_closed_sender_answers_with_an_error() -> None:
    async with serving(answering(OK)) as peer, sending() as sender:
        await sender.close()
        assert (await sender.send(peer.url, b"{}", {})).error == "the request failed (RuntimeError)"


async def test_cancelling_raises_and_closes_the_connection() -> None:
    async with serving(silent) as peer, sending(limit_per_host=1) as sender:
        task = asyncio.create_task(sender.send(peer.url, b"{}", {}))
        await asyncio.wait_for(peer.asked.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(peer.left.wait(), 10)
        assert not sender._gates


# Turns


async def test_under_load_every_sender_gets_its_turn_and_none_times_out() -> None:
    """Without an order of its own, whoever asks just as a connection comes free would starve those who wait."""
    async with serving(answering(OK)) as peer, sending(seconds=5, limit_per_host=2) as sender:

        async def greedy(name: str) -> None:
            for _ in range(20):
                result = await sender.send(peer.url, b"{}", {"webhook-id": name})
                assert result.error is None

        await asyncio.gather(*(greedy(f"worker-{number}") for number in range(10)))
    assert peer.connections <= 2
    first_forty = b"".join(peer.requests[:40])
    assert all(f"worker-{number}\r\n".encode() in first_forty for number in range(10))


async def test_a_slow_host_at_its_limit_delays_no_other() -> None:
    async with serving(silent) as slow, serving(answering(OK)) as quick, sending(limit_per_host=1) as sender:
        waiting = [asyncio.create_task(sender.send(slow.url, b"{}", {})) for _ in range(5)]
        await asyncio.wait_for(slow.asked.wait(), 10)
        result = await asyncio.wait_for(sender.send(quick.url, b"{}", {}), 10)
        assert result.error is None
        assert slow.connections == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


# https


def certificate(folder: Path, name: str, valid_for: timedelta = timedelta(days=1)) -> ssl.SSLContext:
    """Make a self-signed certificate for a host and a server context that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    alternative: x509.GeneralName = x509.DNSName(name)
    if name[0].isdigit():
        alternative = x509.IPAddress(IPv4Address(name))
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + valid_for)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def test_https_is_spoken_and_a_certificate_nobody_signed_is_refused(tmp_path: Path) -> None:
    server = certificate(tmp_path, "127.0.0.1")
    async with serving(answering(OK), tls=server) as peer:
        url = peer.url.replace("http", "https")
        async with sending(ssl_context=ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))) as sender:
            trusted = await sender.send(url, b"{}", {})
        async with sending() as sender:
            refused = await sender.send(url, b"{}", {})
    assert (trusted.status, trusted.error) == (200, None)
    assert refused.status is None
    assert refused.error is not None
    assert refused.error.startswith("TLS certificate not valid: self")


@pytest.mark.parametrize(("name", "days"), [("other.example", 1), ("127.0.0.1", -1)])
async def test_a_certificate_for_another_host_or_of_the_past_is_refused(tmp_path: Path, name: str, days: int) -> None:
    server = certificate(tmp_path, name, timedelta(days=days))
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    async with serving(answering(OK), tls=server) as peer, sending(ssl_context=trusting) as sender:
        result = await sender.send(peer.url.replace("http", "https"), b"{}", {})
    assert result.error is not None
    assert result.error.startswith("TLS certificate not valid: ")


async def test_https_to_a_server_without_tls_is_an_error() -> None:
    async def plain(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(OK)
        await writer.drain()
        await peer.until_left(reader)

    async with serving(plain) as peer, sending() as sender:
        result = await sender.send(peer.url.replace("http", "https"), b"{}", {})
    assert result.error is not None
    assert result.error.startswith("TLS handshake failed")


# Addresses


def resolving(monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> None:
    """Let names resolve to these addresses, as a merchant's own name server could."""
    real = socket.getaddrinfo

    def fake(host: str, port: int, *args: object, **kwargs: object) -> list[object]:
        found: list[object] = []
        for address in names.get(host.removesuffix(".test"), []):
            six = ":" in address
            place = (address, port, 0, 0) if six else (address, port)
            family = socket.AF_INET6 if six else socket.AF_INET
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place))
        return found or real(host, port, *args, **kwargs)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(socket, "getaddrinfo", fake)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "evil.test"])
async def test_private_addresses_are_refused_however_they_are_written(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, evil=["127.0.0.1"])
    sender = WebhookSender()
    async with serving(answering(OK)) as peer:
        result = await sender.send(f"http://{host}:{peer.port}/", b"{}", {})
        await sender.close()
    assert result.status is None
    assert result.error is not None
    assert "is loopback and not allowed" in result.error
    assert peer.connections == 0


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "0"])
async def test_odd_spellings_of_loopback_do_not_get_through(host: str) -> None:
    sender = WebhookSender()
    async with serving(answering(OK)) as peer:
        result = await sender.send(f"http://{host}:{peer.port}/", b"{}", {})
        await sender.close()
    assert result.status is None
    assert result.error is not None
    assert peer.connections == 0


async def test_a_name_that_turns_private_is_refused_at_the_next_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name was fine before, and what counts is where the next connection would go."""
    sender = WebhookSender([ip_network("127.0.0.2/32")])
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with serving(answering(closing, then_close=True), host="0.0.0.0") as peer:  # noqa: S104 - all of 127/8
        resolving(monkeypatch, rebind=["127.0.0.2"])
        url = f"http://rebind.test:{peer.port}/"
        assert (await sender.send(url, b"{}", {})).status == 200
        resolving(monkeypatch, rebind=["127.0.0.1"])
        connector = sender._session.connector
        assert connector is not None
        connector.clear_dns_cache()  # type: ignore[attr-defined]
        result = await sender.send(url, b"{}", {})
        await sender.close()
    assert result.error == "address 127.0.0.1 is loopback and not allowed; the operator can allow its network"
    assert peer.connections == 1


async def test_of_several_addresses_only_an_allowed_one_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, mixed=["10.0.0.1", "fd00::1", "127.0.0.1"], private=["10.0.0.1", "fd00::1"])
    async with serving(answering(OK)) as peer, sending() as sender:
        assert (await sender.send(f"http://mixed.test:{peer.port}/", b"{}", {})).status == 200
        result = await sender.send(f"http://private.test:{peer.port}/", b"{}", {})
    assert result.error is not None
    assert "is private and not allowed" in result.error


async def test_a_refusal_is_final_and_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counting(address: str, allowed: object) -> str:
        asked.append(address)
        return "no"

    monkeypatch.setattr("sandbox.webhooks.sender.refusal", counting)
    async with sending() as sender:
        assert (await sender.send("http://127.0.0.1:9/", b"{}", {})).error == "no"
    assert asked == ["127.0.0.1"]


async def test_cloud_metadata_is_refused_even_if_everything_is_allowed() -> None:
    sender = WebhookSender([ip_network("0.0.0.0/0"), ip_network("::/0")], timeout=2)
    for host in ("169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "100.100.100.200"):
        result = await sender.send(f"http://{host}/latest/meta-data/", b"{}", {})
        assert result.error is not None
        assert result.error.endswith("is never allowed")
    await sender.close()


NEVER = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1",
]
REFUSED = [
    ("127.0.0.1", "loopback"),
    ("::1", "loopback"),
    ("::ffff:127.0.0.1", "loopback"),
    ("0.0.0.0", "unspecified"),  # noqa: S104
    ("::", "unspecified"),
    ("0.1.2.3", "private"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("192.168.1.1", "private"),
    ("192.0.2.1", "private"),
    ("198.18.0.1", "private"),
    ("fd00::1", "private"),
    ("2001:db8::1", "private"),
    ("64:ff9b:1::1", "private"),
    ("64:ff9b::10.0.0.1", "private"),
    ("2002:0a00:0001::1", "private"),
    ("100.64.0.1", "of carrier-grade NAT"),
    ("100.127.255.255", "of carrier-grade NAT"),
    ("224.0.0.1", "multicast"),
    ("ff02::1", "multicast"),
    ("ff0e::1", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("fec0::1", "reserved"),
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "2001:4860:4860::8888", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", NEVER)
def test_metadata_and_link_local_are_never_allowed(address: str) -> None:
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0"), ip_network(ip_address(address.partition("%")[0]))]
    assert (refusal(address, everything) or "").endswith("is never allowed")


@pytest.mark.parametrize(("address", "kind"), REFUSED)
def test_other_addresses_that_are_not_public_need_an_allowance(address: str, kind: str) -> None:
    assert f" is {kind} and not allowed" in (refusal(address, ()) or "")
    assert refusal(address, [ip_network("203.0.113.0/24")]) is not None
    assert refusal(address, [ip_network("0.0.0.0/0"), ip_network("::/0")]) is None


def test_an_allowance_is_for_what_the_address_stands_for() -> None:
    private = [ip_network("10.0.0.0/8")]
    assert refusal("::ffff:10.0.0.1", private) is None
    assert refusal("64:ff9b::10.0.0.1", private) is None
    assert refusal("64:ff9b::10.0.0.1", [ip_network("64:ff9b::/96")]) is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert refusal(address, ()) is None


@given(st.one_of(st.text(), st.ip_addresses().map(str)))
def test_the_guard_never_raises(address: str) -> None:
    assert isinstance(refusal(address, LOOPBACK), str | None)
