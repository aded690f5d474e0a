"""HTTP details of RFC 9110: methods and Allow, HEAD, media types, content codings, and the order of a request's checks."""

import gzip
import json
import re
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.domain.errors import Problem
from sandbox.http.accept import accepts
from tests.harness.raw_http import raw_request
from tests.harness.waiting import until
from tests.harness.world import World

DOCUMENT = json.loads((Path(__file__).parent.parent / "openapi" / "openapi.json").read_text())
# Every POST, PUT and PATCH under /api/v1 needs an idempotency key, which is checked before the body.
NEED_IDEMPOTENCY_KEY = [
    (method.upper(), re.sub(r"{\w+}", "x", path))
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if path.startswith("/api/v1/") and method in ("post", "put", "patch")
]


def problem_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the response's problem, which must have this status and code, and the request id."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (found["code"], found["status"]) == (code, status)
    assert found["request_id"] == response.headers["x-request-id"]
    return found


@pytest.mark.parametrize(("method", "path"), NEED_IDEMPOTENCY_KEY)
@pytest.mark.parametrize("content", [(b"a=b", "application/x-www-form-urlencoded"), (b"{", "application/json"), (b"", None)])
def test_a_missing_idempotency_key_is_reported_before_errors_in_the_body(
    world: World, method: str, path: str, content: tuple[bytes, str | None]
) -> None:
    body, kind = content
    response = world.client.request(method, path, content=body, headers={} if kind is None else {"content-type": kind})
    problem_of(response, 400, "MISSING_IDEMPOTENCY_KEY")
    assert len(NEED_IDEMPOTENCY_KEY) >= 20


def test_an_invalid_api_key_is_reported_before_a_missing_idempotency_key_or_media_type(world: World) -> None:
    headers = {"X-API-KEY": "sk_sandbox_wrong", "Accept": "text/html", "Content-Type": "text/plain"}
    response = world.client.post("/api/v1/payouts", content=b"x", headers=headers)
    problem_of(response, 401, "INVALID_API_KEY")


def test_a_missing_idempotency_key_is_reported_before_a_body_that_is_too_large(world: World) -> None:
    response = world.client.post("/api/v1/payouts", content=b" " * 3_000_000, headers={"content-type": "application/json"})
    problem_of(response, 400, "MISSING_IDEMPOTENCY_KEY")


@pytest.mark.parametrize(
    "accept",
    [
        None, "", "*/*", "application/*", "APPLICATION/JSON", "Application/Json;Q=0.1", "text/html, application/json;q=0.5",
        "text/html;q=0, */*", "application/json; charset=utf-8", "application/problem+json", "*/*;q=0, application/json",
        "application/xml;q=0.9,*/*;q=0.8", "application/json;q=0.001", " application/json , text/plain", "application/json,,",
    ],
)  # fmt: skip
def test_accept_headers_that_allow_json(accept: str | None) -> None:
    assert accepts(accept, "application/json", "application/problem+json")


@pytest.mark.parametrize(
    "accept",
    [
        "text/jsonx", "text/json", "application/jsonx", "application/json;q=0", "application/json;q=0.000", "*/*;q=0",
        "application/json;q=0, */*;q=1, application/problem+json;q=0", "text/html", "application/*;q=0, text/html",
        "*/json", "json", "application/vnd.api+json",
    ],
)  # fmt: skip
def test_accept_headers_that_do_not_allow_json(accept: str) -> None:
    assert not accepts(accept, "application/json", "application/problem+json")


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("APPLICATION/JSON", 200),
        ("text/jsonx", 406),
        ("application/json;q=0", 406),
        ("application/json;q=0, */*", 406),
        ("application/problem+json", 200),
        ("*/*;q=0", 406),
        ("text/event-stream", 406),
    ],
)
def test_a_request_that_does_not_accept_json_gets_406(world: World, accept: str, status: int) -> None:
    response = world.client.get("/api/v1/balance", headers={"Accept": accept})
    assert response.status_code == status
    if status == 406:
        problem_of(response, 406, "NOT_ACCEPTABLE")


def test_several_accept_headers_are_combined(world: World) -> None:
    separate = [("Accept", "text/html;q=0.5"), ("Accept", "application/json")]
    assert world.client.get("/api/v1/balance", headers=separate).status_code == 200
    assert world.client.get("/problems/NOT_FOUND", headers=separate).headers["content-type"] == "application/json"
    problem_of(
        world.client.get("/api/v1/balance", headers=[("Accept", "text/html"), ("Accept", "text/css")]), 406, "NOT_ACCEPTABLE"
    )


