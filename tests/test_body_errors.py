"""A refused body is reported with all of its errors together, each with a message that says how to fix it."""

import json
from decimal import Decimal
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from sandbox.domain.errors import Problem
from sandbox.domain.fields import PRINTABLE
from sandbox.http.body import decode
from sandbox.http.body_errors import find_errors, parse_tree
from sandbox.infrastructure.settings import Settings
from sandbox.payouts.requests import CreatePayoutBody
from sandbox.server.app import create_app
from sandbox.server.docs.openapi import documented
from tests.harness.world import Stack, World
from tests.test_ipn import send

ID, OTHER = "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77", "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b78"
SETTINGS = Settings.load(
    {"DATABASE_URL": "postgresql://nowhere/", "REDIS_URL": "redis://nowhere", "SANDBOX_SECRET_KEY": "A" * 43 + "="}
)
OPERATIONS = documented(create_app(SETTINGS).operations)
BODIES = {
    operation.id: operation.body
    for operation in OPERATIONS
    if operation.body is not None and operation.body_media_type == "application/json"
}
EXAMPLES = {operation.id: operation.example for operation in OPERATIONS if operation.id in BODIES}


def errors_of(kind: Any, body: Any) -> dict[str, str]:
    with pytest.raises(Problem) as raised:
        decode(msgspec.json.Decoder(kind), body if isinstance(body, bytes) else json.dumps(body).encode())
    assert raised.value.code == "VALIDATION_ERROR"
    return dict(raised.value.errors)


def test_every_invalid_field_is_reported_with_its_path_and_what_it_must_be() -> None:
    found = errors_of(
        CreatePayoutBody,
        {
            "merchant_reference": "",
            "amount": "-1",
            "currency": "pkr",
            "dest_type": "BNAK",
            "account_number": 5,
            "acount_title": "X",
            "metadata": {"a": 1, "b": "fine", "c" * 65: ""},
            "requires_approval": "yes",
        },
    )
    assert set(found) == {
        "merchant_reference", "amount", "currency", "dest_type", "account_number", "acount_title", "metadata.a",
        "metadata." + "c" * 65, "requires_approval",
    }  # fmt: skip
    assert found["merchant_reference"] == "must be a string of 1 to 64 characters without control characters"
    assert found["currency"] == "must be one of PKR; did you mean PKR?"
    assert found["dest_type"] == "must be one of BANK, WALLET; did you mean BANK?"
    assert "10 to 16 digits" in found["account_number"]
    assert found["acount_title"] == "is not a known field; did you mean account_title?"
    assert found["requires_approval"] == "must be true or false"


def test_missing_fields_are_reported_with_their_choices() -> None:
    found = errors_of(CreatePayoutBody, {})
    assert found == {
        "merchant_reference": "is required",
        "amount": "is required",
        "dest_type": "is required: one of BANK, WALLET",
        "account_number": "is required",
    }


def test_an_empty_body_is_reported_as_empty() -> None:
    for body in (b"", b" \n"):
        with pytest.raises(Problem) as raised:
            decode(msgspec.json.Decoder(CreatePayoutBody), body)
        assert (raised.value.code, raised.value.detail) == (
            "MALFORMED_JSON",
            "The body is not valid JSON in UTF-8: it is empty.",
        )


def test_duplicate_fields_and_nul_characters_are_reported_with_all_other_errors() -> None:
    body = b'{"amount": 0, "amount": 0, "merchant_reference": "\\u0000", "metadata": {"k": "1", "k": "2", "\\u0000": "x"}}'
    found = errors_of(CreatePayoutBody, body)
    assert found["merchant_reference"] == "must not contain a NUL character"
    assert found["metadata.k"] == "is given more than once"
    assert found["metadata.�"] == "must not contain a NUL character"
    assert set(found) == {
        "amount", "merchant_reference", "dest_type", "account_number", "metadata.k", "metadata.�",
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [b'{"amount": {}, "x"', b'{"amount": 1, "currency": 7} trailing', b'{"amount": 1, "currency": 7, "account_title": "\xff"}'],
)
def test_invalid_json_after_an_invalid_field_is_reported_as_malformed(body: bytes) -> None:
    with pytest.raises(Problem) as raised:
        decode(msgspec.json.Decoder(CreatePayoutBody), body)
    assert raised.value.code == "MALFORMED_JSON"


COUNTED: Any = msgspec.defstruct("Counted", [("count", Annotated[float, msgspec.Meta(ge=1, le=50, multiple_of=1)])])


@pytest.mark.parametrize("number", ["1e999", "1" + "0" * 5000, "1e99999999999999999999", "-0.0", "1.5"])
def test_numbers_of_any_size_are_checked(number: str) -> None:
    assert errors_of(COUNTED, f'{{"count": {number}}}'.encode()) == {"count": "must be a whole number from 1 to 50"}


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 2000), st.floats(-1, 3, allow_nan=False),
        st.sampled_from(["", "BANK", "PKR", "HBL", "1.00", "12345678900001", "v1", "fast", "x" * 70, "\n", "a b", "api"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "to", "target", "k\t"]), inner, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@settings(max_examples=10)
