"""Whatever secret is sent, wherever and however it is written, nobody can read it afterwards."""

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

PIECE = 8
"""So many characters of a secret in a row are too many."""
KEYS = ("sk_sandbox_", "ak_sandbox_", "whsec_", "whsk_")
Send = Callable[["Call", str], httpx.Response]


class Call:
    """A merchant, and how to ask its sandbox for anything at all."""

    def __init__(self, world: World, receiver: Receiver) -> None:
        self.world = world
        self.receiver = receiver

    def raw(self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> httpx.Response:
        """A request whose target and body go out as they are."""
        url = httpx.URL(self.world.stack.api_url).copy_with(raw_path=target.encode("ascii"))
        named = {"X-API-KEY": self.world.api_key, "X-IDEMPOTENCY-KEY": str(uuid.uuid4())}
        if body is not None:
            named["Content-Type"] = "application/json"
        return httpx.request(method, url, headers=named | (headers or {}), content=body, timeout=60)

    def write(self, method: str, target: str, text: str) -> httpx.Response:
        """A request with a JSON body that is written out as it is."""
        return self.raw(method, target, body=text.encode())


def _escaped(secret: str) -> str:
    return "".join(f"\\u{ord(c):04x}" for c in secret)


def _percent(secret: str) -> str:
    return "".join(f"%{ord(c):02X}" for c in secret)


IN_JSON: dict[str, Callable[[str], str]] = {
    "plain": lambda s: s,
    "escaped": _escaped,
    "half escaped": lambda s: _escaped(s[: len(s) // 2]) + s[len(s) // 2 :],
    "upper": str.upper,
    "percent": _percent,
}
IN_URL: dict[str, Callable[[str], str]] = {
    "plain": lambda s: quote(s, safe=""),
    "percent": _percent,
    "twice": lambda s: quote(_percent(s), safe=""),
    "upper": lambda s: quote(s.upper(), safe=""),
}
_SOURCE = "/aggregator/v1/source"
_ENDPOINTS = "/api/v1/webhook-endpoints"
BY_PLACE: dict[str, Send] = {
    "vendor header": lambda c, s: c.write(
        "PUT", _SOURCE, f'{{"url": "https://vendor.example/v1", "headers": {{"X-Key": "{s}"}}}}'
    ),
    "vendor header, refused": lambda c, s: c.write(
        "PUT", _SOURCE, f'{{"url": 1, "headers": {{"Authorization": "Bearer {s}"}}}}'
    ),
    "vendor header, not JSON": lambda c, s: c.write("PUT", _SOURCE, f'{{"url": null, "headers": {{"Api-Key": "{s}'),
    "vendor header, elsewhere": lambda c, s: c.write("PUT", _SOURCE, f'{{"url": null, "header": {{"Api-Key": ["{s}"]}}}}'),
    "vendor header, behind much": lambda c, s: c.write(
        "PUT", _SOURCE, f'{{"url": null, "headers": {{"X-A": "{"a" * 900}", "X-B": "{"b" * 3000}", "X-C": "{s}"}}}}'
    ),
    "vendor user info": lambda c, s: c.write("PUT", _SOURCE, f'{{"url": "https://u:{s}@vendor.example/v1"}}'),
    "vendor query": lambda c, s: c.write("PUT", _SOURCE, f'{{"url": "https://vendor.example/v1?key={s}"}}'),
    "endpoint user info": lambda c, s: c.write("POST", _ENDPOINTS, f'{{"url": "https://user:{s}@example.com/hook"}}'),
    "endpoint query": lambda c, s: c.write("POST", _ENDPOINTS, f'{{"url": "{c.receiver.url}?token={s}"}}'),
    "endpoint secret, which none takes": lambda c, s: c.write(
        "POST", _ENDPOINTS, f'{{"url": "https://example.com/", "secret": "{s}"}}'
    ),
    "wrong content type": lambda c, s: c.raw("PUT", _SOURCE, {"Content-Type": f"text/{KEYS[0]}{s[-32:]}"}, b"x" * 9),
}
"""Places whose values are secret whatever they look like; the value is spelled as in JSON."""
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
BY_LOOKS: dict[str, Send] = {
    "path": lambda c, s: c.raw("GET", f"/api/v1/payouts/{s}"),
    "path of an action": lambda c, s: c.raw("POST", f"/api/v1/payouts/{s}/cancel"),
    "path of nothing": lambda c, s: c.raw("GET", f"/api/v1/{s}/nothing"),
    "path, with a wrong method": lambda c, s: c.raw("DELETE", f"/api/v1/payouts/{s}"),
    "path of a user of a vendor": lambda c, s: c.raw("GET", f"/aggregator/v1/users/{s}"),
    "path, unauthenticated": lambda c, s: c.raw("GET", f"/api/v1/payouts/{s}", {"X-API-KEY": "sk_sandbox_nobody"}),
    "query": lambda c, s: c.raw("GET", f"/api/v1/payouts?api_key={s}"),
    "query of a filter": lambda c, s: c.raw("GET", f"/api/v1/payouts?merchant_reference={s}"),
    "query's name": lambda c, s: c.raw("GET", f"/api/v1/payouts?{s}=1&{s}"),
    "cursor": lambda c, s: c.raw("GET", f"/api/v1/events?cursor={s}"),
}
"""Places where a key or a secret of the sandbox may be put by mistake; the value is spelled as in a URL."""


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, str, str, str]:
    """(kind of place, place, spelling, what the secret begins with)."""
    kind = draw(st.sampled_from(["place", "looks", "header", "allowed header", "member"]))
    places, spelled = {
        "place": (sorted(BY_PLACE), sorted(IN_JSON)),
        "looks": (sorted(BY_LOOKS), sorted(IN_URL)),
        "header": (IN_HEADERS, ["plain", "upper", "percent"]),
        "allowed header": (IN_ALLOWED_HEADERS, ["plain", "upper", "percent"]),
        "member": (["merchant_reference", "account_title", "typo", "amount"], sorted(IN_JSON)),
    }[kind]
    # Where the place does not tell that it is a secret, only how it begins can.
    beginnings = ["", *KEYS] if kind in ("place", "header") else KEYS
    return kind, draw(st.sampled_from(places)), draw(st.sampled_from(spelled)), draw(st.sampled_from(beginnings))


def plant(call: Call, kind: str, place: str, spelling: str, beginning: str, body: str) -> httpx.Response:
    """Send a secret."""
    secret = beginning + body
    if kind == "place":
        return BY_PLACE[place](call, IN_JSON[spelling](secret))
    if kind == "looks":
        return BY_LOOKS[place](call, IN_URL[spelling](secret))
    if kind in ("header", "allowed header"):
        return call.raw("GET", "/api/v1/balance", {place: IN_JSON[spelling](secret)})
    payout = call.world.payout_body("0004") | {place: "HIDE", "account_number": "1"}
    return call.write("POST", "/api/v1/payouts", json.dumps(payout).replace("HIDE", IN_JSON[spelling](secret)))


def spellings(text: str) -> Iterator[str]:
    """A text as everything that decoders would make of it, in lower case."""
    for _ in range(6):
        yield text.lower()
        unescaped = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
        yield unescaped.lower()
        if unquote(unescaped) == text:
            return
        text = unquote(unescaped)


def leaks(where: str, text: str, bodies: list[str]) -> list[str]:
    """Where some of the secrets can be read."""
    pieces = {body[at : at + PIECE].lower() for body in bodies for at in range(len(body) - PIECE + 1)}
    found = [piece for spelled in spellings(text) for piece in pieces if piece in spelled]
    return [f"{where}: {piece}" for piece in set(found)]


class Watcher:
    """Keeps what the stream tells."""

    def __init__(self, world: World, api_key: str) -> None:
        self.lines: list[str] = []
        self._client = httpx.Client(
            base_url=world.stack.api_url, headers={"X-API-KEY": api_key}, timeout=httpx.Timeout(60, read=None)
        )
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        assert self._listening.wait(60)

    def _watch(self) -> None:
        try:
            with self._client.stream("GET", "/sandbox/v1/stream", headers={"Accept": "text/event-stream"}) as answer:
                for line in answer.iter_lines():
                    self._listening.set()
                    self.lines.append(line)
        except (httpx.HTTPError, RuntimeError):
            return  # closed

    def close(self) -> None:
        self._client.close()


def logs_of(stack: Stack) -> Path:
    """Where the processes of the running sandbox write."""
    return Path(parse_qs(urlsplit(stack.database_url).query)["host"][0]).parent.parent / "logs"


def everything(world: World, member_key: str, watcher: Watcher) -> dict[str, str]:
    """What anybody could read of it afterwards, and what rests in the stores."""
    found = {"stream": "\n".join(watcher.lines)}
    with httpx.Client(base_url=world.stack.api_url, headers={"X-API-KEY": member_key}, timeout=60) as member:
        for path in (
            "/sandbox/v1/requests", "/api/v1/events", "/api/v1/webhook-deliveries", "/api/v1/payouts", "/sandbox/v1/snapshots",
            "/aggregator/v1/source", "/aggregator/v1/fetches", "/aggregator/v1/dead-letters", "/metrics", "/health/ready",
            "/sandbox/v1/keys", "/sandbox/v1/settings", "/sandbox/v1/audit",
        ):  # fmt: skip
            pages, cursor = [], None
            while True:
                page = member.get(path, params={"limit": 100, "cursor": cursor} if cursor else {})
                pages.append(page.text)
                cursor = page.json().get("next_cursor") if "json" in page.headers["content-type"] else None
                if not cursor:
                    break
            found[path] = "\n".join(pages)
        for delivery in member.get("/api/v1/webhook-deliveries", params={"limit": 100}).json()["data"]:
            found[f"delivery {delivery['id']}"] = member.get(f"/api/v1/webhook-deliveries/{delivery['id']}").text
    for log in logs_of(world.stack).glob("*.log"):
        found[log.name] = log.read_text("utf-8", "replace")
    for arguments in (["events", "list"], ["aggregator", "source"], ["aggregator", "fetches"], ["settings", "show"]):
        ran = CliRunner().invoke(create_app(), [*arguments, "--json", "--url", world.stack.api_url, "--api-key", world.api_key])
        found[f"psp {' '.join(arguments)}"] = ran.output
    store = redis.Redis.from_url(world.stack.redis_url)
    found["redis journal"] = "\n".join(
        value.decode("utf-8", "replace") for value in store.lrange(f"psp:journal:{world.merchant_id}", 0, -1)
    )
    store.close()
    return found


AT_REST = ("merchants", "api_keys", "idempotency_keys", "operator_keys", "vendor_cursors", "snapshot_rows", "events", "faults")


def test_no_secret_that_is_sent_can_be_read_again(stack: Stack, receiver: Receiver) -> None:
    """In the journal, the stream, logs, problems, metrics, events, deliveries, snapshots and what the commands print."""
    with World.create(stack, opening_balance="1000.00") as world:
        member = world.client.post("/sandbox/v1/keys", json={"role": "member"}).json()["api_key"]
        call, watcher = Call(world, receiver), Watcher(world, member)
        bodies: dict[str, tuple[str, str, str, str]] = {}
        problems: list[str] = []

        @settings(max_examples=60, suppress_health_check=list(HealthCheck), database=None)
        @given(planted())
        def send(what: tuple[str, str, str, str]) -> None:
            # No hexadecimal digits: what decoders leave of an escape must not look like some of it.
            body = "".join("ghijklmnopqrstuvwxyz"[int(digit, 16)] for digit in uuid.uuid4().hex)
            bodies[body] = what
            answer = plant(call, *what, body)
            assert answer.status_code < 500, (what, answer.text)
            if answer.status_code >= 400:
                problems.append(f"{what}: {answer.text} {answer.headers.get('x-request-id')}")

        try:
            send()
            # A vendor's key in a snapshot, a delivery to an address with a token, a merchant's keys stored with their answers.
            world.post("/aggregator/v1/source")
            assert world.post("/sandbox/v1/snapshots").status_code == 201
            world.create_payout("0001")
            until(lambda: not world.get("/api/v1/webhook-deliveries", status="PENDING", limit=1).json()["data"])
            last = world.get("/api/v1/balance", headers_are_journaled="1").headers["x-request-id"]
            until(lambda: world.get("/sandbox/v1/requests", request_id=last).json()["data"])
            until(lambda: any(last in line for line in watcher.lines))
            found = everything(world, member, watcher) | {"problems": "\n".join(problems)}
        finally:
            watcher.close()
        leaked = {where for where, text in found.items() if leaks(where, text, list(bodies))}
        assert not leaked, [
            (place, bodies[body], leaks(place, found[place], [body])[:1])
            for place in leaked
            for body in bodies
            if leaks(place, found[place], [body])
        ][:10]
        kept = [body for body, what in bodies.items() if what[0] in ("place", "header") and "query" not in what[1]]
        for table in AT_REST:
            rows = stack.execute(f"SELECT t::text AS row FROM {table} t")
            assert not leaks(table, "\n".join(row["row"] for row in rows), kept), table
        assert "[redacted]" in found["/sandbox/v1/requests"]


def test_keys_and_secrets_that_are_told_once_are_told_once(stack: Stack, receiver: Receiver) -> None:
    """What answers show of new keys and secrets is nowhere else, and rests nowhere in clear."""
    name = f"told {uuid.uuid4()}"
    answer = httpx.post(
        f"{stack.api_url}/sandbox/v1/merchants",
        json={"name": name, "webhook_url": receiver.url},
        headers={"X-ADMIN-KEY": stack.admin_key, "X-IDEMPOTENCY-KEY": name},
        timeout=60,
    )
    made = answer.json()
    with World(stack, made) as world:
        member = world.post("/sandbox/v1/keys", {"role": "member"}, key="member").json()["api_key"]
        watcher = Watcher(world, member)
        secrets = [made["api_key"], made["webhook_secret"], made["ipn_secret"], member]
        secrets.append(world.post(_ENDPOINTS, {"url": receiver.url}, key="second").json()["secret"])
        world.post(_ENDPOINTS, {"url": receiver.url}, key="second")
        world.post("/sandbox/v1/keys", {"role": "member"}, key="member")
        bearer = httpx.get(f"{stack.api_url}/api/v1/balance", headers={"Authorization": f"Bearer {member}"}, timeout=60)
        assert bearer.status_code == 200
        world.post("/sandbox/v1/snapshots")
        try:
            until(lambda: len(world.get("/sandbox/v1/requests", limit=100).json()["data"]) >= 6)
            found = everything(world, member, watcher)
        finally:
            watcher.close()
        bodies = [secret.rpartition("_")[2] for secret in secrets]
        assert [leak for where, text in found.items() for leak in leaks(where, text, bodies)] == []
        for table in (*AT_REST, "webhook_endpoints"):
            rows = stack.execute(f"SELECT t::text AS row FROM {table} t")
            raw = [value for row in rows for value in row.values()]
            assert leaks(table, "\n".join(raw), bodies) == []


@pytest.mark.parametrize("path", ["/api/v1/payouts/sk_sandbox_{}", "/nothing/whsec_{}/more"])
def test_the_bank_s_app_logs_no_secret_either(stack: Stack, path: str) -> None:
    body = "".join("ghijklmnopqrstuvwxyz"[int(digit, 16)] for digit in uuid.uuid4().hex)
    request_id = f"ipn-{uuid.uuid4()}"
    answer = httpx.get(stack.ipn_url + path.format(body), headers={"X-Request-Id": request_id}, timeout=60)
    assert answer.status_code in (404, 405)
    assert body not in answer.text

    def logged() -> str:
        return "\n".join(log.read_text("utf-8", "replace") for log in logs_of(stack).glob("*.log"))

    until(lambda: request_id in logged())
    assert body not in logged()
