"""The console's ledger, audit, requests and catalogue."""

import shlex
from decimal import Decimal

from sandbox.server.console.flow_chart import paid_out
from sandbox.server.console.replay import replay
from tests.harness.browser import WIDTHS, Browsing, check_accessibility, check_width
from tests.harness.world import World


def test_the_ledger_has_debits_and_credits_in_columns_and_filters_in_its_url(world: World, browsing: Browsing) -> None:
    payout = world.create_payout("0001", amount="1500.00")
    world.post("/sandbox/v1/drain")
    page = browsing.open("/console/ledger", world.api_key)
    rows = page.locator("#table-entries tbody tr")
    locked = rows.filter(has_text="LOCKED").last
    assert locked.locator("td[data-label=Credit]").inner_text() == "1,500.00"
    assert locked.locator("td[data-label=Debit]").inner_text() == "—"
    assert locked.locator(f'a[href="{world.console}/payouts/{payout["id"]}"]').count() == 1
    page.get_by_label("Account", exact=True).select_option("LOCKED")
    page.wait_for_url("**/console/m/*/ledger?account=LOCKED")
    rows.filter(has_text="AVAILABLE").first.wait_for(state="detached")
    page.get_by_label("Payout id").fill("12")
    page.get_by_role("alert").get_by_text("payout_id").wait_for()


def test_the_ledger_changes_live(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/ledger", world.api_key)
    page.locator("body[data-listening]").wait_for()
    world.post("/sandbox/v1/balance/top-up", {"amount": "1234.56"})
    page.locator("#table-entries").get_by_text("1,234.56").first.wait_for()


def test_the_flow_of_a_day_leads_to_its_entries(world: World, browsing: Browsing) -> None:
    world.post("/sandbox/v1/clock/freeze", {"at": "2031-03-01T10:00:00Z"})
    world.create_payout("0012", amount="1500.00")
    world.post("/sandbox/v1/clock/advance", {"seconds": 90})
    world.post("/sandbox/v1/clock/advance", {"seconds": 86_400})
    world.create_payout("0003", amount="20.00")
    world.post("/sandbox/v1/drain")
    page = browsing.open("/console/ledger/flow", world.api_key)
    assert page.locator(".tile", has_text="Paid out").locator(".tile-value").inner_text() == "0.00"
    arrows = page.locator(".flow-chart a")
    said = [arrow.locator("title").text_content() for arrow in arrows.all()]
    assert said[:5] == [
        "2031-03-02: 20.00 from Available to Locked in 1 transfer",
        "2031-03-02: 20.00 from Locked to Available in 1 transfer",
        "2031-03-01: 1,500.00 from Available to Locked in 1 transfer",
        "2031-03-01: 1,500.00 from Locked to Settlement in 1 transfer",
        "2031-03-01: 1,500.00 from Settlement to Available in 1 transfer",
    ]
    assert page.locator("#table-flows tbody tr").count() == len(said)
    arrows.nth(2).focus()
    assert page.locator("#flow-chart .trace-detail").inner_text() == said[2]
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 900})
        check_accessibility(page)
        check_accessibility(page, "target-size")
        check_width(page)
    page.keyboard.press("Enter")
    page.wait_for_url("**/ledger?created_from=2031-03-01*")
    assert page.locator("#table-entries tbody tr").count() == 4