@given(data=st.data())
def test_find_errors_reports_errors_exactly_if_msgspec_refuses_the_body(name: str, data: st.DataObject) -> None:
    """Each body is a valid one with fields removed, changed or added."""
    example = EXAMPLES[name]
    body = json.loads(json.dumps({} if example is None else example))
    fields = body[0] if isinstance(body, list) else body
    known = [*fields, "extra", *field_names(BODIES[name])]
    for field in data.draw(st.lists(st.sampled_from(known), max_size=3)):
        if data.draw(st.booleans()):
            fields.pop(field, None)
        else:
            fields[field] = data.draw(VALUES)
    raw = json.dumps(body).encode()
    try:
        msgspec.json.Decoder(BODIES[name]).decode(raw)
    except msgspec.ValidationError:
        found, _ = find_errors(BODIES[name], parse_tree(raw))
        assert found, raw
        assert not [message for _, message in found if "`" in message or "Expected" in message], found
    else:
        found, _ = find_errors(BODIES[name], parse_tree(raw))
        # Ignore amounts: msgspec accepts any JSON value for them, and only find_errors checks them.
        assert [message for _, message in found if "decimal string" not in message] == [], raw


def field_names(kind: Any) -> list[str]:
    info = inspect.type_info(kind)
    if isinstance(info, inspect.ListType):
        info = info.item_type
    structs = info.types if isinstance(info, inspect.UnionType) else (info,)
    return [field.encode_name for found in structs if isinstance(found, inspect.StructType) for field in found.fields]


def leaf_types(info: Any, path: str) -> "list[tuple[str, Any, dict[str, Any]]]":
    """Return (path, type, extra metadata) for every scalar type in a body."""
    if isinstance(info, inspect.Metadata):
        return [(leaf, kind, {**(info.extra or {}), **extra}) for leaf, kind, extra in leaf_types(info.type, path)]
    if isinstance(info, inspect.UnionType):
        return [found for option in info.types for found in leaf_types(option, path)]
    if isinstance(info, inspect.StructType):
        return [found for field in info.fields for found in leaf_types(field.type, f"{path}.{field.encode_name}")]
    if isinstance(info, inspect.ListType):
        return leaf_types(info.item_type, f"{path}[]")
    if isinstance(info, inspect.DictType):
        return [*leaf_types(info.key_type, f"{path}.key"), *leaf_types(info.value_type, f"{path}.value")]
    return [(path, info, {})]


def test_every_pattern_except_the_printable_one_has_a_description_in_words() -> None:
    undescribed = [
        (name, path)
        for name, body in BODIES.items()
        for path, kind, extra in leaf_types(inspect.type_info(body), "")
        if isinstance(kind, inspect.StrType) and kind.pattern not in (None, PRINTABLE) and "must" not in extra
    ]
    assert undescribed == []


def test_at_most_1000_errors_are_reported() -> None:
    tree = parse_tree(json.dumps({f"unknown_{number}": 1 for number in range(5000)}).encode())
    found, _ = find_errors(CreatePayoutBody, tree)
    assert len(found) == 1000


# The tests below use HTTP.


def errors_in(response: Any) -> dict[str, str]:
    body = response.json()
    assert (response.status_code, body["code"]) == (400, "VALIDATION_ERROR"), response.text
    return {error["field"]: error["message"] for error in body["errors"]}


def test_schema_errors_and_directory_errors_are_reported_together(world: World) -> None:
    body = world.payout_body(bank_code="hbl", amount="1.001", currency="USD", account_number="12-34")
    found = errors_in(world.post("/api/v1/payouts", body))
    assert set(found) == {"bank_code", "amount", "currency", "account_number"}
    assert found["bank_code"] == "is not a known bank code; did you mean HBL?"
    assert errors_in(world.post("/api/v1/payouts", world.payout_body(bank_code="hbl")))["bank_code"].endswith(
        "did you mean HBL?"
    )
    detail = world.post("/api/v1/payouts", world.payout_body(bank_code="hbl")).json()["detail"]
    assert detail == "bank_code: is not a known bank code; did you mean HBL?"
    wallet = {"dest_type": "WALLET", "bank_code": "HBL", "wallet_code": "nope", "account_number": "1", "amount": None}
    found = errors_in(world.post("/api/v1/payouts", {**world.payout_body(), **wallet}))
    assert set(found) == {"bank_code", "wallet_code", "account_number", "amount"}
    assert "EASYPAISA" in found["wallet_code"]
    assert errors_in(world.post("/api/v1/verify-account", {"dest_type": "BANK", "account_number": "1"})).keys() == {
        "bank_code", "account_number",
    }  # fmt: skip


