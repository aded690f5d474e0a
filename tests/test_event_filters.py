"""Filters of webhook endpoints: what they accept, which events they select, and how they explain a mismatch."""

import json
from typing import Any

import msgspec
import pytest

from sandbox.cli.filters import filters as parse_options
from sandbox.domain.event_filters import Filter, first_unmet, matches, to_text
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

BODY = {
    "id": "1",
    "type": "payout.failed",
    "previous_status": None,
    "data": {
        "status": "FAILED",
        "amount": "1500.00", "attempts": 2, "bank_code": "HBL", "account_number": "0012", "failure_code": None,
        "created_at": "2031-01-01T00:00:00.000Z", "metadata": {"order.id": "A-7", "tier": "007", "express": "true"},
    },
}  # fmt: skip
EVENT = json.dumps(BODY)


def stored(*conditions: tuple[str, str, Any]) -> str:
    """Return filters, each a field, an operator and a value, as they are stored."""
    given = msgspec.convert([{"field": field, "op": op, "value": value} for field, op, value in conditions], list[Filter])
    text = to_text(given)
    assert text is not None
    return text


@pytest.mark.parametrize(
    ("field", "op", "value", "holds"),
    [
        ("data.amount", "eq", 1500, True),
        ("data.amount", "eq", "1500", True),
        ("data.amount", "eq", 1500.01, False),
        ("data.amount", "ne", 1500, False),
        ("data.amount", "gte", "1000", True),  # as text, "1500.00" < "900" and > "1000"
        ("data.amount", "gte", 900, True),
        ("data.amount", "lte", 1499.99, False),
        ("data.amount", "lte", 1500, True),
        ("data.amount", "in", [1, "1500.0"], True),
        ("data.attempts", "gte", "2", True),
        ("data.account_number", "eq", "0012", True),
        ("data.account_number", "eq", 12, False),
        ("data.account_number", "eq", "12", False),
        ("data.metadata.tier", "eq", "7", False),
        ("data.metadata.order.id", "prefix", "A-", True),
        ("data.metadata.order.id", "prefix", "B", False),
        ("data.attempts", "prefix", "2", False),
        ("data.metadata.express", "eq", True, False),
        ("data.created_at", "gte", "2030-12-31T23:59:59Z", True),
        ("data.created_at", "lte", "2030-12-31T23:59:59Z", False),
        ("data.bank_code", "gte", 1, False),
        ("data.bank_code", "in", ["MCB", "HBL"], True),
        ("data.bank_code", "in", ["MCB", None], False),
        ("type", "prefix", "payout.", True),
        ("previous_status", "eq", None, True),
        ("previous_status", "ne", "PENDING", True),
        ("previous_status", "ne", None, False),
        ("change", "eq", ">FAILED", True),
        ("change", "ne", "RETRY>PROCESSING", True),
        ("data.failure_code", "exists", True, False),
        ("data.failure_code", "exists", False, True),
        ("data.bank_code", "exists", True, True),
        ("data.metadata.other", "exists", False, True),
        ("data.metadata.other", "eq", "x", False),
        ("data.metadata.other", "ne", "x", True),
        ("data.metadata.other", "in", ["x", None], True),
        ("data.metadata.other", "lte", 5, False),
        ("data.metadata.other", "prefix", "x", False),
    ],
)
def test_what_each_operator_means(field: str, op: Any, value: Any, holds: bool) -> None:
    text = stored((field, op, value))
    assert matches(text, EVENT) is holds
    assert (first_unmet(text, EVENT) is None) is holds


