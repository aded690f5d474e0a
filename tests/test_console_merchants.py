"""Several merchants in one browser: no page shows another merchant, and no button touches one."""

import random
import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from playwright.sync_api import Page, expect

from sandbox.server.console.browser_sessions import Sessions
from sandbox.server.console.calls import ApiCalls
from sandbox.server.console.session import MAX_MERCHANTS, Session, SessionCodec
from tests.harness.browser import Browsing
from tests.harness.console import ConsoleClient
from tests.harness.world import Stack, World

NAMES = ("Alpha", "Beta", "Gamma")
PAGES = ("", "/payouts", "/ledger", "/webhooks", "/users", "/world", "/world/settings", "/requests")


@pytest.fixture
def worlds(stack: Stack) -> Iterator[list[World]]:
    """Yield three merchants."""
    found = [World.create(stack, name=f"{name} <i>&", opening_balance="1000000.00") for name in NAMES]
    yield found
    for world in found:
        world.client.close()


@pytest.fixture
def client(worlds: list[World]) -> Iterator[ConsoleClient]:
    """Yield a browser that is signed in to Alpha and then to Beta, without a browser."""
    with ConsoleClient(worlds[0].stack.api_url) as found:
        for world in worlds[:2]:
            assert found.sign_in(world.api_key).url.path == world.console
        yield found


def name_of(worlds: list[World], world: World) -> str:
    return f"{NAMES[worlds.index(world)]} <i>&"


def sign_in(page: Page, world: World, wanted: str = "/console/sign-in") -> None:
    page.goto(wanted)
    page.get_by_label("API key").fill(world.api_key)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(f"**{world.console}**")


def frozen(worlds: list[World]) -> list[bool]:
    return [world.get("/sandbox/v1/clock").json()["frozen"] for world in worlds]


def check(page: Page, worlds: list[World], world: World) -> None:
    """Assert that a page shows this merchant, in its address, header and title, and nothing of another one."""
    assert world.console in page.url
    expect(page.locator(".merchant-name")).to_have_text(name_of(worlds, world))
    assert name_of(worlds, world) in page.title()
    content = page.content()
    for other in worlds:
        assert (other.merchant_id in content) == (other is world), page.url


@pytest.mark.parametrize("visits", [16, pytest.param(50, marks=pytest.mark.slow)])
def test_no_tab_shows_or_touches_another_merchant(worlds: list[World], browsing: Browsing, visits: int) -> None:
    """Visits of all kinds in tabs of one browser, in a random order that repeats."""
    chance = random.Random(20)
    first = browsing.open("/console")
    tabs = {world.merchant_id: [first.context.new_page()] for world in worlds}
    first.close()
    for world in worlds:
        sign_in(tabs[world.merchant_id][0], world)
    # A browser has six connections to a host, and each tab that is visible, as all are here, keeps one for live updates.
    tabs[worlds[0].merchant_id].append(tabs[worlds[0].merchant_id][0].context.new_page())
    for _ in range(visits):
        world = chance.choice(worlds)
        page = chance.choice(tabs[world.merchant_id])
        before = frozen(worlds)
        index = worlds.index(world)
        match chance.choice(("read", "read", "read", "clock", "clock", "clock", "change", "session")):
            case "read":
                page.goto(world.console + chance.choice(PAGES))
            case "clock":
                page.goto(f"{world.console}/world")
                # Something happens in another merchant while the page is open.
                chance.choice(worlds).create_payout("0004")
                page.get_by_role("button", name="Resume" if before[index] else "Freeze now", exact=True).click()
                page.locator(".flash").wait_for()
                before[index] = not before[index]
            case "change":
                # A tab that is open loads parts of itself again.
                page.goto(f"{world.console}/payouts")
                page.locator("body[data-listening]").wait_for()
                created = world.create_payout("0004")
                page.get_by_role("row").filter(has_text=created["merchant_reference"]).wait_for()
            case _:
                page.goto(world.console)
                page.get_by_text("Account", exact=True).click()
                page.get_by_role("button", name="Sign out", exact=True).click()
                page.wait_for_url("**/console/sign-in")
                other = chance.choice([other for other in worlds if other is not world])
                page.goto(other.console)
                check(page, worlds, other)
                sign_in(page, world, f"{world.console}/payouts?status=FAILED")
                assert page.url.endswith(f"{world.console}/payouts?status=FAILED")
        check(page, worlds, world)
        assert frozen(worlds) == before


