"""The OpenAPI 3.1 document of each dialect, from its declared operations, at `/openapi/NAME.json`, and its page."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import msgspec

from sandbox.domain.errors import CODES, Problem
from sandbox.http.operation import JSON, Operation, get
from sandbox.http.request import Request
from sandbox.http.responses import Response
from sandbox.server.dialects.dialect import Dialect, Refusal
from sandbox.server.docs.api import html_page
from sandbox.server.docs.openapi import encode
from sandbox.server.docs.page import NATIVE, Reference, dialect_page
from sandbox.server.docs.schemas import REF, Json, schema_of

_KEY: Final = "Key"
_TAG: Final = "Operations"
_DESCRIPTION: Final = (
    "What the sandbox serves for integrations of this provider, as the provider's public documentation said when the dialect "
    "was written; the guide names the date and what the documentation leaves open."
)
_NEVER: Final = ("INVALID_SIGNATURE", "ALREADY_RECONCILED", "NOT_RETRYABLE", "REQUEST_TIMEOUT", "HEADERS_TOO_LARGE")
"""Problems that no operation of a dialect can have."""


class LinkedDialect(msgspec.Struct):
    """A dialect, with the path of its document."""

    name: str
    title: str
    document: str


class DialectDocs:
    """The operations that document the dialects. They need no key."""

    def __init__(self, dialects: Mapping[str, Dialect], operations: Sequence[Operation], public_url: str) -> None:
        self._dialects = dialects
        self._operations = operations
        self._public_url = public_url

    @cached_property
    def _documents(self) -> dict[str, Json]:
        return {name: document(dialect, self._operations, self._public_url) for name, dialect in self._dialects.items()}

    @cached_property
    def _encoded(self) -> dict[str, bytes]:
        return {f"{name}.json": encode(found) for name, found in self._documents.items()}

    @cached_property
    def _pages(self) -> dict[str, bytes]:
        choices = references(self._dialects)
        return {
            name: dialect_page(self._documents[name], shown, [NATIVE, *choices.values()]).encode()
            for name, shown in choices.items()
        }

    @get("/openapi", "List dialects", {200: list[LinkedDialect]}, access="public", is_documented=False)
    async def list_dialects(self, request: Request) -> dict[str, list[LinkedDialect]]:
        found = [LinkedDialect(name, one.title, one.document) for name, one in references(self._dialects).items()]
        return {"dialects": found}

    @get("/openapi/{file}", "Get a dialect's document", {200: dict[str, Any]}, access="public", is_documented=False)
    async def get_dialect_document(self, request: Request, file: str) -> Response:
        if file not in self._encoded:
            raise _unknown()
        return Response(200, self._encoded[file])

    @get("/docs/dialects/{name}", "Read a dialect's documentation", {200: str}, access="public", is_documented=False)
    async def get_dialect_page(self, request: Request, name: str) -> Response:
        if name not in self._pages:
            raise _unknown()
        return html_page(self._pages[name])


def _unknown() -> Problem:
    return Problem("NOT_FOUND", "There is no dialect with this name; GET /openapi lists them.")


def references(dialects: Mapping[str, Dialect]) -> dict[str, Reference]:
    """Return where each dialect is documented."""
    return {
        name: Reference(dialect.title, f"/docs/dialects/{name}", f"/openapi/{name}.json") for name, dialect in dialects.items()
    }


def document(dialect: Dialect, operations: Sequence[Operation], public_url: str) -> Json:
    """Return the document of a dialect. `operations` may have those of others too."""
    found = [operation for operation in operations if operation.dialect == dialect.name]
    types = [kind for operation in found for kind in (operation.body, *operation.responses.values()) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    schema_by_place = iter(schemas)
    paths: Json = {}
    for operation in found:
        body = None if operation.body is None else next(schema_by_place)
        responses = {status: next(schema_by_place) for status, kind in operation.responses.items() if kind is not None}
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(dialect, operation, body, responses)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{dialect.title}, as the sandbox serves it", "version": "1", "description": _DESCRIPTION},
        "servers": [{"url": public_url}],
        "tags": [{"name": _TAG, "description": f"All paths begin with `{dialect.prefix}`."}],
        "paths": paths,
        "components": {
            "schemas": _in_json_schema(components),
            "securitySchemes": {_KEY: {"type": "apiKey", "in": "header", "name": dialect.key_header}},
        },
    }


def _operation(dialect: Dialect, operation: Operation, body: Any, responses: Mapping[int, Any]) -> Json:
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": schema_of(kind)} for name, kind in operation.path_types.items()
    ]
    parameters += [
        {"name": query.name, "in": "query", "description": query.description, "schema": dict(query.schema)}
        for query in operation.query
    ]
    described: Json = {"operationId": operation.id, "summary": operation.summary, "parameters": parameters}
    described |= {"tags": [_TAG], "security": [{_KEY: []}]}
    if body is not None:
        media = {"schema": _in_json_schema(body)} | ({} if operation.example is None else {"example": operation.example})
        described["requestBody"] = {"required": operation.requires_body, "content": {JSON: media}}
    described["responses"] = {
        str(status): {"description": operation.summary, "content": {JSON: {"schema": _in_json_schema(schema)}}}
        for status, schema in responses.items()
    } | _refusals(dialect)
    return described


def _refusals(dialect: Dialect) -> Json:
    """Return the responses to problems, each with the examples of all codes that become it."""
    found: Json = {}
    for code, kind in CODES.items():
        if code in _NEVER:
            continue
        status, body = dialect.refuse(Refusal(kind.status, code, kind.resolution))
        examples = found.setdefault(str(status), {"description": "Refused.", "content": {JSON: {"examples": {}}}})
        examples["content"][JSON]["examples"][code] = {"value": msgspec.json.decode(body)}
    return found


def _in_json_schema(schema: Any) -> Any:
    """Return msgspec's schema with the end of a pattern as JSON Schema writes it."""
    if isinstance(schema, list):
        return [_in_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: item.replace(r"\Z", "$") if name == "pattern" and isinstance(item, str) else _in_json_schema(item)
        for name, item in schema.items()
    }