@pytest.mark.parametrize(
    ("field", "op", "value", "reason"),
    [
        ("data.amount", "gte", 2000, "data.amount 1500.00 is not ≥ 2000"),
        ("data.bank_code", "in", ["MCB", "UBL"], "data.bank_code HBL is not one of MCB, UBL"),
        ("data.bank_code", "ne", "HBL", "data.bank_code is HBL"),
        ("data.failure_code", "exists", True, "data.failure_code is missing"),
        ("data.failure_code", "eq", "TIMEOUT", "data.failure_code is missing or null"),
        ("data.bank_code", "exists", False, "data.bank_code is present: HBL"),
        ("type", "prefix", "bulk_", "type payout.failed does not begin with bulk_"),
    ],
)
def test_the_first_filter_that_does_not_hold_is_explained(field: str, op: Any, value: Any, reason: str) -> None:
    text = stored(("data.attempts", "eq", 2), (field, op, value), ("type", "eq", "other"))
    assert first_unmet(text, EVENT) == reason


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ([{"field": "data.amount", "op": "above", "value": 1}], "filters[0].op", "must be one of eq, ne, in"),
        ([{"field": "data.amuont", "op": "eq", "value": 1}], "filters[0].field", "did you mean data.amount?"),
        (
            [{"field": "amount", "op": "eq", "value": 1}],
            "filters[0].field",
            "must be type, previous_status, change, or a field",
        ),
        (
            [{"field": "data.metadata", "op": "eq", "value": 1}],
            "filters[0].field",
            "or data.metadata.order_id",
        ),
        ([{"field": "data.metadata." + "k" * 128, "op": "exists"}], "filters[0].field", "must be"),
        ([{"field": "type", "op": "exists"}, {"field": "type", "op": "eq"}], "filters[1].value", "is required"),
        ([{"field": "type", "op": "in", "value": "x"}], "filters[0].value", "must be a list of 1 to 100 items"),
        ([{"field": "type", "op": "in", "value": ["x"] * 101}], "filters[0].value", "this one has 101"),
        ([{"field": "type", "op": "eq", "value": ["x"]}], "filters[0].value", "true, false or null"),
        ([{"field": "type", "op": "eq", "value": {"x": 1}}], "filters[0].value", "must be a number"),
        ([{"field": "type", "op": "gte", "value": None}], "filters[0].value", "must be a number or a string"),
        ([{"field": "type", "op": "prefix", "value": ""}], "filters[0].value", "a string of 1 to 500 characters"),
        ([{"field": "type", "op": "exists", "value": "yes"}], "filters[0].value", "must be true or false"),
        ([{"field": "type", "op": "exists", "values": 1}], "filters[0].values", "is not a known field"),
        ([{"field": "type", "op": "exists"}] * 17, "filters", "must be a list of at most 16 items; this one has 17"),
    ],
)
def test_an_invalid_filter_is_refused_with_its_path(
    world: World, receiver: Receiver, given: list[dict[str, Any]], path: str, message: str
) -> None:
    response = world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "filters": given})
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")
    assert [error["field"] for error in response.json()["errors"]] == [path]
    assert message in response.json()["errors"][0]["message"]


def test_an_endpoint_receives_only_events_that_match_all_its_filters(world: World, receiver: Receiver) -> None:
    given = [
        {"field": "data.amount", "op": "gte", "value": 1000},
        {"field": "data.metadata.tier", "op": "in", "value": ["gold", "silver"]},
    ]
    created = world.post(
        "/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.created"], "filters": given}
    ).json()
    path = f"/api/v1/webhook-endpoints/{created['id']}"
    assert created["filters"] == world.get(path).json()["filters"] == given
    world.create_payout("0004", amount="999.99", metadata={"tier": "gold"})
    world.create_payout("0004", amount="1000.00", metadata={"tier": "lead"})
    wanted = world.create_payout("0004", amount="1000.00", metadata={"tier": "gold"})
    receiver.wait_for("payout.created", payout_id=wanted["id"])
    (delivery,) = world.get("/api/v1/webhook-deliveries").json()["data"]
    assert world.get(f"/api/v1/events/{delivery['event_id']}").json()["payout_id"] == wanted["id"]
    assert world.patch(path, {"description": "x"}).json()["filters"] == given
    assert world.patch(path, {"filters": []}).json()["filters"] == []
    every = world.create_payout("0004", amount="1.00")
    receiver.wait_for("payout.created", payout_id=every["id"])
    until(lambda: len(receiver.received) == 2)


def test_the_filter_option_of_the_command_line() -> None:
    assert parse_options(None) is None
    assert parse_options(["none"]) == []
    assert parse_options(
        ["data.amount gte 1000.50", "data.account_number eq 0012", "data.bank_code in HBL, MCB", "data.failure_code exists",
         'previous_status eq null', '[{"field": "type", "op": "eq", "value": "a b"}]']
    ) == [
        {"field": "data.amount", "op": "gte", "value": 1000.5},
        {"field": "data.account_number", "op": "eq", "value": "0012"},
        {"field": "data.bank_code", "op": "in", "value": ["HBL", "MCB"]},
        {"field": "data.failure_code", "op": "exists"},
        {"field": "previous_status", "op": "eq", "value": None},
        {"field": "type", "op": "eq", "value": "a b"},
    ]  # fmt: skip