def test_errors_in_nested_lists_and_unions_are_reported_with_their_paths(world: World) -> None:
    user = {"name": "", "destination": {"dest_type": "BANK", "bank_code": "meezn", "account_number": "12"}}
    found = errors_in(world.post("/api/v1/users", user))
    assert found["destination.bank_code"].endswith("did you mean MEEZAN?")
    assert set(found) == {"name", "destination.bank_code", "destination.account_number"}
    rule = {"name": "X", "match": {"bank_code": "hbl", "amount_from": "x"}, "steps": [{"to": "PAID"}, {"after": -1}]}
    found = errors_in(world.post("/sandbox/v1/scenarios", rule))
    assert set(found) == {"name", "match.bank_code", "match.amount_from", "steps[0].to", "steps[1].to", "steps[1].after"}
    fault = {"target": "api", "kind": "eror", "status": 9}
    assert errors_in(world.post("/sandbox/v1/faults", fault))["kind"].endswith("did you mean error?")
    assert errors_in(world.post("/sandbox/v1/faults", {**fault, "kind": "error", "count": 0})).keys() == {"status", "count"}
    # If the kind is unknown, the fields that all kinds have in common are checked.
    found = errors_in(world.post("/sandbox/v1/faults", {**fault, "probability": 2, "count": 0, "tartget": "api"}))
    assert set(found) == {"kind", "probability", "count", "tartget"}
    assert errors_in(world.post("/sandbox/v1/faults", {"seed": -1})).keys() == {"kind", "target", "seed"}
    mismatched = {
        "target": "api",
        "kind": "truncated_body",
        "match": {"event_type": "payout.*", "endpoint_id": ID, "path": "/"},
    }
    assert errors_in(world.post("/sandbox/v1/faults", mismatched)).keys() == {"match.event_type", "match.endpoint_id"}
    twice = [{"sale_id": sale_id, "status": "APPROVED"} for sale_id in (ID, ID, OTHER, OTHER, ID)]
    found = errors_in(world.post("/api/v1/reconcile", twice))
    assert found == {
        "[1].sale_id": "is already listed in [0]", "[3].sale_id": "is already listed in [2]",
        "[4].sale_id": "is already listed in [0]",
    }  # fmt: skip
    sales = [{"sale_id": "x", "status": "MAYBE"}, {"status": "APPROVED"}]
    assert errors_in(world.post("/api/v1/reconcile", sales)).keys() == {"[0].sale_id", "[0].status", "[1].sale_id"}


def test_all_errors_of_an_ipn_callback_are_reported_together(world: World) -> None:
    found = errors_in(send(world, {"status": "SUCCES", "failure_code": "no code", "reference": "x"}))
    assert set(found) == {"status", "failure_code", "reference", "payout_id"}
    assert found["status"].endswith("did you mean SUCCESS?")


def test_valid_fields_are_returned_converted() -> None:
    found, valid = find_errors(CreatePayoutBody, parse_tree(b'{"amount": 10.5, "dest_type": "BANK", "metadata": {"a": "b"}}'))
    assert valid == {"amount": Decimal("10.50"), "dest_type": "BANK", "metadata": {"a": "b"}}
    assert {field for field, _ in found} == {"merchant_reference", "account_number"}


def test_all_errors_of_a_new_merchant_are_reported_together(stack: Stack) -> None:
    body = {
        "name": "", "opening_balance": "-1", "webhook_url": "ftp://x", "seed": -1, "frozen_at": "soon", "rate": 5,
    }  # fmt: skip
    headers = {"X-ADMIN-KEY": stack.admin_key}
    response = httpx.post(f"{stack.api_url}/sandbox/v1/merchants", json=body, headers=headers, timeout=60)
    assert errors_in(response).keys() == body.keys()
    response = httpx.post(f"{stack.api_url}/sandbox/v1/merchants", json={**body, "seed": "7"}, headers=headers, timeout=60)
    assert errors_in(response)["seed"] == "must be a whole number from 0 to 9223372036854775807 or null"
    valid = {"name": "x", "opening_balance": 0}
    for field in ("webhook_url", "seed", "frozen_at"):
        bad = {**valid, field: body[field]}
        response = httpx.post(f"{stack.api_url}/sandbox/v1/merchants", json=bad, headers=headers, timeout=60)
        assert errors_in(response).keys() == {field}


def test_all_errors_of_an_endpoint_or_a_source_are_reported_together(world: World) -> None:
    endpoint = {"url": "ftp://x", "event_types": ["payout.payed"], "retry_profile": "slow", "descripton": "x"}
    found = errors_in(world.post("/api/v1/webhook-endpoints", endpoint))
    assert found.keys() == {"url", "event_types[0]", "retry_profile", "descripton"}
    source = {"url": "http://x/?a=b", "headers": {"Host": "x"}, "more": 1}
    found = errors_in(world.client.put("/aggregator/v1/source", json=source))
    assert found.keys() == {"url", "headers.Host", "more"}
