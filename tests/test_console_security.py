"""The console gives nothing to anyone without a session, and a session nothing that its key could not do."""

import csv
import io
import time
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import httpx
import pytest

from sandbox.server.console import session as sessions
from sandbox.server.console.data_table import Column, Table
from sandbox.server.console.paths import to_sign_in
from sandbox.server.console.session import OPERATOR, Session, SessionCodec
from tests.harness.console import ConsoleClient
from tests.harness.waiting import until
from tests.harness.world import Stack, World

PAGES = ("/console", "/console/payouts", "/console/merchants")
CODEC = SessionCodec(b"k" * 32, "operator's key")


@pytest.fixture
def operator(stack: Stack) -> Iterator[ConsoleClient]:
    """Yield a session of the operator."""
    with ConsoleClient(stack.api_url) as client:
        assert client.sign_in(stack.admin_key).url.path == "/console/merchants"
        yield client


# --------------------------------------------------------------------------------------------------- sessions


@pytest.mark.parametrize("path", PAGES)
def test_pages_need_a_session(stack: Stack, path: str) -> None:
    response = httpx.get(stack.api_url + path)
    assert (response.status_code, unquote(response.headers["location"])) == (303, to_sign_in(path))
    assert "set-cookie" not in response.headers


def test_live_updates_need_a_session(stack: Stack) -> None:
    assert httpx.get(f"{stack.api_url}/console/m/{stack.merchant_id}/live").status_code == 403


def test_a_wrong_key_opens_nothing(stack: Stack) -> None:
    with ConsoleClient(stack.api_url) as client:
        for key in ("sk_sandbox_wrong", "ünïcode\r\nX-Admin-Key: x", ""):
            page = client.sign_in(key)
            assert page.url.path == "/console/sign-in"
            assert "not valid" in page.text
            assert client.get("/console").url.path == "/console/sign-in"


def test_only_pages_that_no_other_site_caused_are_compressed(world: World, console: ConsoleClient) -> None:
    """The size of a compressed page can tell a secret in it to whoever chooses the page's query."""
    console.sign_in(world.api_key)
    page = console.path("/console/catalogue")
    plain = console.get(page)
    assert len(plain.content) > 20_000
    for site in (None, "cross-site", "same-site", "same-origin", "none"):
        response = console.get(page, headers={} if site is None else {"Sec-Fetch-Site": site})
        is_compressed = response.headers.get("content-encoding") == "gzip"
        assert is_compressed == (site in ("same-origin", "none")), site
        assert (response.num_bytes_downloaded < len(plain.content) / 3) == is_compressed
        assert len(response.content) == len(plain.content)
    unable = console.get(page, headers={"Sec-Fetch-Site": "none", "Accept-Encoding": "identity"})
    assert "content-encoding" not in unable.headers


def test_the_cookie_is_locked_down_and_does_not_contain_the_key(world: World) -> None:
    with ConsoleClient(world.stack.api_url) as client:
        client.get("/console/sign-in")
        response = client.http.post(
            "/console/sign-in", data={"_csrf": client.token, "api_key": world.api_key}, follow_redirects=False
        )
    cookie = response.headers["set-cookie"]
    assert "; HttpOnly" in cookie
    assert "; SameSite=Lax" in cookie
    assert "; Path=/console" in cookie
    assert world.api_key not in cookie
    assert world.api_key not in response.headers["location"]


def test_a_public_url_with_https_makes_the_cookie_secure() -> None:
    from sandbox.server.console.security import cookie

    assert cookie("name", "value", is_secure=True).endswith("; Secure")
    assert "Secure" not in cookie("name", "value", is_secure=False)


def test_a_forged_or_changed_cookie_is_nobody(console: ConsoleClient) -> None:
    name, value = next((name, value) for name, value in console.http.cookies.items() if name.endswith(console.home[-36:]))
    other = SessionCodec(b"x" * 32, "operator's key").write(
        Session(id="1", csrf="t", started=time.time(), seen=int(time.time()), subject=OPERATOR)
    )
    for forged in (value[:-4] + "AAAA", other, "x" * 5000, "{}"):
        response = httpx.get(f"{console.url}{console.home}", headers={"Cookie": f"{name}={forged}"})
        assert response.headers["location"].startswith("/console/sign-in?")


