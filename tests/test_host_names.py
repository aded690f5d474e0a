"""No server answers to another site's host name, so a page that rebinds its name to this machine gets nothing."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from sandbox.http.hosts import host_check
from sandbox.infrastructure.settings import DEVELOPMENT_ADMIN_KEY, Settings, SettingsError
from tests.harness.browser import chromium
from tests.harness.raw_http import raw_request
from tests.harness.waiting import until
from tests.harness.world import Stack, World

SITE = "evil.example"
OWN = ("psp.example", ".internal.example")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "a.localhost", "127.0.0.1", "127.0.0.2:8000", "10.1.2.3", "[::1]", "[::1]:80",
     "host.docker.internal:8000", "psp.example", "PSP.example:443", "api.internal.example"],
)  # fmt: skip
def test_addresses_names_of_this_machine_and_the_configured_names_are_served(host: str) -> None:
    assert host_check(OWN)([(b"host", host.encode())], "1.1") is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evillocalhost", "xpsp.example", "api.psp.example",
     "internal.example", "localhost@evil.example", "", "[", "\xff", "a" * 70_000],
)  # fmt: skip
def test_every_other_name_is_refused(host: str) -> None:
    refusal = host_check(OWN)([(b"host", host.encode("latin-1"))], "1.1")
    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "FORBIDDEN")
    assert "SANDBOX_ALLOWED_HOSTS" in (refusal.detail or "")
    assert len(refusal.detail or "") < 300


def test_the_names_come_from_the_urls_and_from_a_setting_of_their_own() -> None:
    env = {
        "DATABASE_URL": "postgresql://x/y", "REDIS_URL": "redis://x", "SANDBOX_SECRET_KEY": "A" * 43 + "=",
        "SANDBOX_PUBLIC_URL": "https://psp.example", "SANDBOX_IPN_URL": "https://ipn.example",
    }  # fmt: skip
    assert Settings.load(env | {"SANDBOX_ALLOWED_HOSTS": "API, .internal.example"}).own_hosts == {
        "psp.example", "ipn.example", "api", ".internal.example",
    }  # fmt: skip
    for wrong in ("http://x", "*.b", "a..b", "x:80"):
        with pytest.raises(SettingsError, match="SANDBOX_ALLOWED_HOSTS must be a comma-separated list"):
            Settings.load(env | {"SANDBOX_ALLOWED_HOSTS": wrong})
    with pytest.raises(SettingsError, match="development keys are public"):
        Settings.load(env | {"SANDBOX_ALLOWED_HOSTS": "*"})
    everywhere = env | {"SANDBOX_HOST": "10.0.0.1", "SANDBOX_ADMIN_KEY": "ak_" + "x" * 16}
    check = host_check(Settings.load(everywhere | {"SANDBOX_ALLOWED_HOSTS": "*"}).own_hosts)
    assert check([(b"host", SITE.encode())], "1.1") is None


@pytest.mark.parametrize("server", ["api_url", "ipn_url"])
def test_a_request_needs_exactly_one_host(stack: Stack, server: str) -> None:
    url = getattr(stack, server)
    for hosts in ("", "Host: localhost\r\nHost: localhost\r\n", f"Host: localhost\r\nHost: {SITE}\r\n"):
        refused = raw_request(url, f"GET /health HTTP/1.1\r\n{hosts}\r\n".encode())
        assert (refused.status_code, refused.json()["code"]) == (400, "VALIDATION_ERROR")
        assert "exactly one Host header" in refused.json()["detail"]
    assert raw_request(url, b"GET /health HTTP/1.0\r\n\r\n").status_code == 200


@pytest.mark.parametrize("header", ["X-API-KEY", "Authorization", "X-ADMIN-KEY"])
def test_two_different_keys_are_refused_and_the_same_key_twice_is_not(world: World, stack: Stack, header: str) -> None:
    path = "/sandbox/v1/merchants" if header == "X-ADMIN-KEY" else "/api/v1/balance"
    prefix, key = ("Bearer ", world.api_key) if header == "Authorization" else ("", world.api_key)
    key = stack.admin_key if header == "X-ADMIN-KEY" else key
    for keys, status in (((key, key), 200), ((key, "sk_other"), 401), (("sk_other", key), 401)):
        sent = [(header, prefix + given) for given in keys]
        answer = httpx.get(stack.api_url + path, headers=sent)
        assert answer.status_code == status
        assert status == 200 or answer.json()["code"] == "INVALID_API_KEY"


@contextmanager
def _mcp(stack: Stack) -> Iterator[str]:
    command = [sys.executable, "-m", "psp_sandbox", "mcp", "--http", "0", "--json"]
    process = subprocess.Popen(command, env={**os.environ, "PSP_URL": stack.api_url}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        url = httpx.URL(json.loads(process.stdout.readline())["url"])
        until(lambda: _accepts(url), 60)
        yield str(url)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def _accepts(url: httpx.URL) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", url.port or 0)) == 0


_READ = """async ([path, options]) => {
    try { const answer = await fetch(path, options); return [answer.status, await answer.text()] }
    catch (error) { return [0, String(error)] }
}"""


def test_a_page_whose_name_was_rebound_to_this_machine_gets_nothing(world: World, stack: Stack) -> None:
    call = {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": "{}"}
    as_operator = call | {"headers": {"X-ADMIN-KEY": DEVELOPMENT_ADMIN_KEY, "Content-Type": "application/json"}}
    as_merchant = {"headers": {"X-API-KEY": world.api_key}}
    pages = ("/openapi.json", "/metrics", "/console/sign-in", "/docs", "/docs/guide/", "/llms.txt")
    calls: list[tuple[str, Any]] = [("/sandbox/v1/merchants", as_operator), ("/api/v1/balance", as_merchant)]
    with _mcp(stack) as mcp_url, chromium(f"--host-resolver-rules=MAP {SITE} 127.0.0.1") as browser:
        page = browser.new_page()
        for url, requests in (
            (stack.api_url, calls + [(path, {}) for path in pages]),
            (stack.ipn_url, [("/ipn/callback", call), ("/health", {})]),
            (mcp_url, [(httpx.URL(mcp_url).path, call)]),
        ):
            # The page that the site served earlier has the same origin as this one.
            page.goto(f"http://{SITE}:{httpx.URL(url).port}/")
            for path, options in requests:
                status, text = page.evaluate(_READ, [path, options])
                assert status == 403, (path, status, text)
                assert "does not answer to the host name" in text
