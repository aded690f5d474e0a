"""The console's pages about a merchant's world: its clock, snapshots, faults, scenarios, settings and keys."""

import re
from typing import get_args

import pytest

from sandbox.domain.enumerations import FaultKind
from sandbox.server.console.forms import body_of
from sandbox.server.console.pages.fault_kinds import EXAMPLES, KINDS
from sandbox.server.console.pages.faults import state
from tests.harness.browser import Browsing
from tests.harness.console import ConsoleClient
from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_sales import sell
from tests.test_users import make_user


@pytest.mark.parametrize(
    ("entered", "sent"),
    [
        ("2030-01-31", "2030-01-31T00:00:00Z"),
        ("2030-01-31 12:30", "2030-01-31T12:30:00Z"),
        ("2030-01-31T12:30:05.25z", "2030-01-31T12:30:05.25z"),
        ("2030-01-31T12:30:05+05:00", "2030-01-31T12:30:05+05:00"),
        ("tomorrow", "tomorrow"),
        ("2030-01-31T12", "2030-01-31T12"),
    ],
)
def test_a_time_can_be_entered_without_seconds_and_zone(entered: str, sent: str) -> None:
    assert body_of([("to:time", entered)]) == {"to": sent}
    assert body_of([("to:time", "")]) == {}


