"""No outgoing call reaches a private address, however a URL spells it, unless the operator allows its network.

Each URL is checked where it is registered, and then given to both clients as if it had been registered. The resolver reads
every odd spelling as loopback, as some systems do.
"""

import ast
import errno
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver

from sandbox.infrastructure.settings import Settings, SettingsError
from sandbox.server.runtime.environment import child_environment
from sandbox.server.runtime.run_directories import RunDirectories
from sandbox.users.aggregator.feed_clients import FetchFailedError, HttpVendor, PageRequest
from sandbox.webhooks.outbound.address_guard import Network
from sandbox.webhooks.outbound.resolver import NameResolver
from sandbox.webhooks.outbound.sender import WebhookSender
from sandbox.webhooks.outbound.url_check import url_error
from tests.harness.names import StubResolver
from tests.harness.python_source import parse_python

LOOPBACK_SPELLINGS = [
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.255.255.254",
    "2130706433", "017700000001", "0x7f000001", "0X7F000001",
    "0177.0.0.1", "0x7f.0.0.1", "0x7f.1", "127.0.0.0x1", "00127.0.0.1", "127.0.0.01", "0177.0x0.0.1",
    "127%2e0%2e0%2e1", "%31%32%37.0.0.1", "\uff11\uff12\uff17.\uff10.\uff10.\uff11", "127\u30020\u30020\u30021",
    "127\uff0e0\uff0e0\uff0e1", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460", "127.0.0.1:80", "user@127.0.0.1",
    "example.com@127.0.0.1", "example.com\\@127.0.0.1", "127.0.0.1\\@example.com", "example.com:80@127.0.0.1",
    "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::1%25lo]", "[::1%lo]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[::7f00:1]",
    "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2002:7f00:1::1]",
    "[2001:4860::5efe:127.0.0.1]", "[2001:4860::200:5efe:7f00:1]",
    "0", "0.0.0.0", "0x0", "00000000000", "[::]", "[::%25lo]", "[::0.0.0.0]", "[::ffff:0.0.0.0]",  # noqa: S104 -- not to bind
]  # fmt: skip
PRIVATE_SPELLINGS = [
    "10.0.0.1", "167772161", "0xa.1", "012.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "0xc0a80001",
    "0.1.2.3", "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.0.100", "192.0.2.1", "192.88.99.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "4294967295",
    "[fc00::1]", "[fd12:3456::1]", "[fec0::1]", "[ff02::1]", "[ff0e::1]", "[100::1]", "[2001:db8::1]", "[3fff::1]",
    "[2001::1]", "[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "[::ffff:10.0.0.1]", "[::10.0.0.1]", "[::ffff:0:10.0.0.1]",
    "[64:ff9b::10.0.0.1]", "[64:ff9b:1::10.0.0.1]", "[64:ff9b:1:a00:0:100::]", "[2002:a00:1::1]", "[2002:c0a8:1::1]",
    "[2001:4860::5efe:10.0.0.1]",
]  # fmt: skip
METADATA_SPELLINGS = [
    "169.254.169.254", "169.254.169.254.", "2852039166", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376",
    "025177524776", "169.254.43518", "169.16689662", "169.254.170.2", "169.254.0.1", "100.100.100.200", "192.0.0.192",
    "168.63.129.16", "\uff11\uff16\uff19.254.169.254", "169\u3002254\u3002169\u3002254",
    "[fe80::1]", "[fe80::1%25eth0]", "[febf::1]", "[fe80::5efe:10.0.0.1]", "[fd00:ec2::254]", "[fd20:ce::254]",
    "[fd00:42::42]", "[fd00:a9fe:a9fe::1]",
    "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:ffff:a9fe:a9fe]", "[::169.254.169.254]",
    "[::ffff:0:169.254.169.254]", "[64:ff9b::169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::169.254.169.254]",
    "[64:ff9b:1:a9fe:a9:fe00::]", "[64:ff9b:1:a9:fe:a9fe::]", "[64:ff9b:1:0:a9:fea9:fe00:0]", "[2002:a9fe:a9fe::1]",
    "[2001:0:1:1::5601:5601]", "[2001:0:a9fe:a9fe::1]", "[2001:4860::5efe:169.254.169.254]",
]  # fmt: skip
METADATA_NAMES = [
    "metadata", "metadata.google.internal", "METADATA.Google.Internal", "metadata.google.internal.", "metadata.goog",
    "instance-data", "instance-data.ec2.internal", "metadata.azure.internal", "metadata.tencentyun.com",
    "metadata.packet.net", "rancher-metadata", "metadata\u3002google\u3002internal",
]  # fmt: skip
REQUIRED = {"DATABASE_URL": "postgresql://x", "REDIS_URL": "redis://x", "SANDBOX_SECRET_KEY": "a" * 43 + "="}
EVERYTHING = [ip_network("0.0.0.0/0"), ip_network("::/0")]


