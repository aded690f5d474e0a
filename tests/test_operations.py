"""An operation is declared once: its route enforces what the document says, and a new one needs no registration."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest
from litestar.routes import HTTPRoute

from sandbox.domain.errors import Problem
from sandbox.http.middleware import api_middleware
from sandbox.http.operation import CURSOR, LIMIT, Operation, get, operations_of, post
from sandbox.http.paging import Page, window
from sandbox.http.rate_limit import RateLimiter
from sandbox.http.request import Caller, Request
from sandbox.http.responses import Response
from sandbox.http.routes import create_litestar
from sandbox.infrastructure.settings import Settings
from sandbox.server.app import BODY_LIMIT, create_app
from sandbox.server.docs.openapi import DEFAULT_URL, build, documented
from sandbox.server.request_log import RequestLog
from sandbox.users.bulk_credit.upload import Upload
from tests.harness.world import Stack

OPERATOR_KEY = "the operator's key"
SETTINGS = Settings.load(
    {
        "DATABASE_URL": "postgresql://nowhere/",
        "REDIS_URL": "redis://nowhere",
        "SANDBOX_SECRET_KEY": "A" * 43 + "=",
        "SANDBOX_ADMIN_KEY": OPERATOR_KEY,
    }
)
OPERATIONS = documented(create_app(SETTINGS).operations)
DOCUMENT = build(OPERATIONS, DEFAULT_URL)
IDS = [operation.id for operation in OPERATIONS]
HANDLER_REACHED = 299


class Keys:
    """Two API keys. Each lookup returns a new merchant id, so that no call counts towards another's rate limit."""

    async def caller(self, api_key: str) -> Caller:
        if api_key not in ("member", "admin"):
            raise Problem("INVALID_API_KEY")
        return Caller(str(uuid.uuid4()), str(uuid.uuid4()), api_key)


async def no_faults(request: Request) -> None:
    """Inject no faults."""


@asynccontextmanager
async def client_of(operations: Sequence[Operation], stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    limiter = RateLimiter(stack.redis_url)
    middleware = api_middleware(SETTINGS, Keys(), limiter, no_faults)
    app = RequestLog(create_litestar(operations, middleware, DEFAULT_URL, BODY_LIMIT))
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=DEFAULT_URL) as client:
            yield client
    finally:
        await limiter.close()


bodies: list[Any] = []
"""The decoded bodies that reached a handler."""


def with_stub(operation: Operation) -> Operation:
    """Return the operation with a handler that only records that it was reached."""

    async def with_body(request: Request, body: Any, **_: str) -> Response:
        bodies.append(body)
        if isinstance(body, Upload):
            body.file.close()
        return Response(HANDLER_REACHED)

    async def without_body(request: Request, **_: str) -> Response:
        return Response(HANDLER_REACHED)

    has_body = "requestBody" in DOCUMENT["paths"][operation.path][operation.method.lower()]
    return replace(operation, handler=with_body if has_body else without_body)


