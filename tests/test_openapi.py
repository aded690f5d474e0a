"""The OpenAPI document: it is the application's own, it is sound, and the kept copy is up to date."""

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from sandbox.docs.api import DocsApi
from sandbox.docs.openapi import DEFAULT_URL, build, encode
from sandbox.docs.page import docs_page
from sandbox.domain.errors import CODES
from sandbox.domain.money import InvalidAmountError, parse_amount
from sandbox.domain.scenario_engine import Catalogue
from sandbox.http.operation import Operation, operations_of
from sandbox.http.routes import create_litestar
from sandbox.infrastructure.settings import Settings
from sandbox.server.app import create_app
from sandbox.server.request_log import RequestLog
from sandbox.webhooks.requests import EVENT_TYPES

KEPT = Path(__file__).parent.parent / "openapi" / "openapi.json"
COMMAND = "python -m sandbox.server.export_openapi openapi/openapi.json"
PAGES = ("/docs", "/problems", "/console")
"""Pages for people, which are no part of the API."""

Json = dict[str, Any]


@pytest.fixture(scope="module")
def operations() -> Sequence[Operation]:
    env = {
        "DATABASE_URL": "postgresql://nowhere/",
        "REDIS_URL": "redis://nowhere",
        "SANDBOX_SECRET_KEY": "A" * 43 + "=",
    }
    return create_app(Settings.load(env)).operations


@pytest.fixture(scope="module")
def document(operations: Sequence[Operation]) -> Json:
    return build(operations, DEFAULT_URL)


def _operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def _schema(document: Json, schema: Json) -> Json:
    return {**schema, "components": document["components"]}


def _is_valid(document: Json, schema: Json, value: Any) -> bool:
    return jsonschema_rs.Draft202012Validator(_schema(document, schema)).is_valid(value)


def _named(document: Json, name: str) -> Json:
    assert name in document["components"]["schemas"]
    return {"$ref": f"#/components/schemas/{name}"}


def test_the_kept_document_is_what_the_application_serves(document: Json) -> None:
    assert KEPT.read_bytes() == encode(document), f"openapi/openapi.json is out of date; run: {COMMAND}"


def _descriptions(node: Any) -> Iterator[str]:
    for name, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if name == "description" and isinstance(value, str):
            yield value
        yield from _descriptions(value)


def test_the_document_is_the_same_on_every_version_of_python(document: Json) -> None:
    """Python 3.13 takes the indentation of docstrings away; no description may depend on that."""
    assert [text for text in _descriptions(document) if inspect.cleandoc(text) != text.rstrip("\n")] == []


def test_every_route_is_documented_but_for_the_pages(operations: Sequence[Operation], document: Json) -> None:
    routes = {f"{operation.method} {operation.path}" for operation in operations if not operation.path.startswith(PAGES)}
    assert {name for name, _ in _operations(document)} == routes


def test_every_tag_is_described(document: Json) -> None:
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert described == {tag for _, operation in _operations(document) for tag in operation["tags"]}


def test_every_security_scheme_is_used(document: Json) -> None:
    used = {name for _, operation in _operations(document) for scheme in operation["security"] for name in scheme}
    assert used == set(document["components"]["securitySchemes"])