def test_a_page_whose_session_ended_keeps_what_was_typed_and_changes_nothing(worlds: list[World], browsing: Browsing) -> None:
    browsing.expected_statuses = {403}
    alpha = worlds[0]
    page = browsing.open(f"{alpha.console}/world", alpha.api_key)
    field = page.get_by_role("textbox", name="Seconds")
    field.fill("270000")
    other = page.context.new_page()
    other.goto(alpha.console)
    other.get_by_text("Account", exact=True).click()
    other.get_by_role("button", name="Sign out", exact=True).click()
    other.wait_for_url("**/console/sign-in")
    sign_in(other, alpha)
    alpha.create_payout("0001")
    page.get_by_role("alert").get_by_text("You signed in again since this page was opened").wait_for()
    field.press("Enter")
    page.get_by_role("alert").get_by_text("nothing was changed").wait_for()
    check(page, worlds, alpha)
    assert field.input_value() == "270000"
    before = alpha.get("/sandbox/v1/clock").json()["offset_seconds"]
    field.press("Enter")
    page.get_by_text("The clock moved").wait_for()
    assert alpha.get("/sandbox/v1/clock").json()["offset_seconds"] > before + 269_000


def test_a_link_on_another_site_opens_the_page_signed_in_and_signs_nobody_out(worlds: list[World], browsing: Browsing) -> None:
    alpha, beta, _ = worlds
    page = browsing.open(alpha.console, alpha.api_key)
    address = page.url.partition("/console/")[0]
    for wanted, shown in ((f"{alpha.console}/payouts?status=FAILED",) * 2, ("/console/payouts", f"{alpha.console}/payouts")):
        page.goto(f'data:text/html,<a href="{address}{wanted}">Open</a>')
        page.get_by_text("Open").click()
        page.wait_for_url(f"**{shown}")
        check(page, worlds, alpha)
    # A browser that sends no cookie with the request, such as for a picture, loses none by the response.
    with httpx.Client(base_url=address, headers={"Sec-Fetch-Site": "cross-site"}) as client:
        for path in (alpha.console, "/console", "/console/payouts", "/console/merchants"):
            assert "set-cookie" not in client.get(path).headers
        (cookie,) = client.get("/console/sign-in").headers.get_list("set-cookie")
        assert "_nobody=" in cookie
    page.goto(f'data:text/html,<a href="{address}{beta.console}/payouts?status=FAILED">Open</a>')
    page.get_by_text("Open").click()
    page.wait_for_url("**/console/sign-in?next=**")
    page.get_by_label("API key").fill(beta.api_key)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(f"**{beta.console}/payouts?status=FAILED")
    page.goto(f"{alpha.console}/world")
    check(page, worlds, alpha)


def test_tokens_and_parts_belong_to_one_merchant(worlds: list[World], client: ConsoleClient) -> None:
    alpha, beta, gamma = worlds
    client.get(f"{alpha.console}/world")
    of_alpha = client.token
    client.get(f"{beta.console}/world")
    assert client.token != of_alpha
    client.token = of_alpha
    page = {"_page": f"{alpha.console}/world"}
    # Alpha's token on Beta's address, with Alpha's page: nothing happens anywhere.
    for path in ("actions/freeze_clock", "fragments/new-payout", "sign-out"):
        assert client.post(f"{beta.console}/{path}", **page).status_code == 403
    assert client.post(f"{gamma.console}/actions/freeze_clock", **page).url.path == "/console/sign-in"
    assert client.http.get(f"{gamma.console}/live").status_code == 403
    assert client.http.get(f"{alpha.console}/live?session=of-another").status_code == 403
    assert frozen(worlds) == [False, False, False]
    assert client.post(f"{alpha.console}/actions/freeze_clock", **page).status_code == 200
    assert frozen(worlds) == [True, False, False]


