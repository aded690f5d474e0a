"""The journal records every request of a merchant, newest first and without secrets, and never affects a request."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from sandbox.domain.errors import CODES, Problem
from sandbox.domain.ids import MAX_ID
from sandbox.domain.redaction import ANY, CUT, TEXT_LIMIT
from sandbox.http.journal.journal import BODY_LIMIT, ENTRIES_KEPT, HEADERS_LIMIT, Entry, Journal, JournalEntry, RedactionRules
from sandbox.infrastructure.live_feed import Note
from sandbox.infrastructure.redis_client import connect
from tests.harness.own_journal import OwnJournal
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

JOURNAL = "/sandbox/v1/requests"
RULES = RedactionRules(request=ANY, responses={200: ANY})


def journal(world: World, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.client.get(JOURNAL, params=params).json()["data"]
    return found


def test_a_request_is_recorded_with_its_response(world: World) -> None:
    body, key = world.payout_body("0004"), "journal-key"
    responses = [world.post("/api/v1/payouts", body, key=key, headers={"X-Request-Id": "mine"}) for _ in range(2)]
    found = until(lambda: (f := journal(world, request_id="mine")) and len(f) == 2 and f)
    assert [entry["replayed"] for entry in found] == [True, False]
    entry = found[-1]
    assert (entry["method"], entry["path"], entry["status"]) == ("POST", "/api/v1/payouts", 201)
    assert (entry["idempotency_key"], entry["response_body"]) == (key, responses[0].text)
    assert body["merchant_reference"] in entry["request_body"]
    assert entry["request_headers"]["content-type"] == "application/json"
    assert entry["api_key_id"] in [k["id"] for k in world.get("/sandbox/v1/keys").json()["data"]]
    assert world.get(f"{JOURNAL}/{entry['id']}").json() == entry


def test_the_journal_can_be_filtered_and_paged_newest_first(world: World) -> None:
    references = [world.create_payout("0004")["merchant_reference"] for _ in range(5)]
    world.get("/api/v1/balance", nonsense="1")
    until(lambda: len(journal(world, path="/api/v1/*")) == 6)
    assert [entry["status"] for entry in journal(world, status=400)] == [400]
    assert journal(world, path="/api/v1/balance")[0]["query"] == "nonsense=[redacted]"
    posted = journal(world, method="POST", path="/api/v1/payouts")
    assert [reference in entry["request_body"] for reference, entry in zip(reversed(references), posted, strict=True)] == [
        True
    ] * 5
    assert [references[2] in entry["request_body"] for entry in journal(world, q=references[2])] == [True]
    seen, cursor = [], None
    while True:
        params = {"method": "POST", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = world.client.get(JOURNAL, params=params).json()
        seen += [entry["id"] for entry in page["data"]]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    assert seen == [entry["id"] for entry in posted]


def test_refused_calls_are_grouped_with_advice_and_each_group_can_be_listed(world: World) -> None:
    for payout_id in (uuid.uuid4(), uuid.uuid4()):
        world.get(f"/api/v1/payouts/{payout_id}")
        world.get(f"/api/v1/payouts/{payout_id}/timeline")
    world.post("/api/v1/payouts", world.payout_body("0001", amount="NOT_FOUND"))
    world.create_payout("0004")
    for fault in ({"kind": "latency", "milliseconds": 1}, {"kind": "error", "status": 503}):
        world.post("/sandbox/v1/faults", {"target": "api", "count": 1, "match": {"method": "GET"}, **fault})
        world.get(f"/api/v1/payouts/{uuid.uuid4()}")
    until(lambda: len(journal(world, path="/api/v1/*")) == 8)
    groups = world.get("/sandbox/v1/requests/refused").json()["data"]
    assert {(group["code"], group["method"], group["path"], group["fault_kind"], group["count"]) for group in groups} == {
        ("NOT_FOUND", "GET", "/api/v1/payouts/{id}", None, 3),  # a delay refuses nothing: one of the three was late
        ("NOT_FOUND", "GET", "/api/v1/payouts/{id}/timeline", None, 2),
        ("VALIDATION_ERROR", "POST", "/api/v1/payouts", None, 1),
        (None, "GET", "/api/v1/payouts/{id}", "error", 1),
    }
    for group in (group for group in groups if group["fault_kind"] is None):
        assert group["advice"] == CODES[group["code"]].resolution
        listed = journal(world, **{name: group[name] for name in ("method", "path", "code")})
        assert (len(listed), listed[0]["id"]) == (group["count"], group["last_id"])


def test_the_journal_contains_no_secrets(world: World, receiver: Receiver) -> None:
    secret = world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).json()["secret"]
    new_key = world.post("/sandbox/v1/keys", {"role": "member"}).json()["api_key"]
    world.client.get(f"/api/v1/balance?key={new_key}", headers={"Authorization": "Basic hush", "X-Other": secret})
    world.client.get("/api/v1/balance", params={"key": "whsec_A+/" + "B" * 40})  # the client percent-encodes it
    found = until(lambda: len(f := journal(world)) == 4 and f)
    text = str(found)
    for hidden in (secret, secret.removeprefix("whsec_"), "BBBB", new_key, world.api_key, "hush"):
        assert hidden not in text
    assert "[redacted]" in text
    assert found[-1]["request_headers"]["x-api-key"] == "[redacted]"


def test_the_journal_is_the_merchants_own_and_omits_unauthenticated_requests(world: World) -> None:
    world.create_payout("0004")
    (entry,) = until(lambda: journal(world, path="/api/v1/payouts"))
    httpx.get(f"{world.stack.api_url}/api/v1/balance", headers={"X-API-KEY": "sk_sandbox_nobody"}, timeout=60)
    httpx.get(f"{world.stack.api_url}/health", timeout=60)
    with World.create(world.stack) as other:
        assert other.get(f"{JOURNAL}/{entry['id']}").json()["code"] == "NOT_FOUND"
        assert journal(other, path="/api/v1/*") == []
    assert world.get(f"{JOURNAL}/nonsense").json()["code"] == "NOT_FOUND"
    assert [e["path"] for e in journal(world)] == ["/api/v1/payouts"]


def test_the_journal_names_the_fault_that_hit_a_request(world: World, receiver: Receiver) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.created"]})
    faults = [
        world.post("/sandbox/v1/faults", {"target": target, "kind": kind, "seed": 5, "count": 1, **fields}).json()
        for target, kind, fields in (
            ("api", "error", {"status": 500, "match": {"path": "/api/v1/balance"}}), ("webhooks", "wrong_key", {}),
        )
    ]  # fmt: skip
    until(lambda: world.get("/api/v1/balance").status_code == 500)
    # For half a second, a worker may use its cached result that there is no fault.
    path = f"/sandbox/v1/faults/{faults[1]['id']}"
    until(lambda: world.create_payout("0004") and world.get(path).json()["hits"] == 1, pause=0.2)
    for number, path in enumerate(("/api/v1/balance", receiver.url)):
        (entry,) = until(lambda path=path: [e for e in journal(world, path=path) if e["fault"]])
        fault = entry["fault"]
        assert (fault["id"], fault["kind"], fault["seed"]) == (faults[number]["id"], faults[number]["kind"], 5)
        assert fault["counter"] == 1
        assert journal(world, fault_id=fault["id"]) == [entry]


# Limits. These tests use a separate `Journal`.


def entry(number: int, **fields: Any) -> Entry:
    return Entry(
        **{
            "at": "2026-01-31T12:00:00.000Z", "method": "GET", "path": f"/api/v1/{number}", "query": b"", "status": 200,
            "duration_ms": 1.0, "request_id": str(number), "api_key_id": None, "replayed": False, "headers": [],
            "request_body": b"", "response_body": b"", "fault": None, **fields,
        }
    )  # fmt: skip


@pytest.fixture
async def own_journal(world: World) -> AsyncIterator[Journal]:
    """Yield a journal that this process writes."""
    journal = OwnJournal(world.stack.redis_url)
    journal.start()
    yield journal
    await journal.close()


async def all_of(journal: Journal, merchant_id: str) -> list[JournalEntry]:
    return await journal.page(merchant_id, MAX_ID, 10 * ENTRIES_KEPT, lambda _: True)


async def wait_until_written(journal: Journal, merchant_id: str, request_id: str) -> list[JournalEntry]:
    """Wait until the newest entry has this request id, and return all entries."""
    while True:
        found = await all_of(journal, merchant_id)
        if found and found[0].request_id == request_id:
            return found
        await asyncio.sleep(0.02)


async def test_the_journal_is_bounded_in_redis_and_memory_and_drops_the_oldest_entries(world: World) -> None:
    journal = OwnJournal(world.stack.redis_url)
    try:
        # Record more entries than the queue holds before any of them is written. The newest are kept.
        for number in range(3 * ENTRIES_KEPT):
            journal.record(world.merchant_id, entry(number), RULES)
        journal.start()
        found = await asyncio.wait_for(wait_until_written(journal, world.merchant_id, str(3 * ENTRIES_KEPT - 1)), 60)
        assert [int(e.request_id) for e in found] == list(range(3 * ENTRIES_KEPT - 1, 2 * ENTRIES_KEPT - 1, -1))
        for number in range(3 * ENTRIES_KEPT, 4 * ENTRIES_KEPT):
            journal.record(world.merchant_id, entry(number), RULES)
        found = await asyncio.wait_for(wait_until_written(journal, world.merchant_id, str(4 * ENTRIES_KEPT - 1)), 60)
        assert len(found) == ENTRIES_KEPT
    finally:
        await journal.close()


async def test_bodies_are_cut_and_a_secret_at_the_cut_is_hidden(world: World, own_journal: Journal) -> None:
    secret = b"whsec_" + b"A" * 40
    body = b'["' + b"x" * (BODY_LIMIT - 40) + b'", "' + secret + b'", "' + b"y" * 5000 + b'"]'
    recorded = entry(1, request_body=body, response_body=b'{"secret": "hush \\" hush", "a": 1}')
    own_journal.record(world.merchant_id, recorded, RULES)
    (found,) = await asyncio.wait_for(wait_until_written(own_journal, world.merchant_id, "1"), 60)
    assert BODY_LIMIT - 40 < len(found.request_body) <= BODY_LIMIT
    assert "A" not in found.request_body
    assert found.response_body == '{"secret": "[redacted]", "a": 1}'


async def test_long_paths_queries_and_headers_are_cut_and_marked(world: World) -> None:
    notes: list[Note] = []
    journal = OwnJournal(world.stack.redis_url, lambda _, new_notes: notes.extend(new_notes))
    journal.start()
    try:
        # The text has a secret at the cut, followed by two-byte characters.
        text = "x" * (TEXT_LIMIT - 30) + "sk_sandbox_" + "A" * 48 + "ü" * 100_000
        raw = text.encode()
        recorded = entry(1, path=text, query=b"q=" + raw, headers=[(b"user-agent", raw), (b"accept", b"*/*")])
        journal.record(world.merchant_id, recorded, RedactionRules(parameters=frozenset({"q"})))
        (found,) = await asyncio.wait_for(wait_until_written(journal, world.merchant_id, "1"), 60)
        # A value that contains a secret is hidden completely, because the rest could be part of the secret.
        for shown in (found.path, found.query, found.request_headers["user-agent"], notes[0].data["path"]):
            assert len(shown) <= TEXT_LIMIT + len(CUT)
            assert shown.endswith("[redacted]" + CUT) or shown == "[redacted]"
            assert "A" not in shown
        assert found.request_headers["accept"] == "*/*"
    finally:
        await journal.close()


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-%d" % number, b"v" * 5000) for number in range(100)],
        [(b"x-%d" % number + b"n" * 5000, b"v") for number in range(100)],
        [(b"x-%d" % number, b"v") for number in range(5000)],
        [(b"x-%d" % number, b"whsk_ " * 1000) for number in range(100)],
    ],
)
async def test_the_size_of_an_entry_is_limited_whatever_the_headers(world: World, headers: list[tuple[bytes, bytes]]) -> None:
    journal = OwnJournal(world.stack.redis_url)
    journal.start()
    redis = connect(world.stack.redis_url)
    try:
        large = b"b" * 100_000
        fields = {"query": large, "path": large.decode(), "request_body": large, "response_body": large}
        journal.record(world.merchant_id, entry(1, headers=headers, **fields), RULES)
        (found,) = await asyncio.wait_for(wait_until_written(journal, world.merchant_id, "1"), 60)
        shown = dict(found.request_headers)
        left_out = shown.pop(CUT, "0 more")
        assert left_out == f"{len(headers) - len(shown)} more"
        assert len(shown) <= 100
        (value,) = await redis.lrange(f"psp:journal:{world.merchant_id}", 0, -1)  # type: ignore[misc]  # typed for sync and async
        assert len(value) < HEADERS_LIMIT + 2 * BODY_LIMIT + 2 * TEXT_LIMIT + 1000
    finally:
        await redis.aclose()
        await journal.close()


@pytest.mark.parametrize(
    "name", ["secret", "clientSecret", "client-secret", "CLIENT_SECRET", "api_key", "api-key", "apiKey", "x-api-key", "APIKEY"]
)
async def test_a_secret_is_recognized_by_its_name_in_any_spelling(world: World, own_journal: Journal, name: str) -> None:
    body = f'{{"a": "b", "{name}" : "hush", "{name}_id": "shown"}}'.encode()
    header = name.lower().encode()
    recorded = entry(1, request_body=body, response_body=body, headers=[(header, b"hush")])
    own_journal.record(world.merchant_id, recorded, RULES)
    (found,) = await asyncio.wait_for(wait_until_written(own_journal, world.merchant_id, "1"), 60)
    assert found.request_body == f'{{"a": "b", "{name}" : "[redacted]", "{name}_id": "shown"}}'
    assert found.response_body == found.request_body
    assert found.request_headers == {header.decode(): "[redacted]"}


def test_a_request_with_large_headers_is_served_and_recorded_briefly(world: World) -> None:
    accept = {"accept": "text/event-stream"}
    with world.client.stream("GET", "/sandbox/v1/stream", params={"limit": 1, "timeout": 60}, headers=accept) as response:
        lines = response.iter_lines()
        assert next(lines) == ": listening"
        path = "/api/v1/payouts/" + "p" * 10_000
        assert world.client.get(path, params={"q": "q" * 10_000}, headers={"X-Large": "h" * 40_000}).status_code in (400, 404)
        (message,) = [line for line in lines if line.startswith("data: ")]
    assert len(message) < 2 * TEXT_LIMIT
    (found,) = until(lambda: journal(world))
    assert len(str(found)) < 10_000
    assert found["request_headers"]["x-large"] == "[redacted]"
    assert (found["path"][-len(CUT) :], found["query"]) == (CUT, "q=[redacted]" + CUT)


async def test_without_redis_reading_the_journal_gets_503_and_recording_has_no_effect() -> None:
    journal = OwnJournal("redis://127.0.0.1:1")
    journal.start()
    try:
        journal.record("m", entry(1), RULES)
        with pytest.raises(Problem, match="UNAVAILABLE"):
            await journal.page("m", MAX_ID, 1, lambda _: True)
    finally:
        await journal.close()
