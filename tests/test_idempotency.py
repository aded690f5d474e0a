"""Every writing operation accepts idempotency keys, compares bodies by their JSON values, and stores no readable secrets."""

import asyncio
import hashlib
import json
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.domain.errors import Problem
from sandbox.domain.unit import CommandResult
from sandbox.http.fingerprint import fingerprint
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.unit_of_work.sealed_results import seal, unseal
from tests.harness.work import pooled
from tests.harness.world import Stack, World
from worker.sweep import purge_expired_keys

MERCHANTS = "/sandbox/v1/merchants"
KEYS = "/sandbox/v1/keys"
REPLAYED = "idempotent-replayed"
MORE_THAN_AVAILABLE = {"amount": "2000000.00"}


def send_as_operator(stack: Stack, method: str, path: str, key: str | None, body: Any = None) -> httpx.Response:
    headers = {"X-ADMIN-KEY": stack.admin_key, **({} if key is None else {"X-IDEMPOTENCY-KEY": key})}
    return httpx.request(method, stack.api_url + path, headers=headers, timeout=60, **({} if body is None else {"json": body}))


def status_and_code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


# Bodies are compared as JSON.


def fingerprint_of(body: bytes) -> bytes:
    return fingerprint("POST", "/api/v1/payouts", b"", body)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a": 1, "b": [1, {"c": 2, "d": 3}]}', b'{ "b":[1,{"d":3,"c":2}],\n\t"a":1}'),
        (b'{"a": 1.50}', b'{"a": 1.5}'),
        (b'{"a": 1500}', b'{"a": 1500.00}'),
        (b'{"a": 1500}', b'{"a": 1.5e3}'),
        (b'{"a": 0}', b'{"a": -0.0}'),
        (b'{"a": "\\u0041\\u00fc\\/"}', '{"a": "Aü/"}'.encode()),
        (b'{"\\u0061": null}', b'{"a": null}'),
    ],
)
def test_bodies_with_equal_json_have_the_same_fingerprint(one: bytes, other: bytes) -> None:
    assert fingerprint_of(one) == fingerprint_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a": 1.5}', b'{"a": "1.5"}'),
        (b'{"a": 1}', b'{"a": true}'),
        (b'{"a": null}', b"{}"),
        (b'{"a": [1, 2]}', b'{"a": [2, 1]}'),
        (b'{"a": "x"}', b'{"a": "X"}'),
        (b'{"a": 0.1}', b'{"a": 0.10000000000000000001}'),
        (b'{"a": 999999999999.99}', b'{"a": 999999999999.98}'),
        (b'{"a": "1\\n"}', b'{"a": "1"}'),
        (b'{"a": 1e400}', b'{"a": 1e401}'),
        (b"not json", b"not  json"),
        (b'{"a": 1e99999999999999999999}', b'{"a": 1e99999999999999999998}'),
        (b"[" * 5000, b"[" * 5001),
    ],
)
def test_bodies_with_different_json_have_different_fingerprints(one: bytes, other: bytes) -> None:
    assert fingerprint_of(one) != fingerprint_of(other)


@pytest.mark.parametrize(
    ("query", "body", "hashed"),
    [
        (b"", b'{"b": [1.50, -0.0, 1e3, 15e400, 12345678901234567890], "a": {"t": true, "": null}}',
         b'POST /a?\n{"a":{"":null,"t":true},"b":[15e-1,0,1000,15e400,12345678901234567890]}'),
        (b"", b'{"\\u00fc": "A\\/\\n\\"\\ud83d\\ude00\\u001f"}', 'POST /a?\n{"ü":"A/\\n\\"😀\\u001f"}'.encode()),
        (b"x=1&y=%20", b"[]", b"POST /a?x=1&y=%20\n[]"),
        (b"", b"", b"POST /a?\n{}"),
        (b"", b'{"a": 1', b'POST /a?\n{"a": 1'),
    ],
)  # fmt: skip
def test_fingerprints_never_change(query: bytes, body: bytes, hashed: bytes) -> None:
    """A retry after an upgrade compares with a stored fingerprint. If this test fails, do not change it: change the code."""
    assert fingerprint("POST", "/a", query, body) == hashlib.sha256(hashed).digest()


def test_the_fingerprint_covers_method_path_and_query() -> None:
    body = b"{}"
    found = {
        fingerprint(method, path, query, body) for method in ("POST", "PUT") for path in ("/a", "/b") for query in (b"", b"x=1")
    }
    assert len(found) == 8


_leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(st.characters(exclude_categories=["Cs"]))
_json = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


def _with_sorted_fields(value: Any, reverse: bool) -> Any:
    if isinstance(value, list):
        return [_with_sorted_fields(item, reverse) for item in value]
    if isinstance(value, dict):
        return {name: _with_sorted_fields(value[name], reverse) for name in sorted(value, reverse=reverse)}
    return value


@settings(max_examples=200)
@given(_json, _json)
def test_any_two_bodies_have_the_same_fingerprint_exactly_if_their_json_is_equal(one: Any, other: Any) -> None:
    same = json.dumps(_with_sorted_fields(one, True), indent=3).encode("utf-8", "surrogatepass")
    assert fingerprint_of(json.dumps(_with_sorted_fields(one, False), ensure_ascii=False).encode()) == fingerprint_of(same)
    if json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True):
        assert fingerprint_of(json.dumps(other).encode()) != fingerprint_of(same)


def test_a_repeat_may_be_formatted_differently(world: World) -> None:
    body = world.payout_body("0004", amount=1500, metadata={"a": "ü", "b": "2"})
    first = world.post("/api/v1/payouts", body, key="formatted")
    reordered = dict(reversed(body.items())) | {"amount": 1500.00, "metadata": {"b": "2", "a": "ü"}}
    headers = {"X-IDEMPOTENCY-KEY": "formatted", "Content-Type": "application/json"}
    again = world.client.post("/api/v1/payouts", content=json.dumps(reordered, indent=4), headers=headers)
    assert (again.status_code, again.content, again.headers[REPLAYED]) == (201, first.content, "true")
    assert status_and_code(world.post("/api/v1/payouts", body | {"amount": "1500"}, key="formatted")) == (
        422,
        "IDEMPOTENCY_KEY_REUSED",
    )


# Every writing operation accepts a key.


def test_every_writing_operation_documents_the_key() -> None:
    document = json.loads((Path(__file__).parent.parent / "openapi" / "openapi.json").read_text())
    missing = [
        f"{method} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method != "get" and path.startswith(("/api", "/sandbox", "/aggregator"))
        if not any("idempotency-key" in parameter.get("$ref", "") for parameter in operation.get("parameters", ()))
    ]
    assert missing == []


# test_openapi_examples.py repeats every request that has a body. These have none.
DELETABLE = {
    KEYS: {"role": "member"},
    "/api/v1/webhook-endpoints": {"url": "https://example.com/hook"},
    "/sandbox/v1/scenarios": {"name": "mine", "match": {"suffix": "0004"}, "steps": [{"to": "PROCESSING"}, {"to": "SUCCESS"}]},
    "/sandbox/v1/faults": {"target": "webhooks", "kind": "drop"},
    "/sandbox/v1/snapshots": {},
}
"""Where to create an object that can be deleted, and how."""


@pytest.mark.parametrize("path", [*DELETABLE, "/aggregator/v1/dead-letters/replay"])
def test_a_repeat_is_replayed_and_another_request_with_the_key_is_refused(world: World, path: str) -> None:
    method = "POST"
    if path in DELETABLE:
        method, path = "DELETE", f"{path}/{world.post(path, DELETABLE[path]).json()['id']}"
    first, again = (world.client.request(method, path, headers={"X-IDEMPOTENCY-KEY": "same-key"}) for _ in range(2))
    assert first.status_code in (200, 204), first.text
    assert (again.status_code, again.content, again.headers[REPLAYED]) == (first.status_code, first.content, "true")
    assert REPLAYED not in first.headers
    assert status_and_code(world.post("/sandbox/v1/balance/top-up", {"amount": "1.00"}, key="same-key")) == (
        422,
        "IDEMPOTENCY_KEY_REUSED",
    )


def test_a_repeated_request_creates_one_api_key_that_works(world: World) -> None:
    first, again = (world.post(KEYS, {"role": "member", "name": "once"}, key="one-key") for _ in range(2))
    assert first.json() == again.json()
    assert sorted(first.json()) == ["api_key", "id", "role"]
    assert [key["name"] for key in world.get(KEYS).json()["data"]] == ["once", "first key"]
    assert httpx.get(f"{world.stack.api_url}/api/v1/balance", headers={"X-API-KEY": again.json()["api_key"]}).status_code == 200


