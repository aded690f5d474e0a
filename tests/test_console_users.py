"""The console's pages about users: what they show, and the main flows in a browser."""

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.harness.console import ConsoleClient
from tests.harness.vendor import Vendor, row
from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_users import make_user, record, request_payout

if TYPE_CHECKING:
    from tests.harness.browser import Browsing


@pytest.fixture
def user_id(world: World) -> str:
    """A user who has earned 1,500.00."""
    found = make_user(world, name="Ayesha Khan", external_id="customer-17")
    record(world, found, "EARNED", "1500")
    return found


def member_key(world: World) -> str:
    key: str = world.post("/sandbox/v1/keys", {"role": "member"}).json()["api_key"]
    return key


def test_a_request_is_approved_and_another_appears_while_the_page_is_open(
    world: World, user_id: str, browsing: "Browsing"
) -> None:
    payout = request_payout(world, user_id, "1234.50")
    page = browsing.open("/console/users/approvals", world.api_key)
    page.locator("body[data-listening]").wait_for()
    row = page.get_by_role("row").filter(has_text="1,234.50").filter(has=page.get_by_role("button"))
    row.get_by_role("button", name="Approve").click()
    page.get_by_role("status").get_by_text("Approved 1,234.50 PKR").wait_for()
    assert row.count() == 0
    assert world.payout(payout["id"])["status"] != "REQUESTED"
    page.locator("body[data-listening]").wait_for()
    request_payout(world, user_id, "25")
    # A form that was pushed has this session's token, and a key of its own.
    page.get_by_role("row").filter(has_text="25.00").get_by_role("button", name="Reject").click()
    page.get_by_role("status").get_by_text("Rejected 25.00 PKR").wait_for()


def test_a_member_sees_who_waits_and_why_a_member_cannot_approve(world: World, user_id: str) -> None:
    request_payout(world, user_id, "40")
    with ConsoleClient(world.stack.api_url) as member:
        member.sign_in(member_key(world))
        page = member.get("/console/users/approvals").text
        assert "40.00" in page
        assert "This needs a key with the admin role" in page
        assert "/actions/approve_payout" not in page


def test_a_user_is_created_with_a_destination_of_the_directory(world: World, browsing: "Browsing") -> None:
    page = browsing.open("/console/users", world.api_key)
    page.keyboard.press("n")
    page.get_by_role("textbox", name="Name").fill("Bilal Ahmed")
    page.get_by_label("Bank or wallet").select_option(label="MCB · MCB Bank Limited")
    page.get_by_label("Account number or IBAN").fill("12x")
    browsing.expected_statuses = {400}
    page.get_by_role("button", name="Create user").click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("textbox", name="Name").input_value() == "Bilal Ahmed", "an error keeps the input"
    page.get_by_label("Account number or IBAN").fill("12345678900001")
    page.get_by_role("button", name="Create user").click()
    page.get_by_role("heading", name="Bilal Ahmed").wait_for()
    (user,) = world.get("/api/v1/users").json()["data"]
    assert user["destination"] == {
        "dest_type": "BANK", "bank_code": "MCB", "wallet_code": None, "account_number": "12345678900001",
    }  # fmt: skip


def test_a_form_changes_only_what_it_shows(world: World, console: ConsoleClient, user_id: str) -> None:
    page = f"/console/users/{user_id}"
    fields = {"path.user_id": user_id, "name": "Ayesha", "external_id:null": ""}
    console.act("change_user", page, **fields)
    user = world.get(f"/api/v1/users/{user_id}").json()
    assert (user["name"], user["external_id"], user["destination"]["bank_code"]) == ("Ayesha", None, "HBL")
    console.act("change_user", page, **{"path.user_id": user_id, "destination:null": ""})
    assert world.get(f"/api/v1/users/{user_id}").json()["destination"] is None


def test_a_users_page_shows_the_wallet(world: World, console: ConsoleClient, user_id: str) -> None:
    record(world, user_id, "SPENT", "250")
    payout = request_payout(world, user_id, "300")
    sale_id = make_sale(world, user_id, "Khaadi")
    assert world.post("/api/v1/payouts/advance/run").json()["paid"] == 1
    page = console.get(f"/console/users/{user_id}").text
    assert f'<a href="{world.console}/users/sales/{sale_id}">sale {sale_id}</a>' in page, "the cause of an entry is a link"
    for shown in (
        "1,254.00",
        "954.00",
        "−250.00",
        "customer-17",
        "HBL 12345678900001",
        f"{world.console}/payouts/{payout['id']}",
    ):
        assert shown in page, shown


