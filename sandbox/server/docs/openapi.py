"""Build the OpenAPI 3.1 document from the declared operations."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec

from sandbox.domain.enumerations import EVENT_TYPES
from sandbox.domain.errors import CODES, MEDIA_TYPE, FieldError, Problem, ProblemBody, RefusedItem
from sandbox.domain.payout import Payout
from sandbox.http.operation import MULTIPART, Operation, page_item
from sandbox.http.psp_lines import psp_lines
from sandbox.server.docs.openapi_parts import HEADERS, PARAMETERS, SECURITY_SCHEMES, TAGS, webhook
from sandbox.server.docs.schemas import REF, Json, Schemas, schema_of

Links = dict[Any, dict[str, tuple[str, str]]]

DEFAULT_URL: Final = "http://127.0.0.1:8000"
"""The server URL in the committed document."""

_INFO: Final = """\
A mock payment service provider for payouts.

* Money is a decimal string with exactly two decimal places in every response. Requests accept a string or a JSON number.
* Times are RFC 3339, in UTC, with milliseconds. Ids are UUIDs.
* Unknown fields and unknown query parameters are rejected.
* Every response has an `X-Request-Id`: yours, if you send one of 1 to 128 printable ASCII characters.
* A W3C `traceparent` of the request that creates a payout is sent with all of the payout's webhooks.
* Every GET path supports HEAD. The request line and headers are limited to 64 KB; a request must arrive without long pauses.
* Errors are RFC 9457 problems; `type` links to a page that explains the code and what to do.
* `X-IDEMPOTENCY-KEY` may also be written `Idempotency-Key`. The same request with the same key gets the stored response, \
byte for byte, for 24 hours.
* Dialects, other providers' formats over the same payouts, have documents of their own, which `GET /openapi` lists and \
`/docs` shows.
"""
_ERRORS_BY_ACCESS: Final = {
    "member": ("NOT_ACCEPTABLE", "MISSING_API_KEY", "INVALID_API_KEY", "RATE_LIMITED", "UNAVAILABLE"),
    "admin": ("NOT_ACCEPTABLE", "MISSING_API_KEY", "INVALID_API_KEY", "FORBIDDEN", "RATE_LIMITED", "UNAVAILABLE"),
    "operator": ("NOT_ACCEPTABLE", "MISSING_API_KEY", "INVALID_API_KEY", "UNAVAILABLE"),
    "public": (),
}
_SECURITY_BY_ACCESS: Final[dict[str, list[Json]]] = {
    "member": [{"ApiKey": []}, {"BearerKey": []}],
    "admin": [{"ApiKey": []}, {"BearerKey": []}],
    "operator": [{"OperatorKey": []}],
    "public": [],
}
_NOTE_BY_ACCESS: Final = {
    "admin": "Needs a key with the `admin` role.",
    "operator": "Needs the operator's key.",
}
_SERIALIZATION_BY_TYPE: Final[dict[str, Json]] = {
    "array": {"style": "form", "explode": False},
    "object": {"style": "deepObject", "explode": True},
}
"""Serialization per type: comma-separated arrays; `name[KEY]=value` objects."""
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_TAG_BY_ROOT: Final = {"vendor": "Vendor feed", "aggregator": "Aggregator"}


def documented(operations: Iterable[Operation]) -> list[Operation]:
    """Return the operations included in the document, sorted by path and method."""
    found = [operation for operation in operations if operation.is_documented]
    return sorted(found, key=lambda operation: (operation.path, _METHODS.index(operation.method)))


def build(operations: Iterable[Operation], public_url: str) -> Json:
    """Build the document. `public_url` is the base URL of the API and of the problem pages."""
    found = documented(operations)
    types = [Payout, ProblemBody, FieldError, RefusedItem]
    for operation in found:
        types += [kind for kind in (operation.body, *operation.responses.values()) if kind is not None]
    builder = _Builder(Schemas(types), public_url)
    links = _links_by_type(found)
    paths: Json = {}
    for operation in found:
        paths.setdefault(operation.path, {})[operation.method.lower()] = builder.operation(operation, links)
    tags = {tag for path in paths.values() for entry in path.values() for tag in entry["tags"]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "PSP Sandbox", "version": version("psp-sandbox"), "description": _INFO},
        "servers": [{"url": public_url}],
        "tags": [{"name": tag, "description": TAGS[tag]} for tag in sorted(tags, key=_tag_sort_key)],
        "paths": paths,
        "webhooks": {event: webhook(event) for event in EVENT_TYPES},
        "components": builder.components(),
    }


def encode(document: Json) -> bytes:
    """Return the document as served and as committed: indented, so that diffs are readable."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _links_by_type(found: Sequence[Operation]) -> Links:
    """Collect links by response type, for list items and single objects alike."""
    links: Links = {}
    for operation in found:
        for kind in operation.responses.values():
            if kind is not None and operation.links:
                links.setdefault(page_item(kind) or kind, {}).update(operation.links)
    return links