class Sockets:
    """Counts the sockets that the clients open, and opens none."""

    opened = 0

    def open(self, *arguments: object) -> None:
        """Count a call of `open_socket`. Raises OSError."""
        self.opened += 1
        raise OSError(errno.ECONNREFUSED, "counted")


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Sockets:
    counted = Sockets()
    monkeypatch.setattr("sandbox.webhooks.outbound.sender.open_socket", counted.open)
    monkeypatch.setattr("sandbox.users.aggregator.feed_clients.open_socket", counted.open)
    return counted


async def call_both_clients(url: str, allowed: Sequence[Network], new_resolver: Callable[[], AbstractResolver]) -> str | None:
    """Post to a URL as a webhook and fetch it as a vendor. Return the webhook's error class."""
    sender = WebhookSender(allowed, resolver=new_resolver())
    result = await sender.send(url, b"{}", {})
    await sender.close()
    assert result.status is None
    vendor = HttpVendor(allowed, resolver=new_resolver())
    with pytest.raises(FetchFailedError):
        await vendor.fetch(PageRequest("m", url, {}, None, 1))
    await vendor.close()
    return result.error_class


def resolving_to(address: str) -> Callable[[], AbstractResolver]:
    """Return a function that creates a resolver of every name, and so of every odd spelling, to an address."""
    return lambda: StubResolver(default=address)


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS + PRIVATE_SPELLINGS)
async def test_no_spelling_of_a_private_address_is_reached(host: str, sockets: Sockets) -> None:
    url = f"http://{host}/"
    assert not host.isascii() or url_error(url, ()) is not None
    assert await call_both_clients(url, (), resolving_to("127.0.0.1")) in {"BLOCKED_ADDRESS", "INVALID_URL"}
    assert sockets.opened == 0


@pytest.mark.parametrize("host", METADATA_SPELLINGS)
async def test_no_spelling_of_a_metadata_address_is_reached_even_if_everything_is_allowed(host: str, sockets: Sockets) -> None:
    url = f"http://{host}/latest/meta-data/"
    assert not host.isascii() or url_error(url, EVERYTHING) is not None
    assert await call_both_clients(url, EVERYTHING, resolving_to("169.254.169.254")) in {"BLOCKED_ADDRESS", "INVALID_URL"}
    assert sockets.opened == 0