def test_a_csv_with_bad_rows_says_which_and_why(world: World, user_id: str, browsing: "Browsing") -> None:
    page = browsing.open("/console/users/bulk-credit", world.api_key)
    page.get_by_label("Or paste its rows").fill("amount\n1")
    browsing.expected_statuses = {400}
    page.get_by_role("button", name="Upload").click()
    page.get_by_text("must begin with the header uuid,amount").wait_for()
    assert page.get_by_label("Or paste its rows").input_value() == "amount\n1", "an error keeps the input"
    content = f"uuid,amount\n{user_id},100.00\nnot-a-uuid,10\n{user_id},ten\n{user_id},100.00\n"
    page.get_by_label("CSV file").set_input_files({"name": "credits.csv", "mimeType": "text/csv", "buffer": content.encode()})
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/bulk-credit/*")
    page.get_by_role("heading", name="4 of 4 rows processed").wait_for()
    invalid = page.locator("#table-invalid-rows").get_by_role("row")
    assert "uuid: must be the id of a user" in invalid.filter(has_text="not-a-uuid").inner_text()
    assert "amount: must be more than 0" in invalid.filter(has_text="ten").inner_text()
    duplicate = page.locator("#table-duplicate-rows").get_by_role("row").nth(1)
    assert duplicate.get_by_role("cell").all_inner_texts() == ["5", user_id, "100.00", "2", "SUCCEEDED"]
    assert world.get(f"/api/v1/users/{user_id}/balance").json()["balance"] == "1700.00"
    with page.expect_download() as download:
        page.locator("#table-invalid-rows").get_by_role("link", name="CSV").click()
    assert download.value.path().read_text().splitlines()[1] == "3,not-a-uuid,10,uuid: must be the id of a user"


def test_failed_rows_are_retried_and_the_page_follows(world: World, user_id: str, browsing: "Browsing") -> None:
    activity_id = failed_bulk_credit(world, user_id)
    page = browsing.open(f"/console/users/bulk-credit/{activity_id}", world.api_key)
    page.locator("#table-failed-rows").get_by_text("the wallet was closed").wait_for()
    page.get_by_role("button", name="Retry failed rows").click()
    page.locator("#progress").get_by_text("COMPLETED", exact=True).wait_for()
    assert page.locator("#table-failed-rows").count() == 0
    assert page.locator("#table-rows").get_by_text("SUCCEEDED").count() == 1


def make_sale(world: World, user_id: str, brand: str) -> str:
    response = world.post("/api/v1/sales", {"user_id": user_id, "brand": brand, "earning": "40.00"})
    assert response.status_code == 201, response.text
    sale_id: str = response.json()["id"]
    return sale_id


def test_chosen_sales_are_reconciled_and_settled(world: World, user_id: str, browsing: "Browsing") -> None:
    undecided, approved, declined = (make_sale(world, user_id, brand) for brand in ("Alkaram", "Khaadi", "Sapphire"))
    page = browsing.open("/console/users/sales", world.api_key)
    page.get_by_role("button", name="Pay advances now").click()
    page.get_by_role("status").get_by_text("3 paid, 0 failed, 12.00 in total").wait_for()
    browsing.expected_statuses = {400}
    page.get_by_role("button", name="Reconcile the chosen sales").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("Decision about Khaadi").select_option("Approve")
    page.get_by_label("Decision about Sapphire").select_option("Decline")
    # A live update keeps decisions that are not submitted yet.
    page.locator("body[data-listening]").wait_for()
    make_sale(world, user_id, "Gul Ahmed")
    page.wait_for_function("() => waiting.size > 0")
    assert page.get_by_label("Decision about Khaadi").input_value()
    page.get_by_role("button", name="Reconcile the chosen sales").click()
    page.get_by_role("status").get_by_text("Sales reconciled.").wait_for()
    statuses = {sale["id"]: sale["status"] for sale in world.get("/api/v1/sales").json()["data"]}
    assert [statuses[sale] for sale in (undecided, approved, declined)] == ["PENDING", "APPROVED", "DECLINED"]
    page.get_by_role("button", name="Settle sales now").click()
    page.get_by_role("status").get_by_text("2 paid, 0 failed, 32.00 in total").wait_for()


def test_one_sale_is_approved_on_its_page(world: World, console: ConsoleClient, user_id: str) -> None:
    sale_id = make_sale(world, user_id, "Khaadi")
    page = f"/console/users/sales/{sale_id}"
    assert f"sales reconcile --approve {sale_id}" in console.get(page).text, "the button shows its command"
    decision = json.dumps({"sale_id": sale_id, "status": "APPROVED"})
    shown = console.act("reconcile_sales", page, **{"[]": "", "sale:json": decision}, _said="Sale reconciled.")
    assert "Sale reconciled." in shown.text
    assert world.get(f"/api/v1/sales/{sale_id}").json()["status"] == "APPROVED"


def test_dead_letters_are_shown_and_replayed(world: World, console: ConsoleClient) -> None:
    bad = {**row(1), "amount": "free"}
    with Vendor([bad, row(2, amount="12.00", user="0742")]) as vendor:
        page = "/console/users/aggregator"
        console.act("set_source", page, **{"url:null": vendor.url, "headers:pairs": "X-API-KEY=secret"})
        until(lambda: world.get("/aggregator/v1/dead-letters").json()["data"], seconds=60)
    shown = console.get(f"{page}?vendor_user_id=0742").text
    for text in (vendor.url, "X-API-KEY", "12.00", "free", "SUCCEEDED"):
        assert text in shown, text
    assert "secret" not in shown
    assert "1 remain" in console.act("replay_dead_letters", page, _then="stay").text


def in_thread(call: Callable[..., object]) -> Callable[..., object]:
    """Return a function that makes the call in a thread of its own: in this one, the browser's event loop is running."""

    def run(*arguments: object) -> object:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(call, *arguments).result()

    return run


def failed_bulk_credit(world: World, user_id: str, error: str = "the wallet was closed") -> str:
    """Return the id of a bulk credit whose only row failed for a reason that is gone."""
    activity_id = str(uuid.uuid4())
    execute = in_thread(world.stack.execute)
    execute(
        "INSERT INTO bulk_credits (merchant_id, id, status, total, invalid, duplicates, succeeded, failed, request_id, "
        "created_at, updated_at, completed_at) VALUES ($1, $2, 'FAILED', 1, 0, 0, 0, 1, 'r', now(), now(), now())",
        world.merchant_id,
        activity_id,
    )
    execute(
        "INSERT INTO bulk_credit_items (merchant_id, activity_id, line, user_id, amount, status, error) "
        "VALUES ($1, $2, 2, $3, '50.00', 'FAILED', $4)",
        world.merchant_id,
        activity_id,
        user_id,
        error,
    )
    return activity_id
