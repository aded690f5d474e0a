"""What a visit did in the console, run for a new merchant, makes the same payouts, statuses and events."""

import ast
import json
import os
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox.server.console.pages.search import amount_of
from sandbox.server.console.recording import BALANCE, record
from tests.harness.browser import Browsing
from tests.harness.visits import VISITS, State, recorded, state_of
from tests.harness.waiting import until
from tests.harness.world import Stack, World

PAYOUT = "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"


def entry(path: str, at: str, body: Any = None, answer: Any = None, status: int = 200) -> dict[str, Any]:
    return {
        "method": "POST", "path": path, "at": f"2026-01-31T00:00:{at}Z", "status": status, "request_headers": {},
        "request_body": json.dumps(body or {}), "response_body": json.dumps(answer or {}),
    }  # fmt: skip


CREATED = entry("/api/v1/payouts", "00.000", {"merchant_reference": "it's"}, {"id": PAYOUT}, 201)
CANCELLED = entry(f"/api/v1/payouts/{PAYOUT}/cancel", "05.000")
NOW = "2026-01-31T00:00:07.500Z"


def shell_calls(script: str) -> list[str]:
    return [line for line in script.splitlines() if "call POST" in line]


def test_an_id_of_an_answer_becomes_a_variable() -> None:
    found = record([CREATED, CANCELLED], is_frozen=True, now=NOW)
    assert 'call POST /api/v1/payouts/"$payout_1"/cancel' in found.shell("http://x")
    assert "f'/api/v1/payouts/{payout_1}/cancel'" in found.pytest()
    assert "`/api/v1/payouts/${payout_1}/cancel`" in found.vitest()
    assert all(PAYOUT not in text for text in (found.shell("http://x"), found.pytest(), found.vitest()))
    ast.parse(found.pytest())


def test_time_that_passed_by_itself_is_a_move_of_the_clock() -> None:
    running = shell_calls(record([CREATED, CANCELLED], is_frozen=False, now=NOW).shell("http://x"))
    moves = [line.split("call POST /sandbox/v1/clock/")[1].split(" >")[0] for line in running if "clock" in line]
    assert moves == ["freeze '{}'", """advance '{"seconds": 5.0}'""", """advance '{"seconds": 2.5}'"""]
    frozen = shell_calls(record([CREATED, CANCELLED], is_frozen=True, now=NOW).shell("http://x"))
    assert not any("advance" in line for line in frozen)


def test_an_advance_to_a_time_becomes_as_many_seconds() -> None:
    moved = {"from": "2026-01-31T00:00:00.000Z", "now": "2026-02-01T00:00:00.000Z"}
    advance = entry("/sandbox/v1/clock/advance", "01.000", {"to": "2026-02-01T00:00:00.000Z"}, moved)
    assert '{"seconds": 86400.0}' in record([advance], is_frozen=True, now=NOW).shell("http://x")


def test_what_cannot_be_repeated_is_named() -> None:
    refused, hidden = entry("/api/v1/payouts", "01.000", status=400), {**CANCELLED, "request_body": "[redacted]"}
    found = record([CREATED, refused, hidden], is_frozen=True, now=NOW)
    assert [text.partition(", ")[2] for text in found.left_out] == [
        "which was refused with 400", "whose body the journal does not have",
    ]  # fmt: skip
    assert "# Left out: POST /api/v1/payouts" in found.shell("http://x")


# ------------------------------------------------------------------------------------------------ whole visits


@pytest.mark.parametrize("seed", range(VISITS))
def test_the_script_and_the_test_of_a_visit_make_the_same_world(world: World, stack: Stack, seed: int) -> None:
    shell, pytest_code, _ = recorded(world, seed)
    world.post("/sandbox/v1/drain")
    expected = state_of(lambda path: world.get(path).json())
    with World.create(stack, opening_balance=BALANCE) as other:
        env = {**os.environ, "PSP_API_KEY": other.api_key}
        done = subprocess.run(["sh"], input=shell, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        assert state_of(lambda path: other.get(path).json()) == expected
    seen: list[State] = []
    names: dict[str, Any] = {"keep": lambda world: seen.append(state_of(lambda path: world.call("GET", path)))}
    exec(pytest_code.replace("assert world.merchant_id", "keep(world)"), names)  # noqa: S102 -- the console wrote it
    names["test_what_i_did"](SimpleNamespace(url=stack.api_url, admin_key=stack.admin_key))
    assert seen == [expected]


def test_the_bar_leads_to_the_steps_and_finds_everything(world: World, browsing: Browsing) -> None:
    key = "key-of-a-payout"
    body = world.payout_body(amount="7654.30", merchant_reference="FIND-ME")
    made = world.client.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": key}).json()
    world.post("/sandbox/v1/drain")
    user = world.post("/api/v1/users", {"name": "Findable Ayesha"}).json()
    event = world.get("/api/v1/events", payout_id=made["id"]).json()["data"][0]["id"]
    until(lambda: world.get("/sandbox/v1/requests", q=key).json()["data"])
    page = browsing.open("/console", world.api_key)

    def find(text: str) -> None:
        page.keyboard.press("f")
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type(text)
        page.keyboard.press("Enter")

    for id_, path in ((made["id"], "payouts"), (event, "webhooks/events"), (user["id"], "users")):
        find(id_)
        page.wait_for_url(f"**/{path}/{id_}")
    for text, table, row in (
        ("FIND-ME", "payouts", "FIND-ME"), ("7,654.3", "payouts", "FIND-ME"), (body["account_number"], "payouts", "FIND-ME"),
        ("Findable", "users", "Findable Ayesha"), (key, "requests", "/api/v1/payouts"),
    ):  # fmt: skip
        find(text)
        page.locator("h1", has_text=text).wait_for()
        page.locator(f"#table-{table} tbody tr", has_text=row).wait_for()
    find("nothing at all")
    page.locator(".empty").wait_for()
    page.locator(".merchant summary").click()
    page.get_by_role("link", name="Copy what I did here").click()
    page.locator("h1", has_text="What I did here").wait_for()


@pytest.mark.parametrize(
    ("text", "amount"), [("1,500", "1500.00"), ("7654.3", "7654.30"), ("0.05", "0.05"), ("1.234", ""), ("x", "")]
)
def test_an_amount_is_found_as_it_is_typed(text: str, amount: str) -> None:
    assert amount_of(text) == amount