def test_no_content_type_repeats_a_parameter(world: World) -> None:
    # Prometheus 3 refuses to read metrics whose media type it cannot parse.
    responses = {
        path: world.client.get(path, headers={"Accept": "text/html, */*"}) for path in ("/metrics", "/docs", "/problems")
    }
    responses["/metrics of IPN"] = httpx.get(f"{world.stack.ipn_url}/metrics", timeout=60)
    kinds = {path: response.headers["content-type"] for path, response in responses.items()}
    page, metrics = "text/html; charset=utf-8", "text/plain; version=0.0.4; charset=utf-8"
    assert kinds == {"/metrics": metrics, "/docs": page, "/problems": page, "/metrics of IPN": metrics}


@pytest.mark.parametrize("second", ["x-idempotency-key", "idempotency-key"])
def test_two_different_idempotency_keys_are_refused_but_the_same_one_twice_is_accepted(world: World, second: str) -> None:
    body, kind, key = json.dumps(world.payout_body()).encode(), ("content-type", "application/json"), str(uuid.uuid4())
    headers = [kind, ("x-idempotency-key", key), (second, str(uuid.uuid4()))]
    response = world.client.post("/api/v1/payouts", content=body, headers=headers)
    assert "two different keys" in problem_of(response, 400, "INVALID_IDEMPOTENCY_KEY")["detail"]
    same = [kind, ("x-idempotency-key", key), (second, f'"{key}"')]
    assert world.client.post("/api/v1/payouts", content=body, headers=same).status_code == 201


@pytest.mark.parametrize("kind", [None, ""])
def test_a_body_without_a_content_type_is_refused(world: World, kind: str | None) -> None:
    headers = {"x-idempotency-key": str(uuid.uuid4())} | ({} if kind is None else {"content-type": kind})
    response = world.client.post("/api/v1/payouts", content=b"{}", headers=headers)
    detail = problem_of(response, 415, "UNSUPPORTED_MEDIA_TYPE")["detail"]
    assert detail == "Send Content-Type: application/json; this request has no Content-Type."


@pytest.mark.parametrize(("path", "limit"), [("/api/v1/payouts/batch", "2097152"), ("/ipn/callback", "65536")])
def test_a_body_that_is_too_large_is_refused_with_the_limit(world: World, path: str, limit: str) -> None:
    url = (world.stack.ipn_url if path.startswith("/ipn") else world.stack.api_url) + path
    headers = {"content-type": "application/json", "x-idempotency-key": str(uuid.uuid4())}
    response = world.client.post(url, content=b" " * 3_000_000, headers=headers)
    assert f" {limit} bytes" in problem_of(response, 413, "PAYLOAD_TOO_LARGE")["detail"]


@pytest.mark.parametrize(
    ("accept", "status"),
    [("Text/Event-Stream", 200), ("text/*", 200), ("*/*", 200), ("text/event-stream;q=0", 406), ("text/html", 406)],
)
def test_the_stream_requires_that_event_streams_are_accepted(world: World, accept: str, status: int) -> None:
    response = world.client.get("/sandbox/v1/stream", params={"timeout": 0}, headers={"Accept": accept})
    assert response.status_code == status


def test_the_operators_requests_follow_the_same_accept_rules(world: World) -> None:
    headers = {"X-ADMIN-KEY": world.stack.admin_key, "Accept": "text/jsonx"}
    problem_of(world.client.get("/sandbox/v1/merchants", headers=headers), 406, "NOT_ACCEPTABLE")
    headers["Accept"] = "APPLICATION/JSON"
    assert world.client.get("/sandbox/v1/merchants", params={"limit": 1}, headers=headers).status_code == 200


@pytest.mark.parametrize("kind", ["APPLICATION/JSON", "application/JSON; Charset=UTF-8", "Application/Merge-Patch+JSON"])
def test_content_types_are_case_insensitive(world: World, kind: str) -> None:
    body = json.dumps(world.payout_body()).encode()
    headers = {"content-type": kind, "x-idempotency-key": str(uuid.uuid4())}
    assert world.client.post("/api/v1/payouts", content=body, headers=headers).status_code == 201


def test_a_forms_content_type_is_case_insensitive(world: World) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nuuid,amount\r\n--b--\r\n'
    headers = {"content-type": "Multipart/Form-Data; Boundary=b", "x-idempotency-key": str(uuid.uuid4())}
    assert world.client.post("/api/v1/wallet/bulk-credit", content=body, headers=headers).status_code == 202


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip"])
@pytest.mark.parametrize("path", ["/api/v1/payouts", "/api/v1/wallet/bulk-credit"])
def test_a_body_with_a_content_coding_is_an_unsupported_media_type(world: World, path: str, coding: str) -> None:
    kind = "application/json" if path.endswith("payouts") else "multipart/form-data; boundary=b"
    headers = {"content-type": kind, "content-encoding": coding, "x-idempotency-key": str(uuid.uuid4())}
    response = world.client.post(path, content=gzip.compress(b"{}"), headers=headers)
    assert "Content-Encoding" in problem_of(response, 415, "UNSUPPORTED_MEDIA_TYPE")["detail"]
    assert response.headers["accept-encoding"] == "identity"