def test_the_audit_names_each_check_in_words(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/ledger/audit?run=now", world.api_key)
    checks = world.get("/sandbox/v1/audit").json()["checks"]
    assert page.get_by_role("heading", name=f"All {len(checks)} checks passed").is_visible()
    for check in checks:
        assert page.get_by_role("row").filter(has_text=check["detail"]).count() == 1
    csv = page.request.get("/console/ledger/audit?run=now&csv=audit").text()
    assert len(csv.splitlines()) == len(checks) + 1


def test_a_request_shows_what_it_caused_and_how_to_repeat_it(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/requests", world.api_key)
    page.locator("body[data-listening]").wait_for()
    body = world.payout_body("0007")
    created = world.post("/api/v1/payouts", body, key="same-key-7").json()
    world.post("/sandbox/v1/drain")
    row = page.locator("#table-requests tbody tr").filter(has_text="/api/v1/payouts")
    row.first.wait_for()
    page.get_by_label("Search", exact=True).fill(body["merchant_reference"])
    page.wait_for_url("**/console/m/*/requests?q=*")
    row.get_by_role("link", name="/api/v1/payouts").first.click()
    page.wait_for_url("**/console/m/*/requests/*-*")
    caused = page.locator("#table-caused")
    assert caused.get_by_text("FAILED", exact=True).count() == 1
    assert caused.locator(f'a[href="{world.console}/payouts/{created["id"]}"]').count() >= 1
    again = page.locator("section", has=page.get_by_role("heading", name="Send it again"))
    same = again.locator("pre", has_text="same-key-7")
    assert body["merchant_reference"] in same.inner_text()
    assert "$PSP_API_KEY" in same.inner_text()
    assert again.locator("pre", has_text="/dev/urandom").count() == 1
    assert again.locator("pre", has_text="psp payouts create").count() == 1


def test_an_unfinished_filter_keeps_the_page(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/requests?status=4&path=/api/v1/payouts*", world.api_key)
    assert "status" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Path").input_value() == "/api/v1/payouts*"


def test_each_example_of_the_catalogue_does_what_the_catalogue_says(world: World) -> None:
    own = {
        "name": "big_wallets",
        "match": {"wallet_code": "EASYPAISA", "amount_from": "9000.00"},
        "steps": [{"to": "CANCELLED"}],
    }
    assert world.post("/sandbox/v1/scenarios", own).status_code == 201
    entries = world.get("/sandbox/v1/catalogue", bank_code="UBL").json()["scenarios"]
    assert entries[0]["scenario"]["name"] == "big_wallets"
    assert len(entries) == 17
    for entry in entries:
        example = entry["example"]
        where = {name: example[name] for name in ("bank_code", "wallet_code") if example[name]}
        dest_type = "BANK" if "bank_code" in where else "WALLET"
        for number in filter(None, (example["account_number"], example["iban"])):
            account = {"dest_type": dest_type, "account_number": number, **where}
            payout = {"merchant_reference": "x", "amount": example["amount"], **account}
            explained = world.post("/sandbox/v1/scenarios/explain", payout).json()
            assert (explained["scenario"], explained["steps"]) == (entry["scenario"]["name"], entry["steps"])
            verified = world.post("/api/v1/verify-account", account).json()
            assert verified["reason"] == entry["refusal"]
        assert entry["sale_payments"] == ("failed" if entry["scenario"]["name"] in ("failed", "big_wallets") else "paid")


def test_the_catalogue_is_searched_while_typing_and_leads_to_a_payout(world: World, browsing: Browsing) -> None:
    world.post("/sandbox/v1/scenarios", {"name": "mine", "match": {"suffix": "77"}, "steps": [{"to": "CANCELLED"}]})
    page = browsing.open("/console/catalogue", world.api_key)
    cards = page.locator("article")
    assert cards.count() == 17
    assert "Mine" in cards.first.inner_text()
    page.keyboard.press("/")
    page.keyboard.type("account_closed")
    page.wait_for_url("**/console/m/*/catalogue?q=account_closed")
    cards.nth(1).wait_for(state="detached")
    assert "12345678900007" in cards.inner_text()
    assert cards.locator("button[data-copy='12345678900007']").count() == 1
    cards.get_by_role("link", name="Create a payout").click()
    page.wait_for_url("**/console/m/*/payouts/new?account_number=12345678900007**")
    assert "FAILED" in page.locator("main").inner_text()


def test_a_recorded_body_cannot_break_out_of_the_command() -> None:
    body = '{"note":"it\'s $(id) \x1b[201~\x9b"}'
    entry = {"method": "POST", "path": "/api/v1/x y", "query": "a=\x1b b", "request_headers": {}, "request_body": body}
    found = replay({**entry, "idempotency_key": "k'; id"}, "http://127.0.0.1:8000")
    words = shlex.split(found.same.replace("\\\n", ""))
    assert words[4] == "http://127.0.0.1:8000/api/v1/x%20y?a=%1B%20b"
    assert "X-IDEMPOTENCY-KEY: k'; id" in words
    assert words[-1] == '{"note":"it\'s $(id) \\u001b[201~\\u009b"}'
    assert not found.is_incomplete
    assert replay({**entry, "idempotency_key": None, "request_body": "...[cut]"}, "http://x").is_incomplete


def test_what_was_paid_out_is_less_what_the_bank_returned() -> None:
    days = [
        {"day": day, "flows": [{"from_account": source, "to_account": target, "count": 1, "amount": amount}]}
        for day, source, target, amount in (
            ("2031-03-02", "SETTLEMENT", "AVAILABLE", "20.50"),
            ("2031-03-01", "LOCKED", "SETTLEMENT", "1500.00"),
            ("2031-03-01", "AVAILABLE", "LOCKED", "1500.00"),
        )
    ]
    assert paid_out(days) == Decimal("1479.50")
