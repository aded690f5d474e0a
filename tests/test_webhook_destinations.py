"""The webhook sender verifies TLS certificates and never connects to a forbidden address."""

import asyncio
import ssl
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.webhooks.outbound.address_guard import refusal_reason
from sandbox.webhooks.outbound.sender import WebhookSender
from tests.harness.certificates import certificate
from tests.harness.names import StubResolver
from tests.harness.raw_server import LOOPBACK, OK, Peer, responding_with, sending, serving

# ---- https


async def test_https_accepts_a_trusted_certificate_and_refuses_an_untrusted_one(tmp_path: Path) -> None:
    server = certificate(tmp_path, "127.0.0.1")
    async with serving(responding_with(OK), tls=server) as peer:
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
async def test_a_certificate_for_another_host_or_an_expired_one_is_refused(tmp_path: Path, name: str, days: int) -> None:
    server = certificate(tmp_path, name, timedelta(days=days))
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    async with serving(responding_with(OK), tls=server) as peer, sending(ssl_context=trusting) as sender:
        result = await sender.send(peer.url.replace("http", "https"), b"{}", {})
    assert result.error is not None
    assert result.error.startswith("TLS certificate not valid: ")


async def test_https_to_a_server_without_tls_is_an_error() -> None:
    async def respond_without_tls(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(OK)
        await writer.drain()
        await peer.wait_for_disconnect(reader)

    async with serving(respond_without_tls) as peer, sending() as sender:
        result = await sender.send(peer.url.replace("http", "https"), b"{}", {})
    assert result.error is not None
    assert result.error.startswith("TLS handshake failed")


# ---- addresses


async def test_a_name_that_now_resolves_to_loopback_is_refused_at_the_next_connection() -> None:
    """This is DNS rebinding: the name was allowed before, but the address of each new connection is checked."""
    names = StubResolver({"rebind.test": ["127.0.0.2"]})
    sender = WebhookSender([ip_network("127.0.0.2/32")], resolver=names)
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with serving(responding_with(closing, then_close=True), host="0.0.0.0") as peer:  # noqa: S104 - all of 127/8
        url = f"http://rebind.test:{peer.port}/"
        assert (await sender.send(url, b"{}", {})).status == 200
        names.addresses["rebind.test"] = ["127.0.0.1"]
        sender._connector.clear_dns_cache()
        result = await sender.send(url, b"{}", {})
        await sender.close()
    assert result.error == "address 127.0.0.1 is loopback and not allowed; the operator can allow its network"
    assert peer.connections == 1


async def test_only_allowed_addresses_of_a_host_are_connected_to() -> None:
    names = StubResolver({"mixed.test": ["10.0.0.1", "fd00::1", "127.0.0.1"], "private.test": ["10.0.0.1", "fd00::1"]})
    async with serving(responding_with(OK)) as peer, sending(resolver=names) as sender:
        assert (await sender.send(f"http://mixed.test:{peer.port}/", b"{}", {})).status == 200
        result = await sender.send(f"http://private.test:{peer.port}/", b"{}", {})
    assert result.error is not None
    assert "is private and not allowed" in result.error


async def test_an_address_is_checked_once_and_its_refusal_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def refuse(address: str, allowed: object) -> str:
        checked.append(address)
        return "no"

    monkeypatch.setattr("sandbox.webhooks.outbound.sender.refusal_reason", refuse)
    async with sending() as sender:
        assert (await sender.send("http://127.0.0.1:9/", b"{}", {})).error == "no"
    assert checked == ["127.0.0.1"]


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
    ("100.64.0.1", "a carrier-grade NAT address"),
    ("100.127.255.255", "a carrier-grade NAT address"),
    ("224.0.0.1", "multicast"),
    ("ff02::1", "multicast"),
    ("ff0e::1", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("fec0::1", "reserved"),
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "2001:4860:4860::8888", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]


@pytest.mark.parametrize(("address", "kind"), REFUSED)
def test_non_public_addresses_are_refused_unless_the_operator_allows_them(address: str, kind: str) -> None:
    assert f" is {kind} and not allowed" in (refusal_reason(address, ()) or "")
    assert refusal_reason(address, [ip_network("203.0.113.0/24")]) is not None
    assert refusal_reason(address, [ip_network("0.0.0.0/0"), ip_network("::/0")]) is None


def test_allowed_networks_apply_to_the_embedded_ipv4_address() -> None:
    private = [ip_network("10.0.0.0/8")]
    assert refusal_reason("::ffff:10.0.0.1", private) is None
    assert refusal_reason("64:ff9b::10.0.0.1", private) is None
    assert refusal_reason("64:ff9b::10.0.0.1", [ip_network("64:ff9b::/96")]) is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert refusal_reason(address, ()) is None


@given(st.one_of(st.text(), st.ip_addresses().map(str)))
def test_the_guard_never_raises(address: str) -> None:
    assert isinstance(refusal_reason(address, LOOPBACK), str | None)