def test_a_malformed_key_is_refused_even_if_the_key_is_optional(world: World) -> None:
    headers = [(b"x-idempotency-key", "naïve".encode("latin-1"))]
    response = world.client.post(KEYS, json={"role": "member"}, headers=httpx.Headers(headers))
    assert status_and_code(response) == (400, "INVALID_IDEMPOTENCY_KEY")


# Idempotency keys of the operator's requests.


def test_a_merchant_is_created_once_per_key(stack: Stack) -> None:
    key, name = str(uuid.uuid4()), f"once {uuid.uuid4()}"
    first, again = (send_as_operator(stack, "POST", MERCHANTS, key, {"name": name}) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert first.headers["location"] == again.headers["location"]
    assert (REPLAYED in first.headers, again.headers[REPLAYED]) == (False, "true")
    assert stack.execute("SELECT count(*) FROM merchants WHERE name = $1", name) == [{"count": 1}]
    headers = {"X-API-KEY": again.json()["api_key"]}
    assert httpx.get(f"{stack.api_url}/api/v1/balance", headers=headers, timeout=60).status_code == 200
    assert status_and_code(send_as_operator(stack, "POST", MERCHANTS, key, {"name": f"{name}!"})) == (
        422,
        "IDEMPOTENCY_KEY_REUSED",
    )
    merchant_id = first.json()["merchant_id"]
    assert status_and_code(send_as_operator(stack, "DELETE", f"{MERCHANTS}/{merchant_id}", key)) == (
        422,
        "IDEMPOTENCY_KEY_REUSED",
    )
    # The operator's and the merchants' keys are separate, so a merchant can use the same key.
    unrelated = httpx.post(
        f"{stack.api_url}/sandbox/v1/balance/top-up", json={"amount": "1.00"}, headers=headers | {"X-IDEMPOTENCY-KEY": key}
    )
    assert (unrelated.status_code, REPLAYED in unrelated.headers) == (200, False)


def test_the_key_of_a_refused_creation_is_not_stored_but_that_of_a_deletion_is(stack: Stack) -> None:
    key = str(uuid.uuid4())
    assert send_as_operator(stack, "POST", MERCHANTS, key, {"name": "x", "webhook_url": "ftp://no"}).status_code == 400
    created = send_as_operator(stack, "POST", MERCHANTS, key, {"name": "x"})
    assert created.status_code == 201
    path, deletion_key = f"{MERCHANTS}/{created.json()['merchant_id']}", str(uuid.uuid4())
    first, again = (send_as_operator(stack, "DELETE", path, deletion_key) for _ in range(2))
    assert [first.status_code, again.status_code] == [204, 204]
    assert (REPLAYED in first.headers, again.headers[REPLAYED]) == (False, "true")
    another_key = str(uuid.uuid4())
    first, again = (send_as_operator(stack, "DELETE", path, another_key) for _ in range(2))
    assert status_and_code(first) == status_and_code(again) == (404, "NOT_FOUND")
    assert again.headers[REPLAYED] == "true"
    assert "new idempotency key" in first.json()["detail"]


def test_concurrent_creations_with_one_key_create_one_merchant(stack: Stack) -> None:
    key, name = str(uuid.uuid4()), f"race {uuid.uuid4()}"
    barrier, responses = threading.Barrier(8), []

    def create() -> None:
        barrier.wait()
        responses.append(send_as_operator(stack, "POST", MERCHANTS, key, {"name": name}))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    created = {response.content for response in responses if response.status_code == 201}
    assert len(created) == 1
    assert {status_and_code(response) for response in responses if response.status_code != 201} <= {
        (409, "IDEMPOTENCY_KEY_IN_FLIGHT")
    }
    assert stack.execute("SELECT count(*) FROM merchants WHERE name = $1", name) == [{"count": 1}]


def test_an_operators_key_expires_after_a_day_and_is_purged(stack: Stack) -> None:
    key, name = str(uuid.uuid4()), f"expire {uuid.uuid4()}"
    first = send_as_operator(stack, "POST", MERCHANTS, key, {"name": name})
    stack.execute("UPDATE operator_keys SET expires_at = now() WHERE key = $1", key)
    again = send_as_operator(stack, "POST", MERCHANTS, key, {"name": name})
    assert (again.status_code, REPLAYED in again.headers) == (201, False)
    assert again.json()["merchant_id"] != first.json()["merchant_id"]
    (found,) = stack.execute("SELECT expires_at - now() > '23:59:00' AS fresh FROM operator_keys WHERE key = $1", key)
    assert found["fresh"]
    stack.execute("UPDATE operator_keys SET expires_at = now() WHERE key = $1", key)

    async def purge() -> None:
        async with pooled(stack.database_url, 1):
            await purge_expired_keys(datetime.now(UTC))

    asyncio.run(purge())
    assert stack.execute("SELECT FROM operator_keys WHERE key = $1", key) == []


def test_a_merchant_and_the_record_of_its_key_are_committed_together_or_not_at_all(stack: Stack) -> None:
    """If the record cannot be written, the merchant is not created. The same holds if the process dies before the write."""
    key, name = f"poison-{uuid.uuid4()}", f"together {uuid.uuid4()}"
    stack.execute(f"ALTER TABLE operator_keys ADD CONSTRAINT poison CHECK (key <> '{key}')")
    try:
        assert send_as_operator(stack, "POST", MERCHANTS, key, {"name": name}).status_code == 500
        assert stack.execute("SELECT FROM merchants WHERE name = $1", name) == []
    finally:
        stack.execute("ALTER TABLE operator_keys DROP CONSTRAINT poison")
    first, again = (send_as_operator(stack, "POST", MERCHANTS, key, {"name": name}) for _ in range(2))
    assert (first.status_code, again.content, again.headers[REPLAYED]) == (201, first.content, "true")
    assert stack.execute("SELECT count(*) FROM merchants WHERE name = $1", name) == [{"count": 1}]


# Stored responses.


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/payouts", MORE_THAN_AVAILABLE, 422),
        ("/api/v1/payouts/019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77/cancel", None, 404),
        ("/sandbox/v1/payouts/019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77/simulate", {"status": "SUCCESS"}, 404),
        ("/api/v1/wallet/bulk-credit/retry", {"activity_id": "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"}, 404),
    ],
)
def test_a_stored_refusal_says_that_a_retry_needs_a_new_key(world: World, path: str, body: Any, status: int) -> None:
    if body is MORE_THAN_AVAILABLE:
        body = world.payout_body("0001", **MORE_THAN_AVAILABLE)
    first, again = (world.post(path, body, key="refused") for _ in range(2))
    assert (first.status_code, first.content, again.headers[REPLAYED]) == (status, again.content, "true")
    assert "new idempotency key" in first.json()["detail"]


