"""The console's pages of payouts: the list, one payout, a new one, many together."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from sandbox.server.console.pages import new_payout
from sandbox.server.console.pages.payouts import page_of_failures
from tests.harness.browser import WIDTHS, Browsing, check_accessibility, check_width
from tests.harness.console import ConsoleClient
from tests.harness.iban import make_iban
from tests.harness.receiver import Receiver
from tests.harness.world import World


def create(world: World, suffix: str = "0001", **fields: object) -> str:
    """Create a payout, and return its id when nothing more happens to it now."""
    created = world.post("/api/v1/payouts", world.payout_body(suffix, **fields)).json()
    world.post("/sandbox/v1/drain")
    return str(created["id"])


def test_the_list_has_filters_in_its_url(world: World, browsing: Browsing) -> None:
    closed, good = create(world, "0007", metadata={"order": "17"}), create(world, "0001")
    page = browsing.open("/console/payouts", world.api_key)
    rows = page.locator("#table-payouts tbody tr")
    assert rows.count() == 2
    page.get_by_label("FAILED").check()
    page.wait_for_url("**/console/m/*/payouts?status=FAILED")
    page.locator(f'#table-payouts a[href="{world.console}/payouts/{good}"]').first.wait_for(state="detached")
    page.get_by_label("RETRY").check()
    page.wait_for_url("**status=RETRY&status=FAILED")
    assert rows.count() == 1
    page.goto("/console/payouts")
    page.keyboard.press("/")
    page.keyboard.type(world.get(f"/api/v1/payouts/{good}").json()["merchant_reference"])
    page.locator(f'#table-payouts a[href="{world.console}/payouts/{closed}"]').first.wait_for(state="detached")
    assert rows.count() == 1
    page.goto("/console/payouts?metadata=order%3D17")
    assert page.locator(f'#table-payouts a[href="{world.console}/payouts/{closed}"]').first.is_visible()
    assert rows.count() == 1
    page.goto("/console/payouts?user_id=123")
    assert "user_id" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("User id").input_value() == "123"


def test_the_map_of_failures_leads_to_exactly_its_payouts(world: World, browsing: Browsing) -> None:
    closed = {create(world, "0007", bank_code="MCB") for _ in range(2)}
    for suffix, bank in (("0007", "HBL"), ("0006", "MCB"), ("0001", "MCB")):
        create(world, suffix, bank_code=bank)
    page = browsing.open("/console/payouts/failures", world.api_key)
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 900})
        check_accessibility(page)
        check_accessibility(page, "target-size")
        check_width(page)
    row = page.locator(".heat tbody tr", has_text="ACCOUNT_CLOSED")
    assert [cell.inner_text() for cell in row.locator("td").all()] == ["3", "1", "2"]
    row.locator("a", has_text="3").click()
    page.wait_for_url("**/payouts?failure_code=ACCOUNT_CLOSED")
    assert page.locator("#table-payouts tbody tr").count() == 3
    page.go_back()
    row.locator("a", has_text="2").click()
    page.wait_for_url("**/payouts?failure_code=ACCOUNT_CLOSED&bank_code=MCB")
    links = page.locator("#table-payouts tbody td:first-child a")
    assert {(link.get_attribute("href") or "").rpartition("/")[2] for link in links.all()} == closed


@pytest.mark.parametrize("counted", [{"bank_code": "HBL", "wallet_code": None}, {}])
def test_a_number_of_a_map_that_covers_the_newest_payouts_leads_to_no_older_ones(counted: dict[str, str | None]) -> None:
    row, since = {"failure_code": "TIMEOUT", **counted}, "2031-01-01T00:00:00.000Z"
    assert "created_from=2031" in page_of_failures(row, {"is_complete": False, "since": since})
    assert "created_from" not in page_of_failures(row, {"is_complete": True, "since": since})


def test_listed_payouts_are_drawn_together(world: World, browsing: Browsing) -> None:
    create(world, "0003")
    create(world, "0001")
    page = browsing.open("/console/payouts?status=FAILED", world.api_key)
    page.get_by_role("link", name="Draw them over time").click()
    page.wait_for_url("**/payouts?status=FAILED&drawn=yes")
    assert page.locator("#payouts-trace .lane-name .summary").all_text_contents() == ["✕ FAILED: BANK_REJECTED"]
    page.get_by_label("SUCCESS").check()
    page.wait_for_url("**drawn=yes**")
    page.locator("#payouts-trace .lane-name .summary.good").wait_for()
    assert page.locator("#payouts-trace .lane-name .summary").count() == 2


def test_a_payout_shows_each_change_with_its_money_event_and_attempts(
    world: World, receiver: Receiver, browsing: Browsing
) -> None:
    receiver.respond = lambda _: (503, {}, b"closed")
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).json()["id"]
    payout_id = create(world, "0007", amount="1500.00")
    page = browsing.open(f"/console/payouts/{payout_id}", world.api_key)
    assert "ACCOUNT_CLOSED" in page.locator("#payout-failure").inner_text()
    assert "The account is closed." in page.locator("#payout-failure").inner_text()
    rows = page.locator(".flow tbody tr")
    assert [row.locator(".flow-change .badge").inner_text() for row in rows.all()] == ["PENDING", "PROCESSING", "FAILED"]
    last = rows.nth(2)
    assert "−1,500.00" in last.inner_text()
    assert "+1,500.00" in last.inner_text()
    assert last.locator(f'a[href="{world.console}/webhooks/{endpoint}"]').inner_text() == receiver.url
    assert last.locator(".attempt").first.inner_text().startswith("503")
    event = world.get("/api/v1/events", payout_id=payout_id).json()["data"][0]
    assert last.locator(f'a[href="{world.console}/webhooks/events/{event["id"]}"]').inner_text() == "payout.failed"


def test_a_webhook_that_was_given_up_is_resent_where_the_page_says_so(
    world: World, receiver: Receiver, browsing: Browsing
) -> None:
    receiver.respond = lambda _: (404, {}, b"no such page")
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "retry_profile": "server_errors"})
    payout_id = create(world, "0007")
    page = browsing.open(f"/console/payouts/{payout_id}", world.api_key)
    told = page.locator("#payout-failure")
    assert "resend it when the receiver is well" in told.inner_text()
    receiver.respond = lambda _: (200, {}, b"")
    told.get_by_role("button", name="Resend payout.failed").click()
    page.locator("#payout-failure", has_text="reached").wait_for()
    assert page.get_by_role("button", name="Resend payout.failed").count() == 0


def test_run_now_advances_the_clock_to_what_happens_next(world: World, browsing: Browsing) -> None:
    world.post("/sandbox/v1/clock/freeze")
    payout_id = create(world, "0012")
    page = browsing.open(f"/console/payouts/{payout_id}", world.api_key)
    following = page.locator("#payout-next")
    assert "Next: SUCCESS → RETURNED" in page.locator(".flow tbody tr").last.inner_text()
    assert "SUCCESS → RETURNED" in following.inner_text()
    assert "in 1 min" in following.inner_text()
    following.get_by_role("button", name="Run now").click()
    page.get_by_role("status").wait_for()
    assert page.locator(".head .badge").inner_text() == "RETURNED"
    assert "Nothing is scheduled" in following.inner_text()


def test_a_change_appears_without_reloading(world: World, browsing: Browsing) -> None:
    payout_id = create(world, "0004")
    page = browsing.open(f"/console/payouts/{payout_id}", world.api_key)
    page.locator("body[data-listening]").wait_for()
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    world.post(f"/sandbox/v1/payouts/{payout_id}/simulate", {"status": "SUCCESS"})
    page.locator(".head .badge", has_text="SUCCESS").wait_for()
    assert fetched == [], "it is pushed"


def test_each_legal_action_has_a_button(world: World, browsing: Browsing) -> None:
    payout_id = create(world, "0004")
    page = browsing.open(f"/console/payouts/{payout_id}", world.api_key)
    choices = page.locator("#payout-actions")
    assert choices.get_by_role("button", name="Cancel", exact=True).count() == 1
    choices.get_by_label("Failure code").select_option("ACCOUNT_BLOCKED")
    choices.get_by_role("button", name="Simulate FAILED").click()
    page.get_by_role("status").wait_for()
    assert "ACCOUNT_BLOCKED" in page.locator("#payout-failure").inner_text()
    choices.get_by_role("button", name="Reinitiate").click()
    page.locator(".head .badge", has_text="PENDING").wait_for()
    choices.get_by_role("button", name="Simulate SUCCESS").click()
    page.locator(".head .badge", has_text="SUCCESS").wait_for()
    choices.get_by_role("button", name="Simulate RETURNED").click()
    page.locator(".head .badge", has_text="RETURNED").wait_for()
    assert "final" in choices.inner_text()


def test_a_member_sees_why_it_may_not_approve(world: World, browsing: Browsing) -> None:
    payout_id = world.post("/api/v1/payouts", world.payout_body(requires_approval=True)).json()["id"]
    key = world.post("/sandbox/v1/keys", {"role": "member", "name": "QA"}).json()["api_key"]
    page = browsing.open(f"/console/payouts/{payout_id}", key)
    assert page.get_by_role("button", name="Approve").is_disabled()
    assert page.get_by_role("button", name="Simulate PENDING").is_disabled()
    assert "admin role" in page.locator("#payout-actions").inner_text()
    assert page.get_by_role("button", name="Cancel", exact=True).is_enabled()


# ------------------------------------------------------------------------------------------------ a new payout


def test_a_first_time_user_fails_a_payout_finds_its_webhook_and_returns_another_by_mouse(
    world: World, receiver: Receiver, browsing: Browsing
) -> None:
    receiver.respond = lambda _: (200, {}, b"thank you")
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
    page = browsing.open("/console/payouts", world.api_key)
    page.get_by_role("link", name="New payout").click()
    page.get_by_role("radio", name="account_closed").check()
    page.get_by_role("button", name="Create payout").click()
    page.wait_for_url("**/console/m/*/payouts/*-*")
    page.locator("#payout-failure", has_text="ACCOUNT_CLOSED").wait_for()
    reported = page.locator(".flow tbody tr", has_text="payout.failed")
    reported.locator(".attempt", has_text="200").wait_for()
    reported.locator(".attempt").first.click()
    page.get_by_text("thank you").first.wait_for()
    page.get_by_role("button", name="Resend").click()
    page.get_by_text("Attempt 2", exact=True).first.wait_for()
    # A payout that succeeds, and its return.
    page.get_by_role("link", name="Payouts", exact=True).click()
    page.get_by_role("link", name="New payout").click()
    page.get_by_role("button", name="Create payout").click()
    page.locator(".head .badge", has_text="SUCCESS").wait_for()
    page.get_by_role("button", name="Simulate RETURNED").click()
    page.locator(".head .badge", has_text="RETURNED").wait_for()


def press_button(page: Page, name: str) -> None:
    """Skip to the content, move to a button with Tab, and press it. It is one of the first things in the content."""
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for _ in range(12):
        page.keyboard.press("Tab")
        text = page.evaluate("document.activeElement.textContent").strip()
        if text == "Skip the drawing":
            page.keyboard.press("Enter")
        if text == name:
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"the button {name} cannot be reached with Tab")


def test_the_same_by_keyboard_only(world: World, receiver: Receiver, browsing: Browsing) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
    page = browsing.open("/console", world.api_key)
    for key in ("g", "p"):
        page.keyboard.press(key)
    page.wait_for_url("**/console/m/*/payouts")
    page.keyboard.press("n")
    page.wait_for_url("**/console/m/*/payouts/new")
    page.locator("input[type=radio]:focus").wait_for()
    for _ in range(6):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/m/*/payouts/*-*")
    page.locator("#payout-failure", has_text="ACCOUNT_CLOSED").wait_for()
    page.locator(".flow tbody tr", has_text="payout.failed").locator(".attempt", has_text="200").wait_for()
    for key in ("j", "j", "j"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/m/*/webhooks/deliveries/*-*")
    press_button(page, "Resend")
    page.get_by_text("Attempt 2", exact=True).first.wait_for()
    for key in ("g", "p"):
        page.keyboard.press(key)
    page.wait_for_url("**/console/m/*/payouts")
    page.keyboard.press("n")
    page.wait_for_url("**/console/m/*/payouts/new")
    page.locator("input[type=radio]:focus").wait_for()
    page.keyboard.press("Enter")
    page.locator(".head .badge", has_text="SUCCESS").wait_for()
    press_button(page, "Simulate RETURNED")
    page.locator(".head .badge", has_text="RETURNED").wait_for()


def test_a_new_payout_shows_what_will_happen_while_it_is_typed(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/payouts/new", world.api_key)
    outcome, command = page.locator("#fragment-new-payout"), page.locator("#new-payout-command")
    account = page.get_by_label("Account or IBAN")
    page.get_by_role("radio", name="returned").check()
    outcome.get_by_text("RETURNED_BY_BANK").wait_for()
    assert account.input_value().endswith("0012")
    assert "after 1 min" in outcome.inner_text()
    page.get_by_label("Amount").fill("250000")
    outcome.get_by_text("Not returned, which you chose").wait_for()
    assert "psp payouts create 250000 " in command.inner_text()
    page.get_by_label("Scenario header").fill("slow_failure")
    outcome.get_by_text("TIMEOUT").wait_for()
    assert "X-Sandbox-Scenario: slow_failure" in command.inner_text()
    assert "--scenario slow_failure" in command.inner_text()
    page.get_by_label("Scenario header").fill("")
    page.get_by_label("Amount").fill("1500")
    account.fill(make_iban("HABB", "0000001123450001"))
    outcome.get_by_role("heading", name="The account").wait_for()
    page.get_by_label("Bank or wallet").select_option(label="MCB: MCB Bank Limited")
    page.locator(".field .error", has_text="The IBAN belongs to bank HABB").wait_for()
    assert account.get_attribute("aria-invalid") == "true"
    page.get_by_label("Bank or wallet").select_option(label="HBL: Habib Bank Limited")
    page.get_by_role("radio", name="account_closed").check()
    outcome.get_by_text("refuse this account").wait_for()
    assert account.get_attribute("aria-invalid") is None
    assert account.input_value() == make_iban("HABB", "0000001123450007")
    assert world.get("/sandbox/v1/requests", q="explain").json()["data"] == [], "previews are in the journal"


def test_a_refused_payout_keeps_its_form(world: World, browsing: Browsing) -> None:
    taken = world.post("/api/v1/payouts", world.payout_body()).json()["merchant_reference"]
    browsing.expected_statuses.add(409)
    page = browsing.open("/console/payouts/new", world.api_key)
    page.get_by_role("radio", name="failed …0003").check()
    page.get_by_label("Your reference").fill(taken)
    page.get_by_label("Metadata").fill("order=17\nnote=<b>x</b>")
    page.get_by_label("Needs approval").check()
    page.get_by_role("button", name="Create payout").click()
    assert "DUPLICATE_REFERENCE" in page.get_by_role("alert").inner_text()
    assert page.get_by_role("radio", name="failed …0003").is_checked()
    assert page.get_by_label("Needs approval").is_checked()
    page.get_by_label("Your reference").fill("ANOTHER")
    page.get_by_role("button", name="Create payout").click()
    page.wait_for_url("**/console/m/*/payouts/*-*")
    found = world.get("/api/v1/payouts", merchant_reference="ANOTHER").json()["data"][0]
    assert (found["metadata"], found["status"]) == ({"order": "17", "note": "<b>x</b>"}, "REQUESTED")
    page.get_by_role("link", name="Create another like this").click()
    assert page.get_by_label("Account or IBAN").input_value() == found["account_number"]
    assert page.get_by_label("Metadata").input_value() == "note=<b>x</b>\norder=17"
    assert page.get_by_label("Your reference").input_value() not in ("", "ANOTHER")


# ------------------------------------------------------------------------------------------------ many payouts


def test_a_batch_shows_the_result_of_each_row_and_keeps_the_input(world: World, browsing: Browsing, tmp_path: Path) -> None:
    file = tmp_path / "payouts.csv"
    file.write_text(
        "merchant_reference,amount,dest_type,bank_code,account_number,metadata.order\n"
        "B-1,10.00,BANK,HBL,12345678900001,1\nB-2,-1,BANK,HBL,12345678900001,2\nB-3,10.00,BANK,NOPE,12345678900001,\n"
    )
    page = browsing.open("/console/payouts/batch", world.api_key)
    page.get_by_label("CSV file").set_input_files(file)
    expect(page.locator("textarea")).to_have_value(re.compile("B-3"))
    page.get_by_role("button", name="Create payouts").click()
    assert "1 of 3 payouts were created. 2 were refused" in page.get_by_role("status").inner_text()
    rows = page.locator("#table-results tbody tr")
    assert [row.locator("td").first.inner_text() for row in rows.all()] == ["2", "3", "1"]
    assert "amount" in rows.nth(0).inner_text()
    assert "bank_code" in rows.nth(1).inner_text()
    assert page.locator("textarea").input_value() == file.read_text()
    refused = page.get_by_label("The refused rows, to correct").locator("code").inner_text()
    assert refused.splitlines() == [line for line in file.read_text().splitlines() if not line.startswith("B-1")]
    found = world.get("/api/v1/payouts").json()["data"]
    assert [(payout["merchant_reference"], payout["metadata"]) for payout in found] == [("B-1", {"order": "1"})]
    assert rows.nth(2).get_by_role("link").get_attribute("href") == f"{world.console}/payouts/{found[0]['id']}"
    check_accessibility(page)
    assert "B-1" in (page.locator("#batch-trace .lane-name").text_content() or "")
    page.get_by_role("link", name="Follow them").click()
    page.locator("#payouts-trace .lane-name .good", has_text="SUCCESS").wait_for()


def test_a_batch_that_is_not_csv_says_where(world: World, console: ConsoleClient) -> None:
    text = "merchant_reference,amount\nB-1,10.00,surplus\n"
    page = console.act("create_payouts", "/console/payouts/batch", _form="payout-batch", **{"payouts:csv": text})
    assert page.status_code == 400
    assert "line 2: the row and the header have different numbers of values." in page.text
    assert "B-1,10.00,surplus" in page.text


def test_a_link_of_the_catalogue_fills_in_its_account(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/catalogue?q=ACCOUNT_CLOSED", world.api_key)
    page.get_by_role("link", name="Create a payout").first.click()
    page.wait_for_url("**/console/m/*/payouts/new?**")
    assert page.locator('input[name="account_number"]').input_value().endswith("0007")
    page.locator("#fragment-new-payout").get_by_text("ACCOUNT_CLOSED").first.wait_for()


def test_the_form_of_a_new_payout_has_a_field_for_each_value_that_it_begins_with(world: World, console: ConsoleClient) -> None:
    """A field without such a value is empty, and does not break the page."""
    body = {key: value for key, value in world.payout_body().items() if key != "bank_code"}
    wallet = world.post("/api/v1/payouts", body | {"dest_type": "WALLET", "wallet_code": "EASYPAISA"}).json()
    for query in ("", "?like=x", f"?like={wallet['id']}", "?amount=1", "?bank_code=HBL"):
        page = console.get(f"{world.console}/payouts/new{query}")
        assert page.status_code == 200, query
        names = set(re.findall(r'name="([^"]+)"', page.text))
        assert names >= set(new_payout.DEFAULTS) | set(new_payout.LIVE_FIELDS)


def test_a_form_that_is_submitted_several_times_creates_one_payout_and_shows_it_each_time(
    world: World, console: ConsoleClient
) -> None:
    """As a double click does."""
    fields = {**world.payout_body(), "_key": "double-click", "_done": "/console/payouts/{id}"}
    with ThreadPoolExecutor(6) as pool:
        pages = list(pool.map(lambda _: console.act("create_payout", "/console/payouts/new", **fields), range(18)))
    assert {page.status_code for page in pages} == {200}, [page.text for page in pages if page.status_code != 200]
    (created,) = world.get("/api/v1/payouts").json()["data"]
    assert {page.url.path.rpartition("/")[2] for page in pages} == {created["id"]}


def test_the_page_says_how_a_webhook_that_failed_went_on(world: World, receiver: Receiver, console: ConsoleClient) -> None:
    receiver.respond = lambda _: (503, {}, b"busy")
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.succeeded"]})
    world.post("/sandbox/v1/clock/freeze")
    path = f"{world.console}/payouts/{world.create_payout('0001')['id']}"
    world.post("/sandbox/v1/drain")
    page = " ".join(console.get(path).text.split())
    assert "has not reached" in page
    assert ": 1 attempt failed, with 503. The next is due at" in page
    receiver.respond = lambda _: (200, {}, b"")
    world.post("/sandbox/v1/clock/advance", {"seconds": 10})
    page = " ".join(console.get(path).text.split())
    assert "on attempt 2. 1 failed before, with 503." in page
    assert "has not reached" not in page
