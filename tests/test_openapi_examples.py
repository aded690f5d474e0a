"""The running sandbox accepts every example request of the OpenAPI document. The response matches its schema, and is replayed.

Each example is sent unchanged, with the document's idempotency key, to a new merchant. Only ids are replaced: the test first
creates the objects they identify.
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
    """An example request of the document."""

    method: str
    path: str
    operation: Json
    media_type: str
    body: Any
    """None if the request has no body."""

    def __str__(self) -> str:
        return self.operation["operationId"]


def _resolved(schema: Json) -> Json:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _examples() -> Iterator[tuple[str, Example]]:
    """Yield (name, example) pairs for each operation with a body.

    They are the operation's own example, one for each example value of a field, and one without a body if it is optional.
    """
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
                name = operation["operationId"]
                if "example" in media:
                    own = media["example"]
                    yield name, Example(method, path, operation, media_type, own)
                    schema = _resolved(media["schema"])
                    for option in map(_resolved, schema.get("oneOf", [schema])):
                        for field, field_schema in option.get("properties", {}).items():
                            for number, value in enumerate(_resolved(field_schema).get("examples", ())):
                                if isinstance(own, dict) and field in own:
                                    iban = {"bank_code": "SCB"} if str(value).startswith("PK36SCBL") else {}
                                    body = {**own, **iban, field: value}
                                    yield f"{name}-{field}-{number}", Example(method, path, operation, media_type, body)
                elif operation["requestBody"]["required"]:
                    yield f"{name}-missing", Example(method, path, operation, media_type, None)
                else:
                    yield f"{name}-empty", Example(method, path, operation, media_type, {})
                if not operation["requestBody"]["required"]:
                    yield f"{name}-none", Example(method, path, operation, media_type, None)


EXAMPLES = dict(_examples())


def test_every_operation_with_a_body_has_an_example() -> None:
    assert [name for name in EXAMPLES if name.endswith("-missing")] == []
    operations = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    with_body = {operation["operationId"] for operation in operations if "requestBody" in operation}
    assert {str(example) for example in EXAMPLES.values()} == with_body


def _create_user(world: World) -> str:
    destination = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
    user: str = world.post("/api/v1/users", {"name": "Ayesha Khan", "destination": destination}).json()["id"]
    earned = world.post(f"/api/v1/users/{user}/transactions", {"type": "EARNED", "amount": "10000.00"})
    assert earned.status_code == 201, earned.text
    return user


def _create_failed_credit(world: World) -> str:
    """Insert a bulk credit with a failed row and return its id.

    The API cannot create one: rows fail only for user ids that an environment variable lists.
    """
    activity = str(uuid.uuid4())
    world.stack.execute(
        "INSERT INTO bulk_credits (merchant_id, id, status, total, invalid, duplicates, succeeded, failed, request_id,"
        " created_at, updated_at, completed_at) VALUES ($1, $2, 'FAILED', 1, 0, 0, 0, 1, 'r', now(), now(), now())",
        world.merchant_id, activity,
    )  # fmt: skip
    world.stack.execute(
        "INSERT INTO bulk_credit_items (merchant_id, activity_id, line, user_id, amount, status, error)"
        " VALUES ($1, $2, 2, $3, '1.00', 'FAILED', 'e')",
        world.merchant_id, activity, _create_user(world),
    )  # fmt: skip
    return activity


def _create_delivery(world: World) -> str:
    with Receiver() as receiver:
        endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
        assert endpoint.status_code == 201, endpoint.text
        world.create_payout()
        assert world.post("/sandbox/v1/drain").json()["drained"]
        created_id: str = world.get("/api/v1/webhook-deliveries").json()["data"][0]["id"]
        return created_id


def _create_endpoint(world: World) -> str:
    created_id: str = world.post("/api/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/webhooks"}).json()["id"]
    return created_id


def _create_listener(world: World) -> str:
    created_id: str = world.post("/sandbox/v1/listeners", {"forward_to": "http://localhost:9/"}).json()["id"]
    return created_id


def _create_snapshot(world: World) -> str:
    created_id: str = world.post("/sandbox/v1/snapshots").json()["id"]
    return created_id


def _create_sale(world: World) -> str:
    sale = {"user_id": _create_user(world), "brand": "Khaadi", "earning": "40.00"}
    created_id: str = world.post("/api/v1/sales", sale).json()["id"]
    return created_id


def _create_rule(world: World) -> str:
    rule = {"name": "other", "match": {"suffix": "7777"}, "steps": [{"to": "PROCESSING"}, {"to": "SUCCESS"}]}
    created_id: str = world.post("/sandbox/v1/scenarios", rule).json()["id"]
    return created_id


CREATORS: dict[str, Callable[[World], str]] = {
    "approve_payout": lambda world: world.create_payout(requires_approval=True)["id"],
    "reject_payout": lambda world: world.create_payout(requires_approval=True)["id"],
    "cancel_payout": lambda world: world.create_payout("0004")["id"],
    "reinitiate_payout": lambda world: world.create_payout("0003")["id"],
    "simulate_payout": lambda world: world.create_payout("0004")["id"],
    "change_user": _create_user,
    "request_user_payout": _create_user,
    "create_user_transaction": _create_user,
    "create_sale": _create_user,
    "upload_bulk_credit": _create_user,
    "retry_bulk_credit": _create_failed_credit,
    "reconcile_sales": _create_sale,
    "resend_webhook_delivery": _create_delivery,
    "change_webhook_endpoint": _create_endpoint,
    "preview_webhook_endpoint": _create_endpoint,
    "test_webhook_endpoint": _create_endpoint,
    "rotate_webhook_secret": _create_endpoint,
    "explain_webhook_signature": _create_endpoint,
    "recover_webhook_endpoint": _create_endpoint,
    "claim_deliveries": _create_listener,
    "report_results": _create_listener,
    "replace_scenario": _create_rule,
    "restore_snapshot": _create_snapshot,
}
"""By operation id: a function that creates the object that the example refers to, and returns its id."""
EXAMPLE_ID = "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"


@pytest.fixture
def frozen_world(stack: Stack) -> Iterator[World]:
    """Yield a merchant with a frozen clock. Its payouts run inside the requests, so no test waits."""
    with World.create(stack, opening_balance="1000000.00", frozen_at=FROZEN_AT) as world:
        yield world


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_accepted(frozen_world: World, name: str) -> None:
    world, example = frozen_world, EXAMPLES[name]
    object_id = CREATORS[str(example)](world) if str(example) in CREATORS else EXAMPLE_ID
    path = "/".join(object_id if part.startswith("{") else part for part in example.path.split("/"))
    headers = {"X-ADMIN-KEY": world.stack.admin_key} if example.operation["security"] == [{"OperatorKey": []}] else {}
    for parameter in example.operation.get("parameters", ()):
        if "idempotency-key" in parameter.get("$ref", ""):
            headers["X-IDEMPOTENCY-KEY"] = DOCUMENT["components"]["parameters"]["required-idempotency-key"]["example"]
    body: Json = {}
    if example.media_type == MULTIPART:
        body = {"files": {"file": ("credits.csv", example.body["file"].replace(EXAMPLE_ID, object_id))}}
    elif example.body is not None:
        headers["Content-Type"] = example.media_type
        body = {"content": json.dumps(example.body).replace(EXAMPLE_ID, object_id)}
    response = world.client.request(example.method, path, headers=headers, **body)
    assert response.is_success, response.text
    if "X-IDEMPOTENCY-KEY" in headers:
        again = world.client.request(example.method, path, headers=headers, **body)
        assert (again.status_code, again.content) == (response.status_code, response.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers.get("location") == response.headers.get("location")
    documented = example.operation["responses"][str(response.status_code)]
    if "content" in documented:
        schema = documented["content"]["application/json"]["schema"]
        validator = jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]}, validate_formats=True)
        validator.validate(response.json())
    if str(example) in ("create_payouts", "create_users"):
        assert [result["status"] for result in response.json()["results"]] == [201]
    if str(example) == "create_merchant":
        merchant = f"/sandbox/v1/merchants/{response.json()['merchant_id']}"
        assert world.client.delete(merchant, headers={"X-ADMIN-KEY": world.stack.admin_key}).status_code == 204
