"""Each item of a batch stands or falls alone, whatever is wrong inside it; what is wrong with the whole is refused whole."""

import json
import uuid
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.harness.world import World

BAD_INSIDE: dict[str, tuple[str, int, str | None]] = {
    "a NUL": ('{"merchant_reference": "\\u0000"}', 400, "merchant_reference"),
    "a NUL in a name": ('{"\\u0000": 1}', 400, "�"),
    "a member twice": ('{"amount": 1, "amount": 2}', 400, "amount"),
    "a member of the batch itself": ('{"payouts": [], "users": []}', 400, "payouts"),
    "half a surrogate pair": ('{"merchant_reference": "\\ud800"}', 400, None),
    "the other half": ('{"name": "\\udc00 x"}', 400, None),
    "bytes that are no UTF-8": ('{"name": "\udcff"}', 400, None),
    "too many levels": ('{"name": ' + "[" * 20_000 + "]" * 20_000 + "}", 400, None),
    "many levels": ('{"name": ' + "[" * 700 + "]" * 700 + "}", 400, "name"),
    "a huge integer": ('{"amount": 1' + "0" * 6000 + "}", 400, "amount"),
    "a huge integer where a text belongs": ('{"name": 1' + "0" * 6000 + "}", 400, "name"),
    "no object": ("17", 400, ""),
    "an array": ("[[]]", 400, ""),
    "null": ("null", 400, ""),
    "a quote and a bracket in a text": ('{"name": "]}\\"[{,"}', 400, "name"),
}


def post_raw(world: World, path: str, body: str) -> httpx.Response:
    headers = {"X-IDEMPOTENCY-KEY": str(uuid.uuid4()), "Content-Type": "application/json"}
    return world.client.post(path, content=body.encode("utf-8", "surrogateescape"), headers=headers)


def payouts(world: World, item: str) -> httpx.Response:
    good = [json.dumps(world.payout_body("0004")) for _ in range(2)]
    return post_raw(world, "/api/v1/payouts/batch", f'{{"payouts": [{good[0]}, {item}, {good[1]}]}}')


@pytest.mark.parametrize("what", BAD_INSIDE)
def test_one_bad_payout_is_refused_alone_and_named(world: World, what: str) -> None:
    item, status, field = BAD_INSIDE[what]
    answer = payouts(world, item)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
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


@pytest.mark.parametrize("what", BAD_INSIDE)
def test_one_bad_user_is_refused_alone_and_named(world: World, what: str) -> None:
    item, status, _ = BAD_INSIDE[what]
    if what == "a quote and a bracket in a text":
        status = 201
    answer = post_raw(world, "/api/v1/users/batch", f'{{"users":[{{"name":"A"}},{item},{{"name":"B"}}]}}')
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [201, status, 201]
    for error in results[1].get("problem", {}).get("errors", []):
        assert error["field"].startswith("users[1]")


def test_every_wrong_member_of_every_item_is_named(world: World) -> None:
    bad = {**world.payout_body(), "bank_code": "hbl", "amount": 0, "nota": 1}
    results = world.post("/api/v1/payouts/batch", {"payouts": [bad, world.payout_body("0004"), bad]}).json()["results"]
    assert [result["status"] for result in results] == [400, 201, 400]
    for place in (0, 2):
        fields = {error["field"] for error in results[place]["problem"]["errors"]}
        assert fields == {f"payouts[{place}].{name}" for name in ("bank_code", "amount", "nota")}


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
def test_what_is_wrong_with_the_whole_refuses_the_whole(world: World, body: str, code: str) -> None:
    answer = post_raw(world, "/api/v1/payouts/batch", body)
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text


@pytest.mark.parametrize(("path", "member"), [("/api/v1/payouts/batch", "payouts"), ("/api/v1/users/batch", "users")])
def test_answers_are_what_the_document_says(world: World, path: str, member: str) -> None:
    document = httpx.get(f"{world.stack.api_url}/openapi.json").json()
    answers = document["paths"][path]["post"]["responses"]
    (status,) = (status for status in answers if status.startswith("2"))
    schema = answers[status]["content"]["application/json"]["schema"]
    results = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]["results"]
    assert len(results["items"]["oneOf"]) == 2
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    item = world.payout_body("0004") if member == "payouts" else {"name": "U"}
    answer = world.post(path, {member: [item, {}]})
    assert str(answer.status_code) == status
    validator.validate(answer.json())
    assert not validator.is_valid({"results": [{"status": 201}]})
    assert not validator.is_valid({"results": [{"status": 201, "problem": answer.json()["results"][1]["problem"]}]})