def _tag(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    if not parts:
        return "Service"
    if parts[0] in _TAG_BY_ROOT:
        return _TAG_BY_ROOT[parts[0]]
    if parts[0] == "sandbox":
        return f"Sandbox: {parts[2].replace('-', ' ')}"
    return parts[2].replace("-", " ").capitalize() if parts[0] == "api" else "Service"


def _tag_sort_key(tag: str) -> tuple[bool, bool, bool, str]:
    """Sort the most used tags first."""
    return tag == "Service", tag.startswith("Sandbox"), tag != "Payouts", tag


class _Builder:
    def __init__(self, schemas: Schemas, public_url: str) -> None:
        self._schemas = schemas
        self._public_url = public_url
        self._responses: Json = {}

    def operation(self, operation: Operation, links: Links) -> Json:
        """Return an operation object."""
        operation_object: Json = {"operationId": operation.id, "summary": operation.summary, "tags": [_tag(operation.path)]}
        description = " ".join(filter(None, (operation.description, _NOTE_BY_ACCESS.get(operation.access))))
        if description:
            operation_object["description"] = description
        operation_object["security"] = _SECURITY_BY_ACCESS[operation.access]
        parameters: list[Json] = [
            {"name": name, "in": "path", "required": True, "schema": schema_of(kind)}
            for name, kind in operation.path_types.items()
        ]
        parameters += [
            {
                "name": query.name,
                "in": "query",
                "description": query.description,
                "schema": dict(query.schema),
                **_SERIALIZATION_BY_TYPE.get(str(query.schema.get("type")), {}),
            }
            for query in operation.query
        ]
        if operation.idempotency != "none":
            parameters.append({"$ref": f"#/components/parameters/{operation.idempotency}-idempotency-key"})
        if parameters:
            operation_object["parameters"] = parameters
        if operation.body is not None:
            operation_object["requestBody"] = self._body(operation)
        if lines := psp_lines(operation):
            operation_object["x-psp"] = {"line": lines[0], "columns": operation.columns.split()}
        operation_object["responses"] = {
            str(status): self._response(operation, status, kind, links) for status, kind in operation.responses.items()
        } | self._problems(operation, bool(operation.path_parameters))
        return operation_object

    def _body(self, operation: Operation) -> Json:
        schema = self._schemas.of(operation.body)
        media: Json = {"schema": schema}
        if operation.example is not None:
            media["example"] = operation.example
        return {"required": operation.requires_body, "content": {operation.body_media_type: media}}

    def _response(self, operation: Operation, status: int, kind: Any, links: Links) -> Json:
        headers = _headers("X-Request-Id")
        if status == 201:
            headers |= _headers("Location")
        if operation.idempotency != "none":
            headers |= _headers("Idempotent-Replayed")
        response: Json = {"description": operation.summary if status < 400 else "Not ready.", "headers": headers}
        if kind is None:
            return response
        schema = self._schemas.of(kind)
        response["content"] = {operation.media_type: {"schema": schema}}
        item = page_item(kind)
        targets = operation.links or links.get(item or kind, {})
        properties = self._resolve(self._schemas.of(item) if item else schema).get("properties", {})
        for name, (target, parameter) in targets.items():
            field = "id" if "id" in properties else parameter
            pointer = f"/data/0/{field}" if item else f"/{field}"
            response.setdefault("links", {})[name] = {
                "operationId": target,
                "parameters": {parameter: f"$response.body#{pointer}"},
            }
        return response

    def _resolve(self, schema: Json) -> Json:
        if "$ref" not in schema:
            return schema
        found: Json = self._schemas.components[schema["$ref"].rpartition("/")[2]]
        return found

    def _problems(self, operation: Operation, has_path_parameters: bool) -> Json:
        codes = {*operation.errors, *_ERRORS_BY_ACCESS[operation.access], "INTERNAL_ERROR"}
        if operation.access != "public":
            codes.add("VALIDATION_ERROR")
        if operation.body is not None:
            codes |= {"VALIDATION_ERROR", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"}
            codes |= {"MALFORMED_JSON"} if operation.body_media_type != MULTIPART else set()
        if has_path_parameters:
            codes.add("NOT_FOUND")
        if operation.idempotency != "none":
            codes |= {"INVALID_IDEMPOTENCY_KEY", "IDEMPOTENCY_KEY_IN_FLIGHT", "IDEMPOTENCY_KEY_REUSED"}
        if operation.idempotency == "required":
            codes.add("MISSING_IDEMPOTENCY_KEY")
        by_status: dict[int, list[str]] = {}
        for code in CODES:  # in the order of CODES
            if code in codes:
                by_status.setdefault(CODES[code].status, []).append(code)
        return {
            str(status): self._problem(status, possible, operation.idempotency != "none")
            for status, possible in sorted(by_status.items())
            if status not in operation.responses
        }

    def _problem(self, status: int, codes: list[str], is_stored: bool) -> Json:
        """Return a reference to the response for these codes; operations with the same set of errors share it."""
        has_replays = is_stored and status in (404, 409, 422)
        # Code generators make names of types from these, so they are words, and begin with a letter.
        name = "".join(["Problem", str(status), *map(_pascal, codes), *(["Stored"] if has_replays else [])])
        if name not in self._responses:
            headers = _headers("X-Request-Id")
            if status in (429, 503):
                headers |= _headers("Retry-After")
            if has_replays:
                headers |= _headers("Idempotent-Replayed")
            self._responses[name] = {
                "description": "\n".join(f"* `{code}`: {CODES[code].title}. {CODES[code].resolution}" for code in codes),
                "headers": headers,
                "content": {
                    MEDIA_TYPE: {
                        "schema": {
                            "allOf": [{"$ref": REF.format(name="ProblemBody")}],
                            "properties": {"status": {"const": status}, "code": {"enum": codes}},
                        },
                        "examples": {code: {"value": problem_example(code, self._public_url)} for code in codes},
                    }
                },
            }
        return {"$ref": f"#/components/responses/{name}"}

    def components(self) -> Json:
        """Return the components. Call this last, because the other methods add to them."""
        return {
            "schemas": dict(sorted(self._schemas.components.items())),
            "responses": dict(sorted(self._responses.items())),
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": SECURITY_SCHEMES,
        }


def problem_example(code: str, public_url: str) -> Any:
    """Return an example of a problem, as decoded JSON."""
    errors = [("amount", "must be more than 0")] if code == "VALIDATION_ERROR" else []
    detail = "amount must be more than 0." if errors else ""
    body = Problem(code, detail, errors=errors).body(public_url, "/api/v1/payouts", "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77")
    return msgspec.json.decode(body)


def _pascal(code: str) -> str:
    """Return a code such as NOT_FOUND as NotFound."""
    return "".join(word.capitalize() for word in code.split("_"))


def _headers(name: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"}}
