"""The OpenAPI document is generated from the application and valid, and the copy in the repository is up to date."""

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

from sandbox.domain.enumerations import EVENT_TYPES
from sandbox.domain.errors import CODES
from sandbox.domain.money import InvalidAmountError, parse_amount
from sandbox.domain.scenario_engine import Catalogue
from sandbox.http.operation import Operation, operations_of
from sandbox.http.routes import create_litestar
from sandbox.infrastructure.settings import Settings
from sandbox.server.app import create_app
from sandbox.server.docs.api import DocsApi
from sandbox.server.docs.openapi import DEFAULT_URL, build, encode
from sandbox.server.docs.page import docs_page
from sandbox.server.request_log import RequestLog

COMMITTED = Path(__file__).parent.parent / "openapi" / "openapi.json"
COMMAND = "python -m sandbox.server.export_openapi openapi/openapi.json"
PAGES = ("/docs", "/llms", "/problems", "/console")
"""HTML pages, which are not part of the API."""

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


def test_the_committed_document_is_what_the_application_serves(document: Json) -> None:
    assert COMMITTED.read_bytes() == encode(document), f"openapi/openapi.json is out of date; run: {COMMAND}"


def _descriptions(node: Any) -> Iterator[str]:
    for name, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if name == "description" and isinstance(value, str):
            yield value
        yield from _descriptions(value)


def test_the_document_is_the_same_on_every_version_of_python(document: Json) -> None:
    """Python 3.13 strips the indentation of docstrings. No description must depend on that."""
    assert [text for text in _descriptions(document) if inspect.cleandoc(text) != text.rstrip("\n")] == []


def test_every_route_except_the_pages_is_documented(operations: Sequence[Operation], document: Json) -> None:
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


def test_every_reference_resolves(document: Json) -> None:
    def check(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                check(item)
        elif isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                target: Any = document
                for part in node["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
            for item in node.values():
                check(item)

    check(document)


def test_every_link_names_an_operation_and_its_parameters(document: Json) -> None:
    operations = {operation["operationId"]: operation for _, operation in _operations(document)}
    for _, operation in _operations(document):
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                names = {p.get("name") for p in operations[link["operationId"]]["parameters"]}
                assert link["parameters"].keys() <= names


def test_every_component_is_a_valid_json_schema(document: Json) -> None:
    for name in document["components"]["schemas"]:
        jsonschema_rs.Draft202012Validator(_schema(document, _named(document, name)))
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_the_document_is_valid_openapi(document: Json) -> None:
    """Validate it with the official schema for OpenAPI 3.1, which schemathesis includes."""
    jsonschema_rs.Draft202012Validator(OPENAPI_31).validate(document)


def test_no_pattern_uses_syntax_that_only_python_has(document: Json) -> None:
    assert rb"\\Z" not in encode(document)


def test_every_operation_documents_its_error_statuses(document: Json) -> None:
    for name, operation in _operations(document):
        statuses = operation["responses"].keys()
        assert "500" in statuses, name
        if operation["security"]:
            assert {"400", "401"} <= statuses, name


def test_a_body_may_be_left_out_if_and_only_if_an_empty_object_is_valid(document: Json) -> None:
    for name, operation in _operations(document):
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            if media_type == "application/json":
                is_required = not _is_valid(document, content["schema"], {})
                assert operation["requestBody"]["required"] == is_required, name


def test_every_example_is_valid(document: Json) -> None:
    checked = 0
    for name, operation in _operations(document):
        for media in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in media:
                assert _is_valid(document, media["schema"], media["example"]), name
                checked += 1
    for name, response in document["components"]["responses"].items():
        for media in response["content"].values():
            for code, example in media["examples"].items():
                assert _is_valid(document, media["schema"], example["value"]), (name, code)
                checked += 1
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            assert _is_valid(document, schema, example), name
            checked += 1
    assert checked > 20


def test_every_event_type_has_an_exact_webhook_schema(document: Json) -> None:
    assert set(document["webhooks"]) == set(EVENT_TYPES)
    for event, item in document["webhooks"].items():
        schema = item["post"]["requestBody"]["content"]["application/json"]["schema"]
        body = item["post"]["requestBody"]["content"]["application/json"]["example"]
        assert _is_valid(document, schema, body)
        others = {"type": "payout.other", "livemode": True, "previous_status": "SOLD", "data": {}}
        for field in body:
            assert not _is_valid(document, schema, {name: value for name, value in body.items() if name != field})
            assert field not in others or not _is_valid(document, schema, {**body, field: others[field]})
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
def test_the_amount_schema_accepts_exactly_what_the_parser_accepts(document: Json, raw: str) -> None:
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
def test_the_create_payout_schema_is_exact(document: Json, body: Json, valid: bool) -> None:
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
def test_the_idempotency_key_pattern_is_exact(document: Json, key: str, valid: bool) -> None:
    schema = document["components"]["parameters"]["required-idempotency-key"]["schema"]
    assert _is_valid(document, schema, key) == valid


def test_the_docs_page_shows_every_field_of_a_webhook_and_an_example_file(document: Json) -> None:
    page = docs_page(document, Catalogue(()))
    webhooks = page.split('id="webhooks"')[1]
    for field in ("id", "type", "timestamp", "livemode", "previous_status", "data"):
        assert f"&#34;{field}&#34;" in webhooks
    assert ">uuid,amount\n" in page


async def test_docs_and_problem_pages_are_served_as_html_and_json() -> None:
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
            problem = (await client.get(f"/problems/{code}")).json()
            assert (problem["code"], problem["cure"]) == (code, kind.resolution)
        assert len((await client.get("/problems")).json()["data"]) == len(CODES)
        assert "INVALID_STATE" in (await client.get("/problems", headers={"accept": "text/html"})).text


def test_code_generators_can_make_names_of_everything(document: dict[str, Any]) -> None:
    """openapi-python-client and orval make one name of two values that differ by case, and no name of one with a dot."""
    for kind in ("schemas", "responses"):
        assert [name for name in document["components"][kind] if not re.fullmatch(r"[A-Za-z]\w*", name)] == []
    assert [values for values in _enums(document) if len({value.lower() for value in values}) < len(values)] == []


def test_every_array_says_what_it_contains(document: dict[str, Any]) -> None:
    arrays = [found for found in _objects(document["components"]["schemas"]) if found.get("type") == "array"]
    assert arrays
    assert [found for found in arrays if not {"items", "prefixItems"} & found.keys()] == []


def _enums(document: dict[str, Any]) -> Iterator[list[str]]:
    for found in _objects(document):
        if isinstance(found.get("enum"), list):
            yield [value for value in found["enum"] if isinstance(value, str)]


def _objects(found: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found, dict):
        yield found
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    for value in inner:
        yield from _objects(value)
