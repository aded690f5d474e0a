"""An invalid item of a batch fails alone; a batch that is itself invalid is refused as a whole."""

import json
import uuid
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.harness.world import World

BAD_ITEMS: dict[str, tuple[str, int, str | None]] = {
    "a NUL": ('{"merchant_reference": "\\u0000"}', 400, "merchant_reference"),
    "a NUL in a name": ('{"\\u0000": 1}', 400, "�"),
    "a duplicate field": ('{"amount": 1, "amount": 2}', 400, "amount"),
    "a field that belongs to the batch": ('{"payouts": [], "users": []}', 400, "payouts"),
    "half a surrogate pair": ('{"merchant_reference": "\\ud800"}', 400, None),
    "the other half of a surrogate pair": ('{"name": "\\udc00 x"}', 400, None),
    "bytes that are not UTF-8": ('{"name": "\udcff"}', 400, None),
    "too many levels": ('{"name": ' + "[" * 15_000 + "]" * 15_000 + "}", 400, None),
    "many levels": ('{"name": ' + "[" * 700 + "]" * 700 + "}", 400, "name"),
    "a huge integer": ('{"amount": 1' + "0" * 6000 + "}", 400, "amount"),
    "a huge integer in place of a string": ('{"name": 1' + "0" * 6000 + "}", 400, "name"),
    "not an object": ("17", 400, ""),
    "an array": ("[[]]", 400, ""),
    "null": ("null", 400, ""),
    "a quote and a bracket in a string": ('{"name": "]}\\"[{,"}', 400, "name"),
}


def post_raw(world: World, path: str, body: str) -> httpx.Response:
    headers = {"X-IDEMPOTENCY-KEY": str(uuid.uuid4()), "Content-Type": "application/json"}
    return world.client.post(path, content=body.encode("utf-8", "surrogateescape"), headers=headers)


def post_between_good_payouts(world: World, item: str) -> httpx.Response:
    good = [json.dumps(world.payout_body("0004")) for _ in range(2)]
    return post_raw(world, "/api/v1/payouts/batch", f'{{"payouts": [{good[0]}, {item}, {good[1]}]}}')


@pytest.mark.parametrize("what", BAD_ITEMS)
def test_an_invalid_payout_fails_alone_and_its_error_names_the_field(world: World, what: str) -> None:
    item, status, field = BAD_ITEMS[what]
    response = post_between_good_payouts(world, item)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    assert [result["status"] for result in results] == [201, status, 201]
    problem = results[1]["problem"]
    if field is None:
        assert (problem["code"], [error["field"] for error in problem["errors"]]) == ("MALFORMED_JSON", ["payouts[1]"])
    else:
        expected = f"payouts[1].{field}" if field else "payouts[1]"
        assert problem["code"] == "VALIDATION_ERROR"
        assert expected in [error["field"] for error in problem["errors"]], problem["errors"]
    assert world.balance() == ("999800.00", "200.00")
    world.assert_clean()


@pytest.mark.parametrize("what", BAD_ITEMS)
def test_an_invalid_user_fails_alone_and_its_error_names_the_item(world: World, what: str) -> None:
    item, status, _ = BAD_ITEMS[what]
    if what == "a quote and a bracket in a string":
        status = 201
    response = post_raw(world, "/api/v1/users/batch", f'{{"users":[{{"name":"A"}},{item},{{"name":"B"}}]}}')
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    assert [result["status"] for result in results] == [201, status, 201]
    for error in results[1].get("problem", {}).get("errors", []):
        assert error["field"].startswith("users[1]")


def test_every_invalid_field_of_every_item_is_reported(world: World) -> None:
    bad = {**world.payout_body(), "bank_code": "hbl", "amount": 0, "nota": 1}
    results = world.post("/api/v1/payouts/batch", {"payouts": [bad, world.payout_body("0004"), bad]}).json()["results"]
    assert [result["status"] for result in results] == [400, 201, 400]
    for index in (0, 2):
        fields = {error["field"] for error in results[index]["problem"]["errors"]}
        assert fields == {f"payouts[{index}].{name}" for name in ("bank_code", "amount", "nota")}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"payouts": [', "MALFORMED_JSON"),
        ('{"payouts": [{"a" 1}]}', "MALFORMED_JSON"),
        ('{"payouts": [NaN]}', "MALFORMED_JSON"),
        ('{"payouts": ["\\ud800"', "MALFORMED_JSON"),
        ('{"payouts": [1], "payouts": [2]}', "VALIDATION_ERROR"),
        ('{"payouts": [1], "pay\\u006futs": [2]}', "VALIDATION_ERROR"),
        ('{"payouts": ["\\ud800"], "more": 1}', "MALFORMED_JSON"),
        ('{"payouts": {}}', "VALIDATION_ERROR"),
        ('{"payouts": [1], "\\u0000": 1}', "VALIDATION_ERROR"),
        ('"\\ud800"', "MALFORMED_JSON"),
        ("[" * 20_000, "MALFORMED_JSON"),
    ],
)
def test_an_invalid_batch_is_refused_as_a_whole(world: World, body: str, code: str) -> None:
    response = post_raw(world, "/api/v1/payouts/batch", body)
    assert (response.status_code, response.json()["code"]) == (400, code), response.text


@pytest.mark.parametrize(("path", "field"), [("/api/v1/payouts/batch", "payouts"), ("/api/v1/users/batch", "users")])
def test_responses_match_the_openapi_document(world: World, path: str, field: str) -> None:
    document = httpx.get(f"{world.stack.api_url}/openapi.json").json()
    responses = document["paths"][path]["post"]["responses"]
    (status,) = (status for status in responses if status.startswith("2"))
    schema = responses[status]["content"]["application/json"]["schema"]
    results = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]["results"]
    assert len(results["items"]["oneOf"]) == 2
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    item = world.payout_body("0004") if field == "payouts" else {"name": "U"}
    response = world.post(path, {field: [item, {}]})
    assert str(response.status_code) == status
    validator.validate(response.json())
    assert not validator.is_valid({"results": [{"status": 201}]})
    assert not validator.is_valid({"results": [{"status": 201, "problem": response.json()["results"][1]["problem"]}]})