@pytest.fixture(scope="module")
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an application that checks requests as ours does, and then does nothing."""
    async with client_of([with_stub(operation) for operation in OPERATIONS], stack) as found:
        yield found


class Call:
    """A valid request for an operation, built from the document alone. A test changes one part of it."""

    def __init__(self, operation: Operation, client: httpx.AsyncClient) -> None:
        self.operation = operation
        self.documented: dict[str, Any] = DOCUMENT["paths"][operation.path][operation.method.lower()]
        self._client = client
        parameters = [
            DOCUMENT["components"]["parameters"][parameter["$ref"].rpartition("/")[2]] if "$ref" in parameter else parameter
            for parameter in self.documented.get("parameters", ())
        ]
        self.query = [parameter for parameter in parameters if parameter["in"] == "query"]
        self.key = next((parameter for parameter in parameters if parameter["name"] == "X-IDEMPOTENCY-KEY"), None)
        self.is_public = not self.documented["security"]
        content = self.documented.get("requestBody", {}).get("content", {})
        self.media_type: str | None = next(iter(content), None)
        self.example = content[self.media_type].get("example", {}) if self.media_type else None

    async def send(
        self, *, headers: Mapping[str, str | None] | None = None, params: Any = None, content: bytes | None = None
    ) -> httpx.Response:
        """Send the request. A header that is None is omitted."""
        sent: dict[str, str | None] = {
            "X-API-KEY": "admin", "X-ADMIN-KEY": OPERATOR_KEY, "X-IDEMPOTENCY-KEY": str(uuid.uuid4()),
            "Content-Type": self.media_type,
        }  # fmt: skip
        if content is None and self.media_type is not None and self.media_type.endswith("json"):
            content = msgspec.json.encode(self.example)
        elif content is None and self.media_type is not None:
            sent["Content-Type"] = f"{self.media_type}; boundary=b"
            head = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
            content = head + self.example["file"].encode() + b"\r\n--b--\r\n"
        sent.update(headers or {})
        path = self.operation.path
        for name in self.operation.path_parameters:
            path = path.replace(f"{{{name}}}", str(uuid.uuid4()))
        return await self._client.request(
            self.operation.method,
            path,
            params=params,
            content=content,
            headers={name: value for name, value in sent.items() if value is not None},
        )


@pytest.fixture(params=OPERATIONS, ids=IDS)
def call(request: pytest.FixtureRequest, client: httpx.AsyncClient) -> Call:
    return Call(request.param, client)


def code_of(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json", response.text
    code: str = response.json()["code"]
    return code


async def test_the_documented_request_is_sufficient(call: Call) -> None:
    headers = {} if call.key is not None else {"X-IDEMPOTENCY-KEY": None}
    assert (await call.send(headers=headers)).status_code == HANDLER_REACHED


async def test_the_api_key_is_checked(call: Call) -> None:
    without_key = await call.send(headers={"X-API-KEY": None, "X-ADMIN-KEY": None})
    wrong = await call.send(headers={"X-API-KEY": "other", "X-ADMIN-KEY": "other"})
    if call.is_public:
        assert (without_key.status_code, wrong.status_code) == (HANDLER_REACHED, HANDLER_REACHED)
        return
    assert (code_of(without_key), code_of(wrong)) == ("MISSING_API_KEY", "INVALID_API_KEY")
    merchant = await call.send(headers={"X-ADMIN-KEY": None})
    is_operators = call.documented["security"] == [{"OperatorKey": []}]
    assert merchant.status_code == HANDLER_REACHED if not is_operators else code_of(merchant) == "MISSING_API_KEY"


async def test_operations_for_admins_refuse_other_keys(call: Call) -> None:
    response = await call.send(headers={"X-API-KEY": "member"})
    if call.documented.get("description", "").endswith("Needs a key with the `admin` role."):
        assert (response.status_code, code_of(response)) == (403, "FORBIDDEN")
    else:
        assert response.status_code == HANDLER_REACHED


async def test_the_idempotency_key_is_checked(call: Call) -> None:
    missing = await call.send(headers={"X-IDEMPOTENCY-KEY": None})
    invalid = await call.send(headers={"X-IDEMPOTENCY-KEY": "x" * 256})
    if call.key is None:
        assert (missing.status_code, invalid.status_code) == (HANDLER_REACHED, HANDLER_REACHED)
    else:
        assert code_of(invalid) == "INVALID_IDEMPOTENCY_KEY"
        assert (
            missing.status_code == HANDLER_REACHED
            if not call.key.get("required")
            else code_of(missing) == "MISSING_IDEMPOTENCY_KEY"
        )


async def test_undocumented_query_parameters_are_refused(call: Call) -> None:
    response = await call.send(params={"other": "1"})
    if call.is_public:
        assert response.status_code == HANDLER_REACHED
    else:
        assert response.json()["errors"][0]["field"] == "other"


def _refused(schema: Mapping[str, Any]) -> list[str]:
    """Return values that this schema does not allow."""
    outside = [str(schema[bound] + step) for bound, step in (("minimum", -1), ("maximum", 1)) if bound in schema]
    outside += ["nan"] if schema.get("type") == "number" else []
    outside += [""] if schema.get("minLength") else []
    # An item without a value, as in "SUCCESS,".
    return [*outside, *(f"{choice}," for choice in schema.get("items", {}).get("enum", ())[:1])]


async def test_documented_query_parameters_are_checked(call: Call) -> None:
    for parameter in call.query:
        # No schema allows a NUL or a value longer than 1000 characters.
        name = f"{parameter['name']}[x]" if parameter["schema"].get("type") == "object" else parameter["name"]
        for value in ("\0", "x" * 1001, *_refused(parameter["schema"])):
            response = await call.send(params={name: value})
            assert (response.status_code, response.json()["errors"][0]["field"]) == (400, name)
        twice = await call.send(params=[(name, "1"), (name, "1")])
        assert twice.status_code == 400
        if "default" in parameter["schema"]:
            assert (await call.send(params={name: str(parameter["schema"]["default"])})).status_code == HANDLER_REACHED


async def test_the_body_is_decoded_as_documented(call: Call) -> None:
    if call.media_type is None:
        return
    bodies.clear()
    assert (await call.send()).status_code == HANDLER_REACHED
    (body,) = bodies
    assert body is not None
    assert code_of(await call.send(headers={"Content-Type": "text/csv"})) == "UNSUPPORTED_MEDIA_TYPE"
    assert code_of(await call.send(headers={"Content-Encoding": "gzip"})) == "UNSUPPORTED_MEDIA_TYPE"
    if not call.media_type.endswith("json"):
        return
    assert code_of(await call.send(content=b"{")) == "MALFORMED_JSON"
    assert code_of(await call.send(content=b'{"unknown field": 1}')) == "VALIDATION_ERROR"
    assert code_of(await call.send(content=b'"text"')) == "VALIDATION_ERROR"
    without = await call.send(content=b"", headers={"Content-Type": None})
    if call.documented["requestBody"]["required"]:
        assert without.status_code == 415
    else:
        assert without.status_code == HANDLER_REACHED


class Greeting(msgspec.Struct):
    """The response of the new operation."""

    text: str


class GreetingBody(msgspec.Struct, forbid_unknown_fields=True):
    """The request body of the new operation."""

    name: str


class GreetingApi:
    """The operations of a new slice. Nothing else is written for them."""

    def __init__(self, word: str) -> None:
        self._word = word

    @post("/api/v1/payouts/{payout_id}/greetings", "Greet", {201: Greeting}, GreetingBody, access="admin")
    async def create_greeting(self, request: Request, body: GreetingBody, payout_id: str) -> Greeting:
        key = request.context.key
        assert key is not None
        return Greeting(f"{self._word}, {body.name} in {payout_id}, by {key.key}")

    @get("/api/v1/payouts/{payout_id}/greetings", "List greetings", {200: list[Greeting]}, query=(LIMIT, CURSOR))
    async def list_greetings(self, request: Request, payout_id: str) -> Page:
        return Page([Greeting("x")] * window(request.query).limit, False, None)


async def test_a_declaration_alone_routes_checks_and_documents_a_new_operation(stack: Stack) -> None:
    operations = operations_of(GreetingApi("Hello"))
    document = build(operations, DEFAULT_URL)
    path = document["paths"]["/api/v1/payouts/{payout_id}/greetings"]
    assert path["post"]["operationId"] == "create_greeting"
    assert {"201", "400", "401", "403", "415", "429"} <= path["post"]["responses"].keys()
    assert [parameter.get("name") for parameter in path["get"]["parameters"]] == ["payout_id", "limit", "cursor"]
    async with client_of(operations, stack) as client:
        url, admin = "/api/v1/payouts/7/greetings", {"X-API-KEY": "admin"}
        with_key = {**admin, "X-IDEMPOTENCY-KEY": "k"}
        created = await client.post(url, json={"name": "Ada"}, headers=with_key)
        assert (created.status_code, created.json()) == (201, {"text": "Hello, Ada in 7, by k"})
        assert code_of(await client.post(url, json={"name": "Ada"})) == "MISSING_API_KEY"
        assert code_of(await client.post(url, json={"name": "Ada"}, headers={**with_key, "X-API-KEY": "member"})) == "FORBIDDEN"
        assert code_of(await client.post(url, json={"name": "Ada"}, headers=admin)) == "MISSING_IDEMPOTENCY_KEY"
        assert code_of(await client.post(url, json={"nmae": "Ada"}, headers=with_key)) == "VALIDATION_ERROR"
        assert len((await client.get(url, params={"limit": 3}, headers=admin)).json()["data"]) == 3
        assert code_of(await client.get(url, params={"limit": 0}, headers=admin)) == "VALIDATION_ERROR"
        assert (await client.options(url)).headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_a_handler_must_accept_the_parameters_that_its_declaration_names() -> None:
    class WrongPath:
        @get("/things/{thing_id}", "Get a thing", {200: str})
        async def get_thing(self, request: Request, id: str) -> str:
            return id

    class NoBody:
        @post("/things", "Make a thing", {200: str})
        async def make_thing(self, request: Request, body: str) -> str:
            return body

    for api in (WrongPath(), NoBody()):
        with pytest.raises(TypeError, match="its declaration requires"):
            operations_of(api)


def test_a_route_has_no_handler_but_those_of_its_operations() -> None:
    """Litestar adds one per path for OPTIONS, which nothing calls, and which takes as long to build as the operations' own."""
    app = create_litestar(OPERATIONS, (), DEFAULT_URL, BODY_LIMIT)
    names = [handler.name for route in app.routes if isinstance(route, HTTPRoute) for handler in route.route_handlers]
    assert sorted(names) == sorted(IDS)