def test_freeze_advance_an_hour_and_see_the_return(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/world", world.api_key)
    page.get_by_role("button", name="Freeze now").click()
    page.get_by_role("heading", name="The clock is frozen").wait_for()
    page.locator("body[data-listening]").wait_for()
    created = world.post("/api/v1/payouts", world.payout_body("0012")).json()
    # The page shows what is due without being reloaded.
    page.locator("#table-due tbody tr").filter(has_text="RETURNED").wait_for()
    page.get_by_role("button", name="1 hour").click()
    returned = page.locator("#ran").get_by_role("row").filter(has_text="RETURNED")
    returned.wait_for()
    assert returned.locator(f'a[href="{world.console}/payouts/{created["id"]}"]').count() == 1
    assert world.get(f"/api/v1/payouts/{created['id']}").json()["status"] == "RETURNED"
    world.post("/api/v1/payouts", world.payout_body("0012"))
    page.locator("#table-due tbody tr").filter(has_text="RETURNED").wait_for()
    page.get_by_role("button", name="To the next thing due").click()
    page.get_by_role("heading", name="1 step ran").wait_for()
    # The address is the page's, so that reloading does not advance the clock again.
    assert page.url.endswith(f"{world.console}/world")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("heading", name="The clock is running").wait_for()


def test_an_advance_that_stops_early_continues_to_the_same_time(world: World, console: ConsoleClient) -> None:
    world.post("/sandbox/v1/clock/freeze", {"at": "2031-01-01T00:00:00Z"})
    fields = {"_form": "run-seconds", "_then": "stay", "_key": "the-same-key", "seconds:int": "60"}
    for _ in range(2):
        shown = console.act("advance_clock", "/console/world", **fields)
        assert "The clock moved from 2031-01-01 00:00:00 to 2031-01-01 00:01:00" in shown.text


def test_a_sale_is_listed_before_and_after_the_clock_pays_it(world: World, console: ConsoleClient) -> None:
    world.post("/sandbox/v1/clock/freeze", {"at": "2031-01-01T00:10:00Z"})
    sale_id = sell(world, make_user(world), "40")
    link = f'href="{console.home}/users/sales/{sale_id}"'
    shown = console.get(f"{console.home}/world").text
    assert "ADVANCE of 4.00 for Khaadi" in shown
    assert link in shown
    ran = console.act("advance_clock", "/console/world", **{"_form": "run-3600", "_then": "stay", "seconds:int": "3600"}).text
    assert "Payment of a sale" in ran
    assert "ADVANCE of 4.00" in ran
    assert link in ran


def test_a_snapshot_brings_back_what_a_reset_deleted(world: World, browsing: Browsing) -> None:
    world.post("/api/v1/payouts", world.payout_body("0004"))
    page = browsing.open("/console/world/snapshots", world.api_key)
    page.get_by_label("Name").fill("<b>before</b>")
    page.get_by_role("button", name="Take snapshot").click()
    page.get_by_text("Snapshot taken.").wait_for()
    page.get_by_role("button", name="Reset", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert len(world.get("/api/v1/payouts").json()["data"]) == 1
    page.get_by_role("button", name="Reset", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Yes").click()
    page.get_by_text("The merchant is reset.").wait_for()
    assert world.get("/api/v1/payouts").json()["data"] == []
    page.get_by_role("row").filter(has_text="<b>before</b>").get_by_role("button", name="Restore").click()
    page.get_by_role("dialog").get_by_role("button", name="Yes").click()
    page.get_by_text("Snapshot restored.").wait_for()
    assert len(world.get("/api/v1/payouts").json()["data"]) == 1
    page.get_by_label("Amount").fill("12.345")
    browsing.expected_statuses = {400}
    page.get_by_role("button", name="Top up").click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_label("Amount").input_value() == "12.345"
    page.get_by_role("row").filter(has_text="<b>before</b>").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Yes").click()
    page.get_by_text("No snapshot yet").wait_for()


def test_every_kind_of_fault_has_a_form() -> None:
    assert {kind.kind for kind in KINDS} == set(get_args(FaultKind))
    targets = {kind.kind: {known.target for known in KINDS if known.kind == kind.kind} for kind in KINDS}
    assert targets.pop("truncated_body") == {"api", "webhooks"}
    assert all(len(found) == 1 for found in targets.values())


def test_the_api_accepts_every_form_of_a_fault_with_its_example_values(world: World, console: ConsoleClient) -> None:
    for kind in KINDS:
        page = console.get(console.path(kind.href)).text
        assert all(f'name="{field.name}"' in page for field in kind.fields), kind
        own = {field.name: field.placeholder for field in kind.fields}
        limits = {"count:int": "3", "probability:int": "0.5", "ttl_seconds:int": "60", "seed:int": "7"}
        fields = {"kind": kind.kind, "target": kind.target, "match.path": "", "match.event_type": "", **own, **limits}
        shown = console.act("create_fault", kind.href, _done="/console/world/faults/{id}", _said="Fault added.", **fields)
        assert "Fault added." in shown.text, (kind, shown.text)
    for example in EXAMPLES:
        page = console.get(console.path(example.href)).text
        filled = re.findall(r'<input id="new-fault-[^"]*" name="([^":]*)(?::int)?"[^>]*value="([^"]+)"', page)
        fields = {name: value for name, value in example.fields.items() if name not in ("kind", "target", "match.method")}
        assert dict(filled) == fields


def test_a_fault_added_by_form_hits_and_shows_what_it_hit(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/world/faults", world.api_key)
    page.keyboard.press("n")
    page.get_by_role("link", name="The sandbox is down for one request").click()
    page.get_by_label("Status").fill("12")
    browsing.expected_statuses = {400}
    page.get_by_role("button", name="Add fault").click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_label("Path").input_value() == "/api/v1/payouts*", "the input is kept"
    page.get_by_label("Status").fill("502")
    page.get_by_role("button", name="Add fault").click()
    page.get_by_role("heading", name="Error response").wait_for()
    page.locator("body[data-listening]").wait_for()
    # The other API process learns of the fault within a second.
    until(lambda: world.get("/api/v1/payouts").status_code == 502)
    page.locator("#table-hits").get_by_role("row").filter(has_text="502").wait_for()
    page.get_by_text("1 of 1 matches, 0 left").wait_for()
    assert page.locator("#facts .badge").inner_text() == "used up"
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("No fault: everything works.").wait_for()


def test_a_fault_says_whether_it_can_hit() -> None:
    now, later = "2026-01-31T00:00:00.000Z", "2026-01-31T00:00:00.001Z"
    fault = {"remaining": None, "expires_at": None, "skip": 0, "matches": 0}
    assert state({**fault, "expires_at": later}, now) == "active"
    assert state({**fault, "expires_at": now}, now) == "expired"
    assert state({**fault, "remaining": 0}, now) == "used up"
    assert state({**fault, "remaining": 1, "skip": 3, "matches": 1}, now) == "waiting for 2 matches"
    assert state({**fault, "skip": 3, "matches": 2}, now) == "waiting for 1 match"
    assert state({**fault, "skip": 3, "matches": 3}, now) == "active"


def test_a_scenario_made_by_form_decides_what_a_payout_does(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/world/scenarios", world.api_key)
    page.keyboard.press("n")
    page.get_by_label("Name").fill("slow_bank")
    page.get_by_label("Account ends in").fill("4711")
    page.get_by_label("Metadata").fill("order=17\ncolour=<b>red</b>")
    second = page.get_by_role("group", name="Step 2")
    second.get_by_label("Status").select_option("RETURNED")
    second.get_by_label("After seconds").fill("3600")
    fourth = page.get_by_role("group", name="Step 4")
    browsing.expected_statuses = {400}
    page.get_by_role("button", name="Add scenario").click()
    # A payout that is PROCESSING cannot be returned; the message is beside the field, and the input is kept.
    page.get_by_role("group", name="Step 2").get_by_text("cannot be RETURNED").wait_for()
    assert second.get_by_label("After seconds").input_value() == "3600"
    second.get_by_label("Status").select_option("ON_HOLD")
    second.get_by_label("Wait here").check()
    fourth.get_by_label("Status").select_option("FAILED")
    fourth.get_by_label("Failure code").fill("ACCOUNT_CLOSED")
    # While the form is filled in, it shows what a payout would do.
    page.locator("#fragment-scenario").get_by_text("follows this scenario").wait_for()
    page.get_by_label("Account number", exact=True).last.fill("12345678900001")
    page.locator("#fragment-scenario").get_by_text("but the built-in scenario success").wait_for()
    page.get_by_role("button", name="Add scenario").click()
    page.get_by_text("Scenario saved.").wait_for()
    (rule,) = (rule for rule in world.get("/sandbox/v1/scenarios").json()["data"] if rule["source"] == "own")
    assert rule["match"] == {"suffix": "4711", "metadata": {"order": "17", "colour": "<b>red</b>"}}
    assert [(step["to"], step["after"], step["wait"]) for step in rule["steps"]] == [
        ("PROCESSING", 0, False), ("ON_HOLD", 3600, True), ("FAILED", 0, False),
    ]  # fmt: skip
    page.get_by_label("Account number").fill("12345678904711")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Metadata").fill("order=17\ncolour=<b>red</b>")
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("It follows your scenario").wait_for()
    page.locator("#table-explained").get_by_role("row").filter(has_text="ON_HOLD").wait_for()
    # Saving the form unchanged changes nothing.
    page.locator("#form-explain").locator("xpath=..").get_by_role("link", name="slow_bank").click()
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Scenario saved.").wait_for()
    assert world.get(f"/sandbox/v1/scenarios/{rule['id']}").json() == rule
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Yes").click()
    page.get_by_text("No scenario of your own.").wait_for()


def test_settings_by_form(world: World, console: ConsoleClient) -> None:
    page = console.get("/console/world/settings").text
    names = re.findall(r'id="settings-[^"]*" name="([^"]*)"', page)
    assert [name.partition(":")[0] for name in names] == [*world.get("/sandbox/v1/settings").json()]
    for values, expected in (
        (("FAILED", "", "60", "86400"), ["FAILED", None, 60, 86400]),
        (("PENDING", "5000.00", "", ""), ["PENDING", "5000.00", None, None]),
    ):
        console.act("change_settings", "/console/world/settings", **dict(zip(names, values, strict=True)))
        assert [*world.get("/sandbox/v1/settings").json().values()] == expected


def test_a_key_is_shown_once_and_revoking_the_sessions_key_signs_out(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/world/settings", world.api_key)
    page.get_by_label("Role").select_option("admin")
    page.locator("#form-create-key").get_by_label("Name").fill("checkout <i>service</i>")
    page.get_by_role("button", name="Create key").click()
    page.get_by_role("heading", name="Key created").wait_for()
    key = page.locator("section[role=status] code").inner_text()
    assert world.client.get("/sandbox/v1/keys", headers={"X-API-KEY": key}).status_code == 200
    page.reload()
    page.get_by_role("row").filter(has_text="checkout <i>service</i>").wait_for()
    assert key not in page.content()
    page.get_by_role("row").filter(has_text="checkout <i>service</i>").get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Yes").click()
    page.get_by_text("Key revoked.").wait_for()
    until(lambda: world.client.get("/sandbox/v1/keys", headers={"X-API-KEY": key}).status_code == 401)

    world.post("/sandbox/v1/keys", {"role": "admin", "name": "another admin"})
    page.get_by_role("row").filter(has_text="this session").get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_text("you will be signed out").wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Yes").click()
    page.wait_for_url("**/console/sign-in?next=**")


def test_a_member_sees_why_it_may_not_manage_keys(world: World) -> None:
    member = world.post("/sandbox/v1/keys", {"role": "member", "name": "member"}).json()["api_key"]
    with ConsoleClient(world.stack.api_url) as console:
        console.sign_in(member)
        for path in ("", "/snapshots", "/faults", "/faults/new", "/scenarios", "/scenarios/new", "/settings"):
            shown = console.get(f"/console/world{path}")
            assert shown.status_code == 200
        assert "This needs a key with the admin role." in shown.text
        assert 'id="table-keys"' not in shown.text


def test_the_commands_below_a_form_follow_its_fields(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/world", world.api_key)
    form = page.locator("#form-run-seconds")
    form.get_by_text("Command").click()
    form.get_by_role("textbox").fill("270000")
    form.locator("pre", has_text="psp clock advance --seconds 270000").wait_for()
    form.locator("pre", has_text='{"seconds": 270000}').wait_for()


def test_commands_of_forms_that_are_not_filled_in_have_the_example(world: World, console: ConsoleClient) -> None:
    for fields, status, shown in (
        ({"_operation": "advance_clock"}, 200, "--seconds 60"),
        ({"_operation": "cancel_payout", "path__payout_id": "p"}, 200, "payouts cancel p"),
        ({"_operation": "cancel_payout"}, 200, "payouts cancel ID"),
        ({"_operation": "no_such_operation"}, 404, ""),
        ({}, 404, ""),
    ):
        response = console.post(f"{console.home}/fragments/command", **fields)
        assert (response.status_code, shown in response.text) == (status, True), fields