@pytest.mark.parametrize("host", METADATA_NAMES)
async def test_a_metadata_service_is_refused_by_name_before_any_look_up(host: str, sockets: Sockets) -> None:
    url = f"http://{host}/computeMetadata/v1/"
    assert not host.isascii() or url_error(url, EVERYTHING) == "must not name a cloud metadata service"
    assert await call_both_clients(url, EVERYTHING, NameResolver) == "BLOCKED_ADDRESS"
    assert sockets.opened == 0


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("169.254.169.254", False), ("127.0.0.1", False), ("10.1.2.3", True), ("10.2.0.1", False), ("192.168.7.7", True),
        ("192.168.7.8", False), ("fd00:1::1", True), ("fd00:2::1", False), ("::ffff:10.1.2.3", True),
        ("64:ff9b::10.1.2.3", True), ("2002:a01:203::1", True), ("2001:4860::5efe:10.1.2.3", True),
        ("fd00:2::5efe:10.1.2.3", False), ("fd00:1::5efe:10.2.0.1", False), ("8.8.8.8", True), ("::1", False),
        ("2606:4700::1111", True),
    ],
)  # fmt: skip
async def test_a_name_leads_only_to_public_addresses_and_allowed_networks(
    address: str, is_allowed: bool, sockets: Sockets
) -> None:
    """Such as 169.254.169.254.nip.io, and every name that changes its address after it was registered."""
    allowed = [ip_network("10.1.0.0/16"), ip_network("192.168.7.7/32"), ip_network("fd00:1::/32")]
    assert url_error("http://innocent.test/", ()) is None
    error_class = await call_both_clients("http://innocent.test/", allowed, resolving_to(address))
    assert error_class == ("CONNECTION_REFUSED" if is_allowed else "BLOCKED_ADDRESS")
    assert sockets.opened == (2 if is_allowed else 0)


def test_every_module_of_the_servers_that_makes_outgoing_calls_uses_the_guard() -> None:
    root = Path(__file__).parent.parent
    clients = {"aiohttp", "httpx", "http.client", "urllib.request", "requests", "urllib3", "websockets"}
    # These are not part of a server, or serve or read without calling out. `psp mcp` calls the sandbox's API only, and
    # `psp certify --app` looks at the user's own port. The built guide has copies of the examples.
    others = {root / "sandbox" / name for name in ("cli", "server/runtime", "server/docs/guide")}
    others |= {root / "worker" / "health.py", root / "sandbox" / "webhooks" / "receiver_tests" / "application.py"}
    found = set()
    for path in (path for name in ("sandbox", "worker", "ipn") for path in (root / name).rglob("*.py")):
        if not others & {path, *path.parents}:
            tree = parse_python(path)
            names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
            names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            calls = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            if names & clients or "open_connection" in calls:
                found.add(str(path.relative_to(root / "sandbox")))
    # The last two only know aiohttp's errors and resolver.
    assert found == {
        "webhooks/outbound/sender.py",
        "users/aggregator/feed_clients.py",
        "webhooks/outbound/send_errors.py",
        "webhooks/outbound/resolver.py",
    }


@pytest.mark.parametrize(
    ("value", "networks"),
    [
        ("none", []), (" none ", []), ("", []), ("loopback", ["127.0.0.0/8", "::1/128"]),
        ("10.1.0.0/16, fd00:1::/32,192.168.7.7", ["10.1.0.0/16", "fd00:1::/32", "192.168.7.7/32"]),
    ],
)  # fmt: skip
def test_the_operator_lists_allowed_networks_and_none_excludes_even_loopback(value: str, networks: list[str]) -> None:
    settings = Settings.load({**REQUIRED, "SANDBOX_WEBHOOK_ALLOW": value})
    assert [str(network) for network in settings.webhook_allow] == networks


@pytest.mark.parametrize("value", ["none,loopback", "10.0.0.1/8", "localhost", "all", "10.0.0.0/33"])
def test_an_invalid_list_of_networks_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="SANDBOX_WEBHOOK_ALLOW must be"):
        Settings.load({**REQUIRED, "SANDBOX_WEBHOOK_ALLOW": value})


@pytest.mark.parametrize(("value", "expected"), [(None, "loopback"), ("", "loopback"), ("none", "none")])
def test_an_embedded_run_allows_loopback_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str
) -> None:
    monkeypatch.delenv("SANDBOX_WEBHOOK_ALLOW", raising=False)
    if value is not None:
        monkeypatch.setenv("SANDBOX_WEBHOOK_ALLOW", value)
    directories = RunDirectories(tmp_path, tmp_path, tmp_path, None, ephemeral=True)
    env = child_environment(directories, "postgresql://x", "redis://x", "127.0.0.1", 8000, 8001)
    assert env["SANDBOX_WEBHOOK_ALLOW"] == expected