def test_a_link_that_names_no_merchant_leads_to_the_one_that_is_open_or_asks(
    worlds: list[World], client: ConsoleClient
) -> None:
    alpha, beta, _ = worlds
    choice = client.get("/console/payouts?status=FAILED")
    assert choice.url.path == "/console/sign-in"
    for world in (alpha, beta):
        assert f'href="{world.console}/payouts?status=FAILED"' in choice.text
    client.get(alpha.console)
    client.post(f"{alpha.console}/sign-out")
    assert str(client.get("/console/payouts?status=FAILED").url).endswith(f"{beta.console}/payouts?status=FAILED")
    assert client.get("/console").url.path == beta.console
    client.post(f"{beta.console}/sign-out")
    page = client.get("/console/payouts?status=FAILED&q=a%20b")
    assert page.url.path == "/console/sign-in"
    opened = client.post("/console/sign-in", api_key=alpha.api_key, _next=page.url.params["next"])
    assert str(opened.url).endswith(f"{alpha.console}/payouts?status=FAILED&q=a%20b")
    assert client.get("/console/nothing/like/this").status_code == 404


def test_a_link_to_another_merchant_is_not_opened_with_the_wrong_key(worlds: list[World]) -> None:
    alpha, beta, _ = worlds
    with ConsoleClient(alpha.stack.api_url) as client:
        page = client.get(f"{beta.console}/payouts")
        assert beta.merchant_id in page.text
        opened = client.post("/console/sign-in", api_key=alpha.api_key, _next=page.url.params["next"])
        assert opened.url.path == alpha.console
        assert "needs another key" in opened.text
        for path in ("https://evil.example/", "//evil.example/console/", "/api/v1/balance", "/console/sign-in"):
            page = client.get("/console/sign-in")
            assert client.post("/console/sign-in", api_key=alpha.api_key, _next=path).url.path == alpha.console


def test_the_operator_and_a_merchants_key_work_side_by_side(worlds: list[World], client: ConsoleClient) -> None:
    alpha, beta, gamma = worlds
    member = alpha.post("/sandbox/v1/keys", {"role": "member", "name": "qa"}).json()["api_key"]
    client.sign_in(member)
    client.sign_in(alpha.stack.admin_key)
    roles = {alpha: "member", beta: "admin", gamma: "operator"}
    for world, role in roles.items():
        page = client.get(world.console).text
        assert f'<span class="role">{role}</span>' in page
        assert f"/console/m/{world.merchant_id}/payouts" in page
    # The operator's token counts in one merchant only.
    assert client.post(f"{beta.console}/actions/freeze_clock", _page=beta.console).status_code == 403
    client.get("/console/merchants")
    entered = client.post("/console/enter", merchant_id=alpha.merchant_id)
    assert entered.url.path == alpha.console
    assert '<span class="role">operator</span>' in entered.text
    client.get(gamma.console)
    client.post(f"{gamma.console}/sign-out")
    assert client.get(gamma.console).url.path == "/console/sign-in"
    assert client.get(alpha.console).url.path == "/console/sign-in"
    assert client.get(beta.console).url.path == beta.console


def test_a_browser_with_too_many_merchants_loses_the_one_used_least_recently() -> None:
    settings: Any = SimpleNamespace(secret_key=b"k" * 32, admin_key="operator's key", public_url="http://127.0.0.1:8000")
    codec = SessionCodec(settings.secret_key, settings.admin_key)
    now = int(time.time())
    known = [
        Session(
            id=f"{n}",
            csrf="c" * 32,
            started=now,
            seen=now - n,
            subject="s" * 36,
            merchant_id=str(uuid.UUID(int=n)),
            role="admin",
        )
        for n in range(1, MAX_MERCHANTS + 1)
    ]
    sent = "; ".join(f"{codec.cookie(session.merchant_id)}={codec.write(session)}" for session in known)
    assert len(sent) < 7000, "proxies refuse headers of more than 8 KB"
    request: Any = SimpleNamespace(header_list=lambda *_: [sent])
    new = msgspec.structs.replace(known[0], merchant_id=str(uuid.UUID(int=99)), seen=now)
    for session, lost in ((new, [known[-1]]), (known[3], [])):
        cookies: list[str] = []
        response: Any = SimpleNamespace(add_header=lambda _, value, found=cookies: found.append(value))
        Sessions(settings, ApiCalls([])).keep_new(request, response, session)
        assert [value.partition("=")[0] for value in cookies if "Max-Age=0" in value] == [
            codec.cookie(session.merchant_id) for session in lost
        ]
        assert cookies[-1].startswith(codec.cookie(session.merchant_id))