def test_a_session_ends_when_idle_and_after_its_maximum() -> None:
    written = CODEC.write(Session(id="1", csrf="t", started=1000.0, seen=1000))
    assert CODEC.read(written, 1000 + sessions.IDLE_SECONDS).session is not None
    assert CODEC.read(written, 1001 + sessions.IDLE_SECONDS).is_expired
    late = 1000 + sessions.MAX_SECONDS
    kept_busy = CODEC.write(Session(id="1", csrf="t", started=1000.0, seen=late))
    assert CODEC.read(kept_busy, late).session is not None
    assert CODEC.read(kept_busy, late + 1).session is None


def test_a_new_operators_key_ends_all_sessions() -> None:
    written = CODEC.write(Session(id="1", csrf="t", started=1000.0, seen=1000))
    assert SessionCodec(b"k" * 32, "another key").read(written, 1000).session is None


def test_signing_out_ends_this_session_for_copies_of_its_cookie_too(world: World, console: ConsoleClient) -> None:
    with ConsoleClient(world.stack.api_url) as other, ConsoleClient(world.stack.api_url) as copy:
        other.sign_in(world.api_key)
        copy.http.cookies.update(console.http.cookies)
        assert copy.get("/console/payouts").url.path == f"{world.console}/payouts"
        console.post(f"{console.home}/sign-out")
        assert copy.get("/console/payouts").url.path == "/console/sign-in"
        assert other.get("/console/payouts").url.path == f"{world.console}/payouts"


def test_signing_out_everywhere_ends_all_sessions_of_the_key_but_not_later_ones(world: World, console: ConsoleClient) -> None:
    with ConsoleClient(world.stack.api_url) as other:
        other.sign_in(world.api_key)
        other.post(f"{other.home}/sign-out", everywhere="true")
        assert console.get("/console").url.path == "/console/sign-in"
        assert console.sign_in(world.api_key).url.path == world.console


def test_revoking_a_key_ends_its_sessions(world: World) -> None:
    key = world.post("/sandbox/v1/keys", {"role": "member", "name": "qa"}).json()
    with ConsoleClient(world.stack.api_url) as client:
        assert client.sign_in(key["api_key"]).url.path == world.console
        world.client.delete(f"/sandbox/v1/keys/{key['id']}")
        assert client.get("/console").url.path == "/console/sign-in"


# --------------------------------------------------------------------------------------------------- forms


def top_up(console: ConsoleClient, **changes: str) -> httpx.Response:
    return console.act("top_up_balance", amount="5.00", **changes)


def test_a_form_needs_this_sessions_token(world: World, console: ConsoleClient) -> None:
    before = world.get("/api/v1/balance").json()
    stale = console.token
    with ConsoleClient(world.stack.api_url) as other:
        other.sign_in(world.api_key)
        of_another_session = other.token
    for token in ("", "x", of_another_session):
        console.token = token
        assert top_up(console).status_code == 403
    console.token = stale
    console.post(f"{console.home}/sign-out")
    console.sign_in(world.api_key)
    console.token = stale
    assert top_up(console).status_code == 403
    assert world.get("/api/v1/balance").json() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ],
    ids=str,
)
def test_a_form_from_another_site_is_refused(world: World, console: ConsoleClient, headers: dict[str, str]) -> None:
    before = world.get("/api/v1/balance").json()
    assert top_up(console, headers=headers).status_code == 403  # type: ignore[arg-type]  # post's own parameter
    assert world.get("/api/v1/balance").json() == before


def test_a_form_without_an_origin_is_refused(world: World, console: ConsoleClient) -> None:
    before = world.get("/api/v1/balance").json()
    del console.http.headers["Origin"]
    assert top_up(console).status_code == 403
    assert world.get("/api/v1/balance").json() == before


def test_pages_are_not_served_under_another_sites_name(stack: Stack) -> None:
    """A site that points its own name at this machine must not get a sign-in form with a valid token."""
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example"):
        response = httpx.get(f"{stack.api_url}/console/sign-in", headers={"Host": host})
        assert response.status_code == 403
        assert "_csrf" not in response.text