def test_a_refusal_that_is_not_stored_does_not_mention_keys(world: World) -> None:
    invalid = world.post("/api/v1/payouts", {"nonsense": 1})
    missing = world.client.post("/sandbox/v1/payouts/019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77/simulate", json={"status": "SUCCESS"})
    assert [invalid.status_code, missing.status_code] == [400, 404]
    assert not [response for response in (invalid, missing) if "new idempotency key" in response.json()["detail"]]


def test_a_refusal_because_of_the_role_is_not_stored(world: World) -> None:
    member = {"X-API-KEY": world.post(KEYS, {"role": "member"}).json()["api_key"]}
    refused = world.post(KEYS, {"role": "admin"}, key="role", headers=member)
    assert status_and_code(refused) == (403, "FORBIDDEN")
    allowed = world.post(KEYS, {"role": "admin"}, key="role")
    assert (allowed.status_code, REPLAYED in allowed.headers) == (201, False)
    # A member who repeats the admin's key does not get the admin's response either.
    assert status_and_code(world.post(KEYS, {"role": "admin"}, key="role", headers=member)) == (403, "FORBIDDEN")


def test_a_response_that_was_sealed_for_another_key_or_context_is_refused() -> None:
    result = CommandResult(201, b'{"api_key": "sk_sandbox_secret"}', "/somewhere")
    stored = seal(SecretBox(bytes(32)), "m/answer/k", result)
    assert b"secret" not in stored.body
    assert unseal(SecretBox(bytes(32)), "m/answer/k", stored) == result
    for box, purpose in ((SecretBox(b"1" * 32), "m/answer/k"), (SecretBox(bytes(32)), "m/answer/other")):
        with pytest.raises(Problem, match="INVALID_STATE"):
            unseal(box, purpose, stored)
    refusal = CommandResult(404, b"{}")
    assert unseal(SecretBox(bytes(32)), "c", seal(SecretBox(bytes(32)), "c", refusal)) == refusal