def test_operation_ids_are_unique(document: Json) -> None:
    ids = [operation["operationId"] for _, operation in _operations(document)]
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere(document: Json) -> None:
    def check(found: Any) -> None:
        if isinstance(found, list):
            for item in found:
                check(item)
        elif isinstance(found, dict):
            if isinstance(found.get("$ref"), str):
                target: Any = document
                for part in found["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
            for item in found.values():
                check(item)

    check(document)


def test_every_link_names_an_operation_and_one_of_its_parameters(document: Json) -> None:
    operations = {operation["operationId"]: operation for _, operation in _operations(document)}
    for _, operation in _operations(document):
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                names = {p.get("name") for p in operations[link["operationId"]]["parameters"]}
                assert link["parameters"].keys() <= names


def test_every_schema_is_a_schema(document: Json) -> None:
    for name in document["components"]["schemas"]:
        jsonschema_rs.Draft202012Validator(_schema(document, _named(document, name)))
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_the_document_is_valid_openapi(document: Json) -> None:
    """By the OpenAPI Initiative's own schema of OpenAPI 3.1, of which schemathesis has a copy."""
    jsonschema_rs.Draft202012Validator(OPENAPI_31).validate(document)


def test_no_pattern_is_written_for_python(document: Json) -> None:
    assert rb"\\Z" not in encode(document)


def test_every_operation_with_a_key_says_how_it_refuses(document: Json) -> None:
    for name, operation in _operations(document):
        statuses = operation["responses"].keys()
        assert "500" in statuses, name
        if operation["security"]:
            assert {"400", "401"} <= statuses, name


def test_every_example_is_valid(document: Json) -> None:
    seen = 0
    for name, operation in _operations(document):
        for media in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in media:
                assert _is_valid(document, media["schema"], media["example"]), name
                seen += 1
    for name, response in document["components"]["responses"].items():
        for media in response["content"].values():
            for code, example in media["examples"].items():
                assert _is_valid(document, media["schema"], example["value"]), (name, code)
                seen += 1
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            assert _is_valid(document, schema, example), name
            seen += 1
    assert seen > 20


def test_every_event_has_its_webhook(document: Json) -> None:
    assert set(document["webhooks"]) == set(EVENT_TYPES)
    for event, item in document["webhooks"].items():
        schema = item["post"]["requestBody"]["content"]["application/json"]["schema"]
        body = item["post"]["requestBody"]["content"]["application/json"]["example"]
        assert _is_valid(document, schema, body)
        others = {"type": "payout.other", "livemode": True, "previous_status": "SOLD", "data": {}}
        for member in body:
            assert not _is_valid(document, schema, {name: value for name, value in body.items() if name != member})
            assert member not in others or not _is_valid(document, schema, {**body, member: others[member]})
        if event.startswith("payout."):
            assert not _is_valid(document, schema, {**body, "data": {**body["data"], "status": "OTHER"}})


@pytest.mark.parametrize(
    "raw",
    [
        "1", "1.5", "0.01", "0.10", "0.1", "100000", "999999999999.99", "999999999999", "0", "0.0", "0.00", "0.001",
        "1.005", "-1", "1000000000000", "1e3", "1.5e2", "0.57", "1.13", "70.07", "999999999999.991", "null", "[]",
        '"1"', '"1.5"', '"0.01"', '"0.10"', '"0"', '"0.00"', '"00.1"', '"1."', '".5"', '"+1"', '"-1"', '"1e3"', '" 1"',
        '"999999999999.99"', '"1000000000000"', '"1.234"', '"1\\n"', '""', '"9.1"', '"10"', '"0.9"', '"0.09"',
    ],
)  # fmt: skip
def test_an_amount_is_valid_exactly_if_it_is_accepted(document: Json, raw: str) -> None:
    try:
        parse_amount(raw.encode())
        accepted = True
    except InvalidAmountError:
        accepted = False
    assert _is_valid(document, _named(document, "Amount"), msgspec.json.decode(raw)) == accepted


BANK = {
    "merchant_reference": "r",
    "amount": "1.00",
    "dest_type": "BANK",
    "bank_code": "HBL",
    "account_number": "12345678900001",
}
WALLET = {**BANK, "dest_type": "WALLET", "bank_code": None, "wallet_code": "JAZZCASH"}


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        (BANK, True),
        (WALLET, True),
        ({**BANK, "wallet_code": None}, True),
        ({**BANK, "bank_code": "HABIBBANK"}, True),
        ({**BANK, "account_number": "PK36SCBL0000001123456702"}, True),
        ({**BANK, "metadata": {"a": "b"}, "account_title": None, "requires_approval": True}, True),
        ({**BANK, "bank_code": None}, False),
        ({**BANK, "bank_code": "hbl"}, False),
        ({**BANK, "wallet_code": "JAZZCASH"}, False),
        ({**WALLET, "wallet_code": None}, False),
        ({**WALLET, "bank_code": "HBL"}, False),
        ({**BANK, "account_number": "123"}, False),
        ({**BANK, "account_number": "12345678901234567"}, False),
        ({**BANK, "dest_type": "CASH"}, False),
        ({**BANK, "metadata": {"": "b"}}, False),
        ({**BANK, "metadata": {str(number): "" for number in range(21)}}, False),
        ({**BANK, "other": 1}, False),
        ({**BANK, "merchant_reference": "a\n"}, False),
    ],
)
def test_a_new_payouts_schema_is_exact(document: Json, body: Json, valid: bool) -> None:
    assert _is_valid(document, _named(document, "CreatePayoutBody"), body) == valid


@pytest.mark.parametrize(
    ("key", "valid"),
    [
        ("a", True),
        ("a b", True),
        ('"a b"', True),
        ('"', True),
        ('""', False),
        (" a", False),
        ("a ", False),
        ("é", False),
    ],
)
def test_the_idempotency_keys_pattern_is_exact(document: Json, key: str, valid: bool) -> None:
    schema = document["components"]["parameters"]["required-idempotency-key"]["schema"]
    assert _is_valid(document, schema, key) == valid


def test_the_page_shows_an_events_whole_body_and_a_forms_file(document: Json) -> None:
    page = docs_page(document, Catalogue(()))
    webhooks = page.split('id="webhooks"')[1]
    for member in ("id", "type", "timestamp", "livemode", "previous_status", "data"):
        assert f"&#34;{member}&#34;" in webhooks
    assert "<pre>uuid,amount\n" in page


async def test_pages() -> None:
    app = create_litestar(operations_of(DocsApi((), DEFAULT_URL, Catalogue(()))), (), DEFAULT_URL, 0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(RequestLog(app)), base_url=DEFAULT_URL) as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "/openapi.json" in page.text
        assert not re.search(r"(?:src|@import|url\()[^>]*https?:", page.text), "the page must work without a network"
        assert (await client.get("/openapi.json")).json()["openapi"] == "3.1.0"
        for code, kind in CODES.items():
            html = await client.get(f"/problems/{code}", headers={"accept": "text/html"})
            assert html.status_code == 200
            assert str(kind.status) in html.text
            told = (await client.get(f"/problems/{code}")).json()
            assert (told["code"], told["cure"]) == (code, kind.resolution)
        assert len((await client.get("/problems")).json()["data"]) == len(CODES)
        assert "INVALID_STATE" in (await client.get("/problems", headers={"accept": "text/html"})).text