def test_a_callback_with_a_content_coding_is_an_unsupported_media_type(world: World) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = httpx.post(f"{world.stack.ipn_url}/ipn/callback", content=gzip.compress(b"{}"), headers=headers, timeout=60)
    problem_of(response, 415, "UNSUPPORTED_MEDIA_TYPE")


def test_the_content_coding_identity_is_accepted(world: World) -> None:
    body = json.dumps(world.payout_body()).encode()
    headers = {"content-type": "application/json", "content-encoding": "identity", "x-idempotency-key": str(uuid.uuid4())}
    assert world.client.post("/api/v1/payouts", content=body, headers=headers).status_code == 201


ALLOWED = {
    "/api/v1/payouts": "GET, HEAD, OPTIONS, POST",
    "/api/v1/payouts/batch": "OPTIONS, POST",
    "/api/v1/webhook-endpoints/x": "DELETE, GET, HEAD, OPTIONS, PATCH",
    "/aggregator/v1/source": "GET, HEAD, OPTIONS, PUT",
    "/health": "GET, HEAD, OPTIONS",
    "/sandbox/v1/merchants": "GET, HEAD, OPTIONS, POST",
}


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
def test_allow_lists_all_methods_of_the_path(world: World, path: str, allowed: str) -> None:
    options = world.client.options(path)
    assert (options.status_code, options.headers["allow"], options.content) == (204, allowed, b"")
    assert options.headers["x-request-id"]
    for method in ("TRACE", "PROPFIND"):
        response = world.client.request(method, path)
        problem_of(response, 405, "METHOD_NOT_ALLOWED")
        assert response.headers["allow"] == allowed


def test_options_of_an_unknown_path_is_not_found(world: World) -> None:
    problem_of(world.client.options("/nowhere"), 404, "NOT_FOUND")


@pytest.mark.parametrize("app", ["api", "ipn"])
@pytest.mark.parametrize("method", ["FOO", "get", "Post", "X" * 40, "GETT", "M-SEARCHES"])
def test_an_unknown_method_is_not_allowed(world: World, app: str, method: str) -> None:
    url = world.stack.api_url if app == "api" else world.stack.ipn_url
    response = raw_request(url, f"{method} /health HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: mine\r\n\r\n".encode())
    problem_of(response, 405, "METHOD_NOT_ALLOWED")
    assert (response.headers["allow"], response.headers["x-request-id"]) == ("GET, HEAD, OPTIONS", "mine")


def test_an_unknown_method_may_arrive_in_parts_and_with_a_body(world: World) -> None:
    parts = [b"BR", b"EW /health HT", b"TP/1.1\r\nHost: localhost\r\nContent-Le", b"ngth: 3\r\n\r\nabc"]
    response = raw_request(world.stack.api_url, *parts)
    problem_of(response, 405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    "request_", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET /health HTTP/9.9\r\n\r\n", b"(X) /health HTTP/1.1\r\n\r\n"]
)
def test_bytes_that_are_not_http_are_refused_with_a_problem(world: World, request_: bytes) -> None:
    response = raw_request(world.stack.api_url, request_)
    problem_of(response, 400, "VALIDATION_ERROR")
    assert response.headers["connection"] == "close"


def _get_paths(world: World) -> list[str]:
    document = world.get("/openapi.json").json()
    paths = [path.replace("{code}", "NOT_FOUND") for path, item in document["paths"].items() if "get" in item]
    return [*paths, "/", "/docs", "/problems", "/problems/NOT_FOUND"]


def test_head_has_the_status_and_headers_of_get_on_every_path_and_no_body(world: World) -> None:
    payout = world.create_payout("0004")["id"]
    # Headers that may differ between two requests, for example because of a cache or a rate limit.
    may_differ = {"x-request-id", "x-cache", "retry-after", "content-length"}
    for path in _get_paths(world):
        path = path.replace("{payout_id}", payout)
        path = re.sub(r"{\w+}", str(uuid.uuid4()), path)
        params = {"timeout": 0} if path.endswith("/stream") else {}
        headers = {"X-ADMIN-KEY": world.stack.admin_key}
        get = world.client.get(path, params=params, headers=headers)
        head = world.client.head(path, params=params, headers=headers)
        assert head.status_code == get.status_code, path
        assert head.content == b""
        assert head.headers["x-request-id"]
        if path != "/metrics" and "transfer-encoding" not in get.headers:
            assert "content-length" in head.headers, path
        expected = {name: value for name, value in get.headers.items() if name not in may_differ | {"transfer-encoding"}}
        assert {name: value for name, value in head.headers.items() if name not in may_differ} == expected, path


