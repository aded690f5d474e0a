"""One merchant learns nothing of another: by no operation that takes an id, and by no list."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.console_world import fill
from tests.harness.receiver import Receiver
from tests.harness.world import Stack, World

DOCUMENT = json.loads((Path(__file__).parent.parent / "openapi" / "openapi.json").read_bytes())
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if {"ApiKey": []} in operation["security"]
}
WITH_ID = {name: found for name, found in OPERATIONS.items() if "{" in found[1] and name != "report_results"}
"""Operations on one object. (A report answers for each of its leases: see test_listen.py.)"""
LISTS = [path for method, path, _ in OPERATIONS.values() if method == "get" and "{" not in path and "stream" not in path]
IDS_IN_BODIES: dict[str, Any] = {
    "retry_bulk_credit": {"activity_id": "activity_id"},
    "reconcile_sales": [{"sale_id": "sale_id", "status": "APPROVED"}],
    "create_sale": {"user_id": "user_id", "brand": "B", "earning": "1.00"},
}
"""Bodies that name an object, with the name of its id in its place."""
NOBODY = str(uuid.UUID(int=7))


@pytest.fixture(scope="module")
def owner(stack: Stack) -> Iterator[tuple[World, dict[str, str]]]:
    """Yield a merchant that has something of everything, and its ids by name of the path parameter."""
    with World.create(stack, opening_balance="1000000.00") as world, Receiver() as receiver:
        listener = world.post("/sandbox/v1/listeners", {"forward_to": "http://localhost:9/"}).json()["id"]
        yield world, fill(world, receiver) | {"listener_id": listener}


def send(world: World, name: str, ids: dict[str, str]) -> httpx.Response:
    """Send an operation's documented example with these ids."""
    method, path, operation = OPERATIONS[name]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    if name in IDS_IN_BODIES:
        text = json.dumps(IDS_IN_BODIES[name])
        for parameter, value in ids.items():
            text = text.replace(f': "{parameter}"', f': "{value}"')
        body = json.loads(text)
    headers = {"X-IDEMPOTENCY-KEY": str(uuid.uuid4())}
    return world.client.request(method, path.format(**ids), headers=headers, **({} if body is None else {"json": body}))


@pytest.mark.parametrize("name", [*WITH_ID, *IDS_IN_BODIES])
def test_another_merchants_object_is_answered_like_one_that_does_not_exist(
    owner: tuple[World, dict[str, str]], world: World, name: str
) -> None:
    _, ids = owner
    answers = [send(world, name, known).json() for known in (ids, dict.fromkeys(ids, NOBODY))]
    for answer, known in zip(answers, (ids, dict.fromkeys(ids, NOBODY)), strict=True):
        assert (answer["status"], answer["code"]) == (404, "NOT_FOUND")
        for value in known.values():
            answer["detail"] = answer["detail"].replace(value, "")
    assert answers[0]["detail"] == answers[1]["detail"]


def test_nothing_of_another_merchant_is_in_a_list(owner: tuple[World, dict[str, str]], world: World) -> None:
    _, ids = owner
    for path in LISTS:
        text = world.get(path).text
        assert not [value for value in (*ids.values(), "pwned=1") if value in text], path


def test_the_owner_still_has_everything(owner: tuple[World, dict[str, str]]) -> None:
    """The ids above exist, and no call of another merchant has deleted what they belong to."""
    world, ids = owner
    reads = [name for name, (method, *_) in WITH_ID.items() if method == "get" and not name.startswith("get_vendor")]
    found = {name: send(world, name, ids).status_code for name in reads if name != "get_requested_payout"}
    assert {name: status for name, status in found.items() if status != 200} == {}
