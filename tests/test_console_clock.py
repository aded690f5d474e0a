"""The clock's drawing: what is due lies ahead, a preview says what will happen until a time, and a run shows its results."""

import re
from typing import Any

import httpx

from sandbox.server.console.clock_trace import due_trace, ran_trace
from tests.harness.browser import WIDTHS, Browsing, check_accessibility, check_width
from tests.harness.console import ConsoleClient
from tests.harness.receiver import Receiver
from tests.harness.world import World

NOW = "2026-01-31T00:00:00.000Z"


def item(due_at: str, kind: str = "payout_step") -> dict[str, Any]:
    return {"kind": kind, "due_at": due_at, "description": f"due at {due_at}"}


def test_each_time_that_is_due_can_be_chosen() -> None:
    items = [item("2026-01-31T00:01:00.000Z"), item("2026-02-01T00:00:00.000Z", "delivery_attempt")]
    found = due_trace(items, NOW, items[0]["due_at"])
    assert [mark.href for mark in found.marks] == ["/world?upto=1#preview", "/world?upto=2#preview"]
    assert all(mark.is_due and mark.x > found.now for mark in found.marks)
    assert {(bar.x, bar.x + bar.width) for bar in found.bars} == {(found.now, found.marks[0].x)}
    assert [found.lane.name for found in found.lanes] == ["Payouts", "Webhooks"]


def test_a_failed_step_of_a_run_is_red_and_an_attempt_has_its_answer() -> None:
    step = {"kind": "delivery_attempt", "at": NOW, "what": "Webhook attempt 1", "result": "failed", "detail": "HTTP 503",
            "status": 503, "delivery_id": "d"}  # fmt: skip
    good = {**step, "result": "succeeded", "status": None, "at": "2026-01-31T00:01:00.000Z"}
    found = ran_trace([step, good], "2026-01-31T00:01:00.000Z")
    assert [(mark.tone, mark.label) for mark in found.marks] == [("bad", "503"), ("good", "none")]
    assert [lane.lane.summary for lane in found.lanes] == ["2 ran, 1 failed"]


def test_the_preview_says_what_will_happen_and_the_run_is_drawn(world: World, receiver: Receiver, browsing: Browsing) -> None:
    receiver.respond = lambda _: (503, {}, b"down")
    world.post("/sandbox/v1/clock/freeze")
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
    world.post("/api/v1/payouts", world.payout_body("0012"))
    world.post("/sandbox/v1/drain")
    page = browsing.open("/console/world", world.api_key)
    preview, slider = page.locator("#preview"), page.get_by_label("Advance up to")
    assert "Move the slider" in preview.inner_text()
    slider.focus()
    page.keyboard.press("End")
    preview.get_by_text("SUCCESS → RETURNED").wait_for()
    page.keyboard.press("Home")
    preview.get_by_text("Move the slider").wait_for()
    page.locator("#clock-trace .mark.due", has_text="RETURNED").focus()
    page.keyboard.press("Enter")
    preview.get_by_text("SUCCESS → RETURNED").wait_for()
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 900})
        check_accessibility(page)
        check_accessibility(page, "target-size")
        check_width(page)
    preview.get_by_role("button", name="Advance to").click()
    page.locator("#ran-trace .mark.bad").first.wait_for()
    assert page.locator("#ran-trace .mark title", has_text="Payout step: RETURNED").count() == 1
    (moved,) = page.locator("#ran-money a title").all_text_contents()
    assert moved.endswith("100.00 from Settlement to Available in 1 transfer"), "and what moved before is not counted"
    check_accessibility(page)


def test_a_time_can_be_chosen_without_a_script(world: World) -> None:
    world.post("/sandbox/v1/clock/freeze")
    world.post("/api/v1/payouts", world.payout_body("0012"))
    world.post("/sandbox/v1/drain")
    with ConsoleClient(world.stack.api_url) as client:
        client.sign_in(world.api_key)
        page = client.get(client.path("/console/world")).text
        assert re.search(r"<strong>Next</strong>: SUCCESS → RETURNED [^<]+, in 1 min\.", page)
        assert "SUCCESS → RETURNED" in preview_of(client.get(client.path("/console/world?upto=1")))
        for none in ("0", "x", "-1", "²", ""):
            assert "Move the slider" in preview_of(client.get(client.path(f"/console/world?upto={none}")))
        assert "SUCCESS → RETURNED" in preview_of(client.get(client.path("/console/world?upto=9999")))


def preview_of(page: httpx.Response) -> str:
    return page.text.partition('id="preview"')[2].partition("</section>")[0]


def test_an_advance_shows_that_the_books_agree_and_a_difference_in_red(world: World) -> None:
    world.post("/sandbox/v1/clock/freeze")
    with ConsoleClient(world.stack.api_url) as client:
        client.sign_in(world.api_key)
        for said in ("The books agree", "The books differ"):
            world.create_payout("0012")
            world.post("/sandbox/v1/drain")
            client.get(client.path("/console/world"))
            page = client.act("advance_clock", "/console/world", _form="run-60", _then="stay", **{"seconds:int": "60"})
            assert said in page.text
            world.stack.execute("UPDATE accounts SET balance = balance + 1 WHERE merchant_id = $1 AND account = 'SETTLEMENT'",
                                world.merchant_id)  # fmt: skip
        assert "SETTLEMENT" in page.text
        world.post("/api/v1/users", {"name": "Ayesha"})
        world.create_payout("0012")
        world.post("/sandbox/v1/drain")
        page = client.act("advance_clock", "/console/world", _form="run-60", _then="stay", **{"seconds:int": "60"})
        assert "ran-money" in page.text
        assert "The books" not in page.text, "an audit that reads the wallets of users is not made at once"