def test_head_has_the_content_length_of_get(world: World) -> None:
    assert world.client.head("/api/v1/balance").headers["content-length"] == str(len(world.get("/api/v1/balance").content))


def test_head_does_not_wait(world: World) -> None:
    payout = world.create_payout("0004")["id"]
    # If HEAD waited for 30 s, this client would time out.
    with httpx.Client(base_url=world.stack.api_url, headers={"X-API-KEY": world.api_key}, timeout=20) as client:
        path = f"/api/v1/payouts/{payout}"
        assert client.head(path, params={"wait_for": "CANCELLED", "timeout": 30}).status_code == 200
        streamed = client.head("/sandbox/v1/stream")
        assert (streamed.status_code, streamed.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


def test_head_requests_for_the_stream_occupy_no_slots(world: World) -> None:
    for _ in range(40):
        assert world.client.head("/sandbox/v1/stream").status_code == 200


def test_the_journal_records_head_as_head(world: World) -> None:
    request_id = str(uuid.uuid4())
    assert world.client.head("/api/v1/balance", headers={"X-Request-Id": request_id}).status_code == 200

    def found() -> list[dict[str, Any]]:
        return [entry for entry in world.get("/sandbox/v1/requests").json()["data"] if entry["request_id"] == request_id]

    entry = until(found)[0]
    assert (entry["method"], entry["path"], entry["status"]) == ("HEAD", "/api/v1/balance", 200)


def test_a_path_without_get_does_not_allow_head(world: World) -> None:
    response = world.client.head("/api/v1/payouts/batch")
    assert (response.status_code, response.headers["allow"], response.content) == (405, "OPTIONS, POST", b"")


def test_an_api_key_may_be_sent_as_a_bearer_token(world: World) -> None:
    with httpx.Client(base_url=world.stack.api_url, timeout=60) as client:
        for scheme in ("Bearer", "bearer", "BEARER "):
            headers = {"Authorization": f"{scheme} {world.api_key}"}
            assert client.get("/api/v1/balance", headers=headers).status_code == 200
            assert client.get("/sandbox/v1/stream", params={"timeout": 0}, headers=headers).status_code == 200
        headers = {"Authorization": f"Bearer {world.api_key}", "X-API-KEY": world.api_key}
        assert client.get("/api/v1/balance", headers=headers).status_code == 200
        headers = {"Authorization": f"Bearer {world.api_key}x", "X-API-KEY": world.api_key}
        problem_of(client.get("/api/v1/balance", headers=headers), 401, "INVALID_API_KEY")
        headers = {"Authorization": f"Bearer {world.api_key}", "X-API-KEY": "sk_sandbox_other"}
        problem_of(client.get("/api/v1/balance", headers=headers), 401, "INVALID_API_KEY")
        problem_of(client.get("/api/v1/balance", headers={"Authorization": "Bearer sk_sandbox_no"}), 401, "INVALID_API_KEY")
        for other in ("Basic abc", "Bearer", ""):
            problem_of(client.get("/api/v1/balance", headers={"Authorization": other}), 401, "MISSING_API_KEY")
        # Other schemes are ignored if there is an X-API-KEY; they may be meant for a proxy.
        headers = {"Authorization": "Basic abc", "X-API-KEY": world.api_key}
        assert client.get("/api/v1/balance", headers=headers).status_code == 200


def test_a_bearer_token_is_not_in_the_journal(world: World) -> None:
    request_id = str(uuid.uuid4())
    headers = {"Authorization": f"Bearer {world.api_key}", "X-Request-Id": request_id}
    assert httpx.get(f"{world.stack.api_url}/api/v1/balance", headers=headers, timeout=60).status_code == 200

    def found() -> list[dict[str, Any]]:
        return [entry for entry in world.get("/sandbox/v1/requests").json()["data"] if entry["request_id"] == request_id]

    until(found)
    assert world.api_key not in world.get("/sandbox/v1/requests").text


def test_the_root_redirects_browsers_to_the_console_and_gives_links_to_programs(world: World) -> None:
    with httpx.Client(base_url=world.stack.api_url, timeout=60) as client:
        html = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
        browser = client.get("/", headers=html)
        assert (browser.status_code, browser.headers["location"]) == (307, "/console")
        page = client.get("/", headers=html, follow_redirects=True)
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        for accept in ("*/*", "application/json", "application/json, text/html;q=0.5", "text/html;q=0, */*"):
            index = client.get("/", headers={"Accept": accept}).json()
            assert (index["name"], set(index)) == ("PSP Sandbox", {"name", "version", "links"})
            for link in index["links"].values():
                response = client.get(link, follow_redirects=True)
                assert response.status_code in (200, 503), link


def test_problems_that_only_the_server_sends_have_their_status() -> None:
    for code, status in (("REQUEST_TIMEOUT", 408), ("HEADERS_TOO_LARGE", 431)):
        assert Problem(code).status == status
