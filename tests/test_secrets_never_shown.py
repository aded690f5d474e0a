"""A secret that is sent to the sandbox cannot be read afterwards, wherever it was and however it was encoded."""

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import httpx
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sandbox.cli.main import create_app
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import Stack, World

LEAK_LENGTH = 8
"""A text leaks a secret if it contains this many consecutive characters of it."""
HEXADECIMAL_LEAK_LENGTH = 12
"""The same for a secret of hexadecimal digits: the logs have so many ids that some have eight digits of it by chance."""
PREFIXES = ("sk_sandbox_", "ak_sandbox_", "whsec_", "whsk_")
Send = Callable[["RawClient", str], httpx.Response]


class RawClient:
    """Sends arbitrary requests as a merchant."""

    def __init__(self, world: World, receiver: Receiver) -> None:
        self.world = world
        self.receiver = receiver

    def raw(self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> httpx.Response:
        """Send a request with the target and body unchanged."""
        url = httpx.URL(self.world.stack.api_url).copy_with(raw_path=target.encode("ascii"))
        all_headers = {"X-API-KEY": self.world.api_key, "X-IDEMPOTENCY-KEY": str(uuid.uuid4())}
        if body is not None:
            all_headers["Content-Type"] = "application/json"
        return httpx.request(method, url, headers=all_headers | (headers or {}), content=body, timeout=60)

    def write(self, method: str, target: str, text: str) -> httpx.Response:
        """Send a request with the text as its JSON body."""
        return self.raw(method, target, body=text.encode())


def _escaped(secret: str) -> str:
    return "".join(f"\\u{ord(c):04x}" for c in secret)


def _percent_encoded(secret: str) -> str:
    return "".join(f"%{ord(c):02X}" for c in secret)


IN_JSON: dict[str, Callable[[str], str]] = {
    "plain": lambda s: s,
    "escaped": _escaped,
    "half escaped": lambda s: _escaped(s[: len(s) // 2]) + s[len(s) // 2 :],
    "upper": str.upper,
    "percent": _percent_encoded,
}
IN_URL: dict[str, Callable[[str], str]] = {
    "plain": lambda s: quote(s, safe=""),
    "percent": _percent_encoded,
    "percent twice": lambda s: quote(_percent_encoded(s), safe=""),
    "upper": lambda s: quote(s.upper(), safe=""),
}
_SOURCE = "/aggregator/v1/source"
_ENDPOINTS = "/api/v1/webhook-endpoints"
SECRET_BY_POSITION: dict[str, Send] = {
    "vendor header": lambda c, s: c.write(
        "PUT", _SOURCE, f'{{"url": "https://vendor.example/v1", "headers": {{"X-Key": "{s}"}}}}'
    ),
    "vendor header, refused": lambda c, s: c.write(
        "PUT", _SOURCE, f'{{"url": 1, "headers": {{"Authorization": "Bearer {s}"}}}}'
    ),
    "vendor header, not JSON": lambda c, s: c.write("PUT", _SOURCE, f'{{"url": null, "headers": {{"Api-Key": "{s}'),
    "vendor header, elsewhere": lambda c, s: c.write("PUT", _SOURCE, f'{{"url": null, "header": {{"Api-Key": ["{s}"]}}}}'),
    "vendor header, after long values": lambda c, s: c.write(
        "PUT", _SOURCE, f'{{"url": null, "headers": {{"X-A": "{"a" * 900}", "X-B": "{"b" * 3000}", "X-C": "{s}"}}}}'
    ),
    "vendor user info": lambda c, s: c.write("PUT", _SOURCE, f'{{"url": "https://u:{s}@vendor.example/v1"}}'),
    "vendor query": lambda c, s: c.write("PUT", _SOURCE, f'{{"url": "https://vendor.example/v1?key={s}"}}'),
    "endpoint user info": lambda c, s: c.write("POST", _ENDPOINTS, f'{{"url": "https://user:{s}@example.com/hook"}}'),
    "endpoint query": lambda c, s: c.write("POST", _ENDPOINTS, f'{{"url": "{c.receiver.url}?token={s}"}}'),
    "endpoint secret, an unknown field": lambda c, s: c.write(
        "POST", _ENDPOINTS, f'{{"url": "https://example.com/", "secret": "{s}"}}'
    ),
    "wrong content type": lambda c, s: c.raw("PUT", _SOURCE, {"Content-Type": f"text/{PREFIXES[0]}{s[-32:]}"}, b"x" * 9),
}
"""Positions whose values are always secret, whatever they look like. The value is encoded as in JSON."""
IN_HEADERS = (
    "Authorization",
    "Cookie",
    "X-Admin-Key",
    "Proxy-Authorization",
    "X-Vendor-Token",
    "X-Signature",
    "Webhook-Signature",
)
IN_ALLOWED_HEADERS = ("X-Request-Id", "User-Agent", "X-Idempotency-Key", "Traceparent", "X-Sandbox-Scenario", "Accept-Language")
SECRET_BY_PREFIX: dict[str, Send] = {
    "path": lambda c, s: c.raw("GET", f"/api/v1/payouts/{s}"),
    "path of an action": lambda c, s: c.raw("POST", f"/api/v1/payouts/{s}/cancel"),
    "path, unknown": lambda c, s: c.raw("GET", f"/api/v1/{s}/nothing"),
    "path, wrong method": lambda c, s: c.raw("DELETE", f"/api/v1/payouts/{s}"),
    "path of a vendor's user": lambda c, s: c.raw("GET", f"/aggregator/v1/users/{s}"),
    "path, unauthenticated": lambda c, s: c.raw("GET", f"/api/v1/payouts/{s}", {"X-API-KEY": "sk_sandbox_nobody"}),
    "query": lambda c, s: c.raw("GET", f"/api/v1/payouts?api_key={s}"),
    "query of a filter": lambda c, s: c.raw("GET", f"/api/v1/payouts?merchant_reference={s}"),
    "query parameter name": lambda c, s: c.raw("GET", f"/api/v1/payouts?{s}=1&{s}"),
    "cursor": lambda c, s: c.raw("GET", f"/api/v1/events?cursor={s}"),
}
"""Positions where a client can put a key or secret by mistake. The value is encoded as in a URL."""


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, str, str, str]:
    """Draw (kind of position, position, encoding, prefix of the secret)."""
    kind = draw(st.sampled_from(["secret field", "by prefix", "header", "allowed header", "payout field"]))
    positions, encodings = {
        "secret field": (sorted(SECRET_BY_POSITION), sorted(IN_JSON)),
        "by prefix": (sorted(SECRET_BY_PREFIX), sorted(IN_URL)),
        "header": (IN_HEADERS, ["plain", "upper", "percent"]),
        "allowed header": (IN_ALLOWED_HEADERS, ["plain", "upper", "percent"]),
        "payout field": (["merchant_reference", "account_title", "typo", "amount"], sorted(IN_JSON)),
    }[kind]
    # Elsewhere only the prefix identifies a secret.
    prefixes = ["", *PREFIXES] if kind in ("secret field", "header") else PREFIXES
    return kind, draw(st.sampled_from(positions)), draw(st.sampled_from(encodings)), draw(st.sampled_from(prefixes))


def plant(client: RawClient, kind: str, position: str, encoding: str, prefix: str, body: str) -> httpx.Response:
    """Send a request with a secret at the position."""
    secret = prefix + body
    if kind == "secret field":
        return SECRET_BY_POSITION[position](client, IN_JSON[encoding](secret))
    if kind == "by prefix":
        return SECRET_BY_PREFIX[position](client, IN_URL[encoding](secret))
    if kind in ("header", "allowed header"):
        return client.raw("GET", "/api/v1/balance", {position: IN_JSON[encoding](secret)})
    payout = client.world.payout_body("0004") | {position: "SECRET", "account_number": "1"}
    return client.write("POST", "/api/v1/payouts", json.dumps(payout).replace("SECRET", IN_JSON[encoding](secret)))


def decodings(text: str) -> Iterator[str]:
    """Yield the text as every decoder would read it, in lower case."""
    for _ in range(6):
        yield text.lower()
        unescaped = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda escape: chr(int(escape[1], 16)), text)
        yield unescaped.lower()
        if unquote(unescaped) == text:
            return
        text = unquote(unescaped)


def leaks(source: str, text: str, bodies: list[str]) -> list[str]:
    """Return the parts of the secrets that can be read in the text, each with the text's source."""
    hexadecimal = [body for body in bodies if re.fullmatch("[0-9a-f]+", body)]
    others = [body for body in bodies if body not in hexadecimal]
    found = _shared(text, others, LEAK_LENGTH) | _shared(text, hexadecimal, HEXADECIMAL_LEAK_LENGTH)
    return [f"{source}: {piece}" for piece in found]


def _shared(text: str, bodies: list[str], length: int) -> set[str]:
    """Return the texts of this length that are in the text, however it is decoded, and in one of the bodies."""
    pieces = {piece for body in bodies for piece in _pieces(body.lower(), length)}
    if not pieces:
        return set()
    # Searching for each piece would read megabytes of logs thousands of times.
    alphabet = re.escape("".join(sorted(set("".join(pieces)))))
    long_enough = re.compile(f"[{alphabet}]{{{length},}}")
    runs = {run for decoded in decodings(text) for run in long_enough.findall(decoded)}
    return {piece for run in runs for piece in _pieces(run, length)} & pieces


def _pieces(text: str, length: int) -> Iterator[str]:
    return (text[at : at + length] for at in range(len(text) - length + 1))


class Watcher:
    """Records the lines of a merchant's event stream."""

    def __init__(self, world: World, api_key: str) -> None:
        self.lines: list[str] = []
        self._client = httpx.Client(
            base_url=world.stack.api_url, headers={"X-API-KEY": api_key}, timeout=httpx.Timeout(60, read=None)
        )
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        assert self._connected.wait(60)

    def _watch(self) -> None:
        try:
            with self._client.stream("GET", "/sandbox/v1/stream", headers={"Accept": "text/event-stream"}) as response:
                for line in response.iter_lines():
                    self._connected.set()
                    self.lines.append(line)
        except (httpx.HTTPError, RuntimeError):
            return  # closed

    def close(self) -> None:
        self._client.close()


def log_folder(stack: Stack) -> Path:
    """Return the folder of the running sandbox's log files."""
    return Path(parse_qs(urlsplit(stack.database_url).query)["host"][0]).parent.parent / "logs"


def collect_output(world: World, member_key: str, watcher: Watcher) -> dict[str, str]:
    """Return all that can be read afterwards, by source: stream, API, logs, commands and the journal in Redis."""
    found = {"stream": "\n".join(watcher.lines)}
    with httpx.Client(base_url=world.stack.api_url, headers={"X-API-KEY": member_key}, timeout=60) as member:
        for path in (
            "/sandbox/v1/requests", "/api/v1/events", "/api/v1/webhook-deliveries", "/api/v1/payouts", "/sandbox/v1/snapshots",
            "/aggregator/v1/source", "/aggregator/v1/fetches", "/aggregator/v1/dead-letters", "/metrics", "/health/ready",
            "/sandbox/v1/keys", "/sandbox/v1/settings", "/sandbox/v1/audit", "/sandbox/v1/world",
        ):  # fmt: skip
            pages, cursor = [], None
            while True:
                page = member.get(path, params={"limit": 100, "cursor": cursor} if cursor else None)
                pages.append(page.text)
                cursor = page.json().get("next_cursor") if "json" in page.headers["content-type"] else None
                if not cursor:
                    break
            found[path] = "\n".join(pages)
        for delivery in member.get("/api/v1/webhook-deliveries", params={"limit": 100}).json()["data"]:
            found[f"delivery {delivery['id']}"] = member.get(f"/api/v1/webhook-deliveries/{delivery['id']}").text
    for log in log_folder(world.stack).glob("*.log"):
        found[log.name] = log.read_text("utf-8", "replace")
    for arguments in (["events", "list"], ["aggregator", "source"], ["aggregator", "fetches"], ["settings", "show"]):
        result = CliRunner().invoke(
            create_app(), [*arguments, "--json", "--url", world.stack.api_url, "--api-key", world.api_key]
        )
        found[f"psp {' '.join(arguments)}"] = result.output
    store = redis.Redis.from_url(world.stack.redis_url)
    found["redis journal"] = "\n".join(
        value.decode("utf-8", "replace") for value in store.lrange(f"psp:journal:{world.merchant_id}", 0, -1)
    )
    store.close()
    return found


TABLES = ("merchants", "api_keys", "idempotency_keys", "operator_keys", "vendor_cursors", "snapshot_rows", "events", "faults")


def test_a_secret_that_was_sent_cannot_be_read_anywhere(stack: Stack, receiver: Receiver) -> None:
    """Check the journal, stream, logs, problems, metrics, events, deliveries, snapshots, tables and command output."""
    with World.create(stack, opening_balance="1000.00") as world:
        member = world.client.post("/sandbox/v1/keys", json={"role": "member"}).json()["api_key"]
        client, watcher = RawClient(world, receiver), Watcher(world, member)
        bodies: dict[str, tuple[str, str, str, str]] = {}
        problems: list[str] = []

        @settings(max_examples=60, suppress_health_check=list(HealthCheck), database=None)
        @given(planted())
        def send(planted_at: tuple[str, str, str, str]) -> None:
            # Without hexadecimal digits, so that the remains of an escape sequence cannot look like part of the secret.
            body = "".join("ghijklmnopqrstuvwxyz"[int(digit, 16)] for digit in uuid.uuid4().hex)
            bodies[body] = planted_at
            response = plant(client, *planted_at, body)
            assert response.status_code < 500, (planted_at, response.text)
            if response.status_code >= 400:
                problems.append(f"{planted_at}: {response.text} {response.headers.get('x-request-id')}")

        try:
            send()
            # Also cover a vendor's key in a snapshot, a delivery to a URL with a token, and keys in stored responses.
            world.post("/aggregator/v1/source")
            assert world.post("/sandbox/v1/snapshots").status_code == 201
            world.create_payout("0001")
            until(lambda: not world.get("/api/v1/webhook-deliveries", status="PENDING", limit=1).json()["data"])
            last = world.get("/api/v1/balance", headers_are_journaled="1").headers["x-request-id"]
            until(lambda: world.get("/sandbox/v1/requests", request_id=last).json()["data"])
            until(lambda: any(last in line for line in watcher.lines))
            found = collect_output(world, member, watcher) | {"problems": "\n".join(problems)}
        finally:
            watcher.close()
        leaked = {source for source, text in found.items() if leaks(source, text, list(bodies))}
        assert not leaked, [
            (source, bodies[body], leaks(source, found[source], [body])[:1])
            for source in leaked
            for body in bodies
            if leaks(source, found[source], [body])
        ][:10]
        always_hidden = [
            body
            for body, (kind, position, *_) in bodies.items()
            if kind in ("secret field", "header") and "query" not in position
        ]
        for table in TABLES:
            rows = stack.execute(f"SELECT t::text AS row FROM {table} t")
            assert not leaks(table, "\n".join(row["row"] for row in rows), always_hidden), table
        assert "[redacted]" in found["/sandbox/v1/requests"]


def test_new_keys_and_secrets_are_shown_only_in_the_response_that_creates_them(stack: Stack, receiver: Receiver) -> None:
    """They appear nowhere else, and no table stores them unencrypted."""
    name = f"new {uuid.uuid4()}"
    response = httpx.post(
        f"{stack.api_url}/sandbox/v1/merchants",
        json={"name": name, "webhook_url": receiver.url},
        headers={"X-ADMIN-KEY": stack.admin_key, "X-IDEMPOTENCY-KEY": name},
        timeout=60,
    )
    created = response.json()
    with World(stack, created) as world:
        member = world.post("/sandbox/v1/keys", {"role": "member"}, key="member").json()["api_key"]
        watcher = Watcher(world, member)
        secrets = [created["api_key"], created["webhook_secret"], created["ipn_secret"], member]
        secrets.append(world.post(_ENDPOINTS, {"url": receiver.url}, key="second").json()["secret"])
        world.post(_ENDPOINTS, {"url": receiver.url}, key="second")
        world.post("/sandbox/v1/keys", {"role": "member"}, key="member")
        bearer = httpx.get(f"{stack.api_url}/api/v1/balance", headers={"Authorization": f"Bearer {member}"}, timeout=60)
        assert bearer.status_code == 200
        world.post("/sandbox/v1/snapshots")
        try:
            until(lambda: len(world.get("/sandbox/v1/requests", limit=100).json()["data"]) >= 6)
            found = collect_output(world, member, watcher)
        finally:
            watcher.close()
        bodies = [secret.rpartition("_")[2] for secret in secrets]
        assert [leak for source, text in found.items() for leak in leaks(source, text, bodies)] == []
        for table in (*TABLES, "webhook_endpoints"):
            rows = stack.execute(f"SELECT t::text AS row FROM {table} t")
            raw = [value for row in rows for value in row.values()]
            assert leaks(table, "\n".join(raw), bodies) == []


@pytest.mark.parametrize("path", ["/api/v1/payouts/sk_sandbox_{}", "/nothing/whsec_{}/more"])
def test_the_ipn_server_logs_no_secret(stack: Stack, path: str) -> None:
    body = "".join("ghijklmnopqrstuvwxyz"[int(digit, 16)] for digit in uuid.uuid4().hex)
    request_id = f"ipn-{uuid.uuid4()}"
    response = httpx.get(stack.ipn_url + path.format(body), headers={"X-Request-Id": request_id}, timeout=60)
    assert response.status_code in (404, 405)
    assert body not in response.text

    def logged() -> str:
        return "\n".join(log.read_text("utf-8", "replace") for log in log_folder(stack).glob("*.log"))

    until(lambda: request_id in logged())
    assert body not in logged()