def test_signing_in_needs_a_token_and_an_origin_too(world: World) -> None:
    with ConsoleClient(world.stack.api_url) as client:
        client.get("/console/sign-in")
        token, client.token = client.token, "x"
        assert client.post("/console/sign-in", api_key=world.api_key).status_code == 403
        client.token = token
        refused = client.post("/console/sign-in", headers={"Origin": "https://evil.example"}, api_key=world.api_key)
        assert refused.status_code == 403


def test_submitting_a_form_twice_has_its_effect_once(world: World, console: ConsoleClient) -> None:
    before = float(world.get("/api/v1/balance").json()["available_balance"])
    for _ in range(2):
        assert top_up(console, _key="one-form").status_code == 200
    assert float(world.get("/api/v1/balance").json()["available_balance"]) == before + 5


# --------------------------------------------------------------------------------------------------- rights


def test_a_member_may_not_do_through_the_console_what_its_key_may_not(world: World) -> None:
    key = world.post("/sandbox/v1/keys", {"role": "member", "name": "qa"}).json()["api_key"]
    with ConsoleClient(world.stack.api_url) as client:
        client.sign_in(key)
        assert client.act("create_key", role="admin").status_code == 403
        assert client.act("create_merchant", name="x").status_code in (401, 403)
        assert client.get("/console/merchants").url.path == world.console
        assert client.post("/console/enter", merchant_id=world.stack.merchant_id).status_code == 403


def test_a_session_reaches_its_own_merchant_only(world: World, stack: Stack) -> None:
    payout = world.post("/api/v1/payouts", world.payout_body("0004")).json()
    with World.create(stack) as other, ConsoleClient(stack.api_url) as client:
        client.sign_in(other.api_key)
        assert payout["merchant_reference"] not in client.get("/console/payouts").text
        assert client.act("cancel_payout", path__payout_id=payout["id"]).status_code == 404
    assert world.get(f"/api/v1/payouts/{payout['id']}").json()["status"] == "PENDING"


def test_a_path_parameter_cannot_reach_another_operation(world: World, console: ConsoleClient) -> None:
    payout = world.post("/api/v1/payouts", world.payout_body("0004")).json()
    for value in (f"{payout['id']}/cancel", "..", "../payouts"):
        assert console.act("reinitiate_payout", path__payout_id=value).status_code in (404, 405)
    assert console.act("list_payouts").status_code == 404
    assert console.act("no_such_operation").status_code == 404
    assert world.get(f"/api/v1/payouts/{payout['id']}").json()["status"] == "PENDING"


def test_the_operator_enters_and_leaves_a_merchant(world: World, operator: ConsoleClient) -> None:
    entered = operator.keep_token(operator.post("/console/enter", merchant_id=world.merchant_id))
    assert entered.url.path == world.console, entered.text
    operator.home = world.console
    assert operator.act("top_up_balance", amount="5.00").status_code == 200
    calls = until(lambda: world.client.get("/sandbox/v1/requests", params={"path": "*/top-up"}).json()["data"])
    assert calls[0]["api_key_id"] is None
    assert operator.get("/console").url.path == "/console/merchants"
    for unknown in ("00000000-0000-7000-8000-000000000000", "x", "", world.merchant_id.upper() + "/"):
        assert operator.post("/console/enter", merchant_id=unknown).status_code == 404
        assert operator.get(f"/console/m/{unknown}/payouts").status_code == 404


def test_an_api_fault_does_not_lock_its_owner_out(world: World, console: ConsoleClient) -> None:
    fault = world.post("/sandbox/v1/faults", {"target": "api", "kind": "connection_reset"})
    assert fault.status_code == 201, fault.text
    assert console.get("/console/payouts").status_code == 200
    assert console.act("delete_fault", path__fault_id=fault.json()["id"]).status_code == 200


# --------------------------------------------------------------------------------------------------- responses


