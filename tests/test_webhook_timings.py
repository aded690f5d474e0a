"""The result of a send names the class of its error and says how long each phase took."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from aiodns.error import ARES_ENOTFOUND, DNSError

from sandbox.webhooks.outbound.resolver import NameResolver
from sandbox.webhooks.outbound.sender import SendResult
from sandbox.webhooks.outbound.timings import Timings
from tests.harness.certificates import certificate
from tests.harness.names import StubResolver, silent_port
from tests.harness.raw_server import OK, Handler, Peer, read_request, responding_with, send_once, sending, serving, silent


def phases(timings: Timings) -> list[str]:
    """Return the phases that happened, after checking that they do not add up to more than the total."""
    found = {name: getattr(timings, f"{name}_ms") for name in ("dns", "connect", "tls", "first_byte")}
    happened = {name: value for name, value in found.items() if value is not None}
    assert 0 <= sum(happened.values()) <= timings.total_ms + 0.001
    return list(happened)


async def test_each_phase_is_timed_and_a_reused_connection_skips_the_first_ones(tmp_path: Path) -> None:
    server = certificate(tmp_path, "hook.test")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    names = StubResolver({"hook.test": ["127.0.0.1"]})
    async with serving(responding_with(OK), tls=server) as peer, sending(ssl_context=trusting, resolver=names) as sender:
        url = f"https://hook.test:{peer.port}/"
        first, second = [await sender.send(url, b"{}", {}) for _ in range(2)]
    assert (first.error_class, second.error_class) == (None, None)
    assert phases(first.timings) == ["dns", "connect", "tls", "first_byte"]
    assert first.timings.tls_ms, "a TLS handshake takes at least a hundredth of a millisecond"
    assert phases(second.timings) == ["first_byte"]
    assert first.timings.total_ms == first.duration_ms


async def test_a_numeric_address_has_no_look_up_and_plain_http_no_handshake() -> None:
    result = await send_once(responding_with(OK))
    assert phases(result.timings) == ["connect", "first_byte"]


async def test_a_request_repeated_on_a_new_connection_has_the_new_connections_timings() -> None:
    async def close_after_each(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        await read_request(reader)

    async with serving(close_after_each) as peer, sending() as sender:
        first, second = [await sender.send(peer.url, b"{}", {}) for _ in range(2)]
    assert peer.connections == 2
    assert phases(first.timings) == phases(second.timings) == ["connect", "first_byte"]


async def send_to(url: str, **options: object) -> SendResult:
    async with sending(**options) as sender:  # type: ignore[arg-type]
        return await sender.send(url, b"{}", {})


async def test_the_last_phase_shown_is_the_one_that_failed(tmp_path: Path) -> None:
    unknown = await send_to("http://unknown.test/", resolver=StubResolver())
    assert (unknown.error_class, phases(unknown.timings)) == ("DNS", ["dns"])
    with silent_port() as port:
        unanswered = NameResolver(0.1, nameservers=["127.0.0.1"], udp_port=port)
        slow = await send_to("http://slow.test/", resolver=unanswered)
    assert (slow.error_class, phases(slow.timings)) == ("DNS_TIMEOUT", ["dns"])
    blocked = await send_to("http://private.test/", resolver=StubResolver(default="10.0.0.1"))
    assert (blocked.error_class, phases(blocked.timings)) == ("BLOCKED_ADDRESS", ["dns"])
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = await send_to(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert (refused.error_class, phases(refused.timings)) == ("CONNECTION_REFUSED", ["connect"])
    async with serving(responding_with(OK), tls=certificate(tmp_path, "127.0.0.1")) as peer:
        untrusted = await send_to(peer.url.replace("http", "https"))
    assert (untrusted.error_class, phases(untrusted.timings)) == ("TLS", ["connect", "tls"])
    late = await send_once(silent, seconds=2)  # it must connect within this time, even on a slow machine
    assert (late.error_class, phases(late.timings)) == ("TIMEOUT", ["connect", "first_byte"])


async def reset(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection after a request."""
    await read_request(reader)
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def dropping(response: bytes) -> Handler:
    return responding_with(response, then_close=True)


@pytest.mark.parametrize(
    ("handler", "error_class"),
    [
        (dropping(b""), "CONNECTION_CLOSED"),
        (reset, "CONNECTION_RESET"),
        (dropping(b"hello\r\n\r\n"), "INVALID_RESPONSE"),
        (dropping(b"HTTP/1.1 200 OK\r\nX-Huge: " + b"h" * 200_000 + b"\r\n\r\n"), "INVALID_RESPONSE"),
        (dropping(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"), "INVALID_RESPONSE"),
        (dropping(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), "REDIRECT"),
        (dropping(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"), "HTTP_STATUS"),
        (dropping(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), "HTTP_STATUS"),
        (dropping(b"HTTP/1.1 204 No Content\r\n\r\n"), None),
    ],
)
async def test_each_kind_of_response_has_its_error_class(handler: Handler, error_class: str | None) -> None:
    result = await send_once(handler)
    assert (result.error_class, phases(result.timings)) == (error_class, ["connect", "first_byte"])


async def test_other_failures_have_classes_too() -> None:
    assert (await send_to("ftp://example.test/")).error_class == "INVALID_URL"
    async with serving(responding_with(OK)) as peer, sending() as sender:
        assert (await sender.send(peer.url, b"{}", {"x": "a\r\nb"})).error_class == "INVALID_REQUEST"
        await sender.close()
        closed = await sender.send(peer.url, b"{}", {})
    assert closed.error_class == "INTERNAL"


class UnknownNames:
    """Stands in for c-ares: no name exists, and each lookup is counted."""

    def __init__(self) -> None:
        self.lookups = 0

    async def resolve(self, name: str, port: int, family: int) -> None:
        self.lookups += 1
        raise OSError(None, "not found") from DNSError(ARES_ENOTFOUND, "not found")

    async def close(self) -> None:
        pass


async def test_an_unknown_name_is_looked_up_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, names = NameResolver(), UnknownNames()
    monkeypatch.setattr(resolver, "_resolver", names)
    async with sending(resolver=resolver) as sender:
        for _ in range(5):
            assert (await sender.send("http://unknown.test/", b"{}", {})).error_class == "DNS"
        assert names.lookups == 1
        resolver._unknown["unknown.test"] = 0.0  # a second has passed
        assert (await sender.send("http://unknown.test/", b"{}", {})).error_class == "DNS"
    assert names.lookups == 2
