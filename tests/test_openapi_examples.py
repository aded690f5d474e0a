"""Every example of the OpenAPI document is a request that the running sandbox accepts, and its answer has the shape promised.

Each example is sent as it stands, with the document's idempotency key, to a merchant of its own. Only ids are replaced: the
objects that they stand for are made first.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.harness.receiver import Receiver
from tests.harness.world import Stack, World

Json = dict[str, Any]
DOCUMENT: Json = json.loads((Path(__file__).parent.parent / "openapi" / "openapi.json").read_bytes())
FROZEN_AT = "2026-01-31T12:00:00.000Z"
MULTIPART = "multipart/form-data"


@dataclass(frozen=True)
class Example:
    """A request of the document."""

    method: str
    path: str
    operation: Json
    media_type: str
    body: Any
    """None: no body at all."""

    def __str__(self) -> str:
        return self.operation["operationId"]


def _resolved(schema: Json) -> Json:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _examples() -> Iterator[tuple[str, Example]]:
    """(name, example) of each operation with a body: its own, one for each example of a member, and none if it is optional."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
                name = operation["operationId"]
                if "example" in media:
                    own = media["example"]
                    yield name, Example(method, path, operation, media_type, own)
                    schema = _resolved(media["schema"])
                    for option in map(_resolved, schema.get("oneOf", [schema])):
                        for member, found in option.get("properties", {}).items():
                            for number, value in enumerate(_resolved(found).get("examples", ())):
                                if isinstance(own, dict) and member in own:
                                    iban = {"bank_code": "SCB"} if str(value).startswith("PK36SCBL") else {}
                                    body = {**own, **iban, member: value}
                                    yield f"{name}-{member}-{number}", Example(method, path, operation, media_type, body)
                elif operation["requestBody"]["required"]:
                    yield f"{name}-missing", Example(method, path, operation, media_type, None)
                else:
                    yield f"{name}-empty", Example(method, path, operation, media_type, {})
                if not operation["requestBody"]["required"]:
                    yield f"{name}-none", Example(method, path, operation, media_type, None)


EXAMPLES = dict(_examples())


def test_every_operation_that_takes_something_has_an_example() -> None:
    assert [name for name in EXAMPLES if name.endswith("-missing")] == []
    operations = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    with_body = {operation["operationId"] for operation in operations if "requestBody" in operation}
    assert {str(example) for example in EXAMPLES.values()} == with_body


def _user(world: World) -> str:
    destination = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
    user: str = world.post("/api/v1/users", {"name": "Ayesha Khan", "destination": destination}).json()["id"]
    earned = world.post(f"/api/v1/users/{user}/transactions", {"type": "EARNED", "amount": "10000.00"})
    assert earned.status_code == 201, earned.text
    return user


def _failed_credit(world: World) -> str:
    """A bulk credit with a failed row. No call can make one, as rows fail for users whom the environment names."""
    activity = str(uuid.uuid4())
    world.stack.execute(
        "INSERT INTO bulk_credits (merchant_id, id, status, total, invalid, duplicates, succeeded, failed, request_id,"
        " created_at, updated_at, completed_at) VALUES ($1, $2, 'FAILED', 1, 0, 0, 0, 1, 'r', now(), now(), now())",
        world.merchant_id, activity,
    )  # fmt: skip
    world.stack.execute(
        "INSERT INTO bulk_credit_items (merchant_id, activity_id, line, user_id, amount, status, error)"
        " VALUES ($1, $2, 2, $3, '1.00', 'FAILED', 'e')",
        world.merchant_id, activity, _user(world),
    )  # fmt: skip
    return activity


def _delivery(world: World) -> str:
    with Receiver() as receiver:
        made = world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
        assert made.status_code == 201, made.text
        world.create_payout()
        assert world.post("/sandbox/v1/drain").json()["drained"]
        found: str = world.get("/api/v1/webhook-deliveries").json()["data"][0]["id"]
        return found


def _endpoint(world: World) -> str:
    found: str = world.post("/api/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/webhooks"}).json()["id"]
    return found


def _snapshot(world: World) -> str:
    found: str = world.post("/sandbox/v1/snapshots").json()["id"]
    return found


def _sale(world: World) -> str:
    sale = {"user_id": _user(world), "brand": "Khaadi", "earning": "40.00"}
    found: str = world.post("/api/v1/sales", sale).json()["id"]
    return found


def _rule(world: World) -> str:
    rule = {"name": "other", "match": {"suffix": "7777"}, "steps": [{"to": "PROCESSING"}, {"to": "SUCCESS"}]}
    found: str = world.post("/sandbox/v1/scenarios", rule).json()["id"]
    return found


IDS: dict[str, Callable[[World], str]] = {
    "approve_payout": lambda world: world.create_payout(requires_approval=True)["id"],
    "reject_payout": lambda world: world.create_payout(requires_approval=True)["id"],
    "cancel_payout": lambda world: world.create_payout("0004")["id"],
    "reinitiate_payout": lambda world: world.create_payout("0003")["id"],
    "simulate_payout": lambda world: world.create_payout("0004")["id"],
    "change_user": _user,
    "request_user_payout": _user,
    "create_user_transaction": _user,
    "create_sale": _user,
    "upload_bulk_credit": _user,
    "retry_bulk_credit": _failed_credit,
    "reconcile_sales": _sale,
    "resend_webhook_delivery": _delivery,
    "change_webhook_endpoint": _endpoint,
    "replace_scenario": _rule,
    "restore_snapshot": _snapshot,
}
"""Operation id → makes the object that the example is about, and gives its id."""
EXAMPLE_ID = "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"


@pytest.fixture
def frozen_world(stack: Stack) -> Iterator[World]:
    """A merchant whose payouts take their steps inside the calls, so nothing here waits."""
    with World.create(stack, opening_balance="1000000.00", frozen_at=FROZEN_AT) as world:
        yield world


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_accepted(frozen_world: World, name: str) -> None:
    world, example = frozen_world, EXAMPLES[name]
    made = IDS[str(example)](world) if str(example) in IDS else EXAMPLE_ID
    path = "/".join(made if part.startswith("{") else part for part in example.path.split("/"))
    headers = {"X-ADMIN-KEY": world.stack.admin_key} if example.operation["security"] == [{"OperatorKey": []}] else {}
    for parameter in example.operation.get("parameters", ()):
        if "idempotency-key" in parameter.get("$ref", ""):
            headers["X-IDEMPOTENCY-KEY"] = DOCUMENT["components"]["parameters"]["required-idempotency-key"]["example"]
    body: Json = {}
    if example.media_type == MULTIPART:
        body = {"files": {"file": ("credits.csv", example.body["file"].replace(EXAMPLE_ID, made))}}
    elif example.body is not None:
        headers["Content-Type"] = example.media_type
        body = {"content": json.dumps(example.body).replace(EXAMPLE_ID, made)}
    answer = world.client.request(example.method, path, headers=headers, **body)
    assert answer.is_success, answer.text
    promised = example.operation["responses"][str(answer.status_code)]
    if "content" in promised:
        schema = promised["content"]["application/json"]["schema"]
        validator = jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]}, validate_formats=True)
        validator.validate(answer.json())
    if str(example) in ("create_payouts", "create_users"):
        assert [result["status"] for result in answer.json()["results"]] == [201]
    if str(example) == "create_merchant":
        merchant = f"/sandbox/v1/merchants/{answer.json()['merchant_id']}"
        assert world.client.delete(merchant, headers={"X-ADMIN-KEY": world.stack.admin_key}).status_code == 204