def test_every_page_forbids_framing_inline_script_and_caching(console: ConsoleClient) -> None:
    for path in (*PAGES, "/console/no-such-page"):
        headers = console.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_a_redirect_after_a_form_stays_in_the_console(console: ConsoleClient) -> None:
    another = "/console/m/00000000-0000-7000-8000-000000000000"
    for done in ("https://evil.example/", "//evil.example", "/console.evil", "javascript:alert(1)", "/api/v1/balance", another):
        response = console.http.post(
            f"{console.home}/actions/top_up_balance",
            data={"_csrf": console.token, "_page": console.home, "_done": done, "amount": "1.00"},
            follow_redirects=False,
        )
        assert response.headers["location"] == console.home, done
    fields = {"_csrf": console.token, "_page": console.home, "_done": f"{console.home}/a\r\nX-Evil: 1", "amount": "1.00"}
    response = console.http.post(f"{console.home}/actions/top_up_balance", data=fields, follow_redirects=False)
    assert response.headers["location"] == f"{console.home}/a%0D%0AX-Evil:%201"


def test_csv_cells_are_not_formulas(world: World, console: ConsoleClient) -> None:
    reference = '=HYPERLINK("http://evil")'
    created = world.post("/api/v1/payouts", {**world.payout_body("0004"), "merchant_reference": reference})
    assert created.status_code == 201, created.text
    response = console.get("/console/payouts?csv=payouts")
    assert response.content.startswith("\ufeffReference,".encode()), "spreadsheets recognize UTF-8 by its byte order mark"
    assert "'=HYPERLINK" in response.text
    assert ',"=HYPERLINK' not in response.text
    assert '\n"=HYPERLINK' not in response.text


def test_csv_cells_that_only_look_like_text_are_not_formulas() -> None:
    columns = (Column("text", "Text"), Column("amount", "Amount", "money"))
    formulas = ("=1+1", " =1+1", "\uff1d1+1", "\u200b@SUM", "\u00a0+1", "\ufeff-1", "\t1", "\r1")
    texts = ("1+1", "a=1", "", "'=1", "\u0634\u0631\u06a9\u062a")
    rows = [{"text": text, "amount": "-1.00"} for text in (*formulas, *texts)]
    found = list(csv.reader(io.StringIO(Table("t", "T", columns, rows).csv(), newline="")))[1:]
    assert [row[0] for row in found] == [f"'{text}" for text in formulas] + list(texts)
    assert {row[1] for row in found} == {"-1.00"}


def test_bad_forms_get_a_page_that_says_why(console: ConsoleClient) -> None:
    refuse: Callable[..., httpx.Response] = console.http.post
    action = f"{console.home}/actions/top_up_balance"
    assert refuse(action, content=b"{}", headers={"content-type": "application/json"}).status_code == 415
    many = "&".join(f"a{number}=1" for number in range(1000))
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert refuse(action, content=many, headers=form).status_code == 400
    assert refuse(action, content=b"\xff\xfe=1", headers=form).status_code == 400
    page = console.act("top_up_balance", amount="lots")
    assert page.status_code == 400
    assert "text/html" in page.headers["content-type"]


@pytest.mark.parametrize(
    "fields",
    [
        {"[]": "", "amount": "1"},
        {"payouts:csv": "a,b\n1"},
        {".".join(["a"] * 5000): "1"},
        {"amount:json": "9" * 4000},
        {"amount:json": '{"a": "\\ud800"}'},
        {"amount:json": "[" * 3000},
        {"amount:int": "NaN"},
        {":json": "[1]"},
        {"amount": "\0"},
        {"999999999999999999999999": "1", "0": "2"},
        {"_file": "x", "_scenario": "\r\nX-Admin-Key: 1"},
    ],
    ids=lambda fields: next(iter(fields))[:30],
)
def test_no_form_causes_an_internal_error(console: ConsoleClient, fields: dict[str, str]) -> None:
    page = {"_csrf": console.token, "_page": console.path("/console/payouts/new"), "_form": "new-payout"}
    operations = ("create_payout", "create_payouts", "explain_scenario", "upload_bulk_credit", "reconcile_sales")
    paths = ["fragments/new-payout", *(f"actions/{name}" for name in operations)]
    for path in paths:
        response = console.http.post(f"{console.home}/{path}", data={**page, **fields})
        assert response.status_code < 500, (path, response.text[-500:])
        assert "text/html" in response.headers["content-type"]
