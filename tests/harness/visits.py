"""Visits of the console in which things happen at random, and what a merchant is after them."""

import os
import random
import re
from html import unescape
from typing import Any, NamedTuple

from tests.harness.console import ConsoleClient
from tests.harness.waiting import until
from tests.harness.world import World

VISITS = int(os.environ.get("PSP_VISITS", "2"))
"""How many visits a test records."""
_ENDINGS = ("0001", "0002", "0003", "0004", "0007", "0012")


class State(NamedTuple):
    """What a merchant's payouts and events are, without ids and times."""

    payouts: list[tuple[str, str, str]]
    events: list[tuple[str, str]]


def state_of(call: Any) -> State:
    """Return the state of a merchant; `call` gets a path and returns the JSON."""
    payouts = call("/api/v1/payouts?limit=100")["data"]
    events = call("/api/v1/events?limit=100")["data"]
    return State(
        sorted((one["merchant_reference"], one["amount"], one["status"]) for one in payouts),
        sorted((one["data"]["merchant_reference"], one["type"]) for one in events),
    )


def _visit(world: World, client: ConsoleClient, seed: int) -> int:
    """Do things at random in the console. Return how many calls that makes."""
    choose = random.Random(seed)
    made: list[str] = []
    client.act("freeze_clock")
    for number in range(5):
        body = world.payout_body(choose.choice(_ENDINGS), merchant_reference=f"V-{number}")
        client.act("create_payout", "/console/payouts/new", **body)
        made.append(world.get("/api/v1/payouts", merchant_reference=f"V-{number}").json()["data"][0]["id"])
        world.post("/sandbox/v1/drain")
        status = choose.choice(["SUCCESS", "FAILED", "RETURNED"])
        client.act("simulate_payout", path__payout_id=choose.choice(made), status=status)
        client.act("advance_clock", **{"seconds:int": str(choose.choice([5, 90, 3600]))})
    return 1 + 3 * len(made)


def _scripts_of(html: str) -> list[str]:
    """Return the script and the tests that the page shows."""
    return [unescape(code) for code in re.findall(r"<pre[^>]*><code>(.*?)</code>", html, re.DOTALL)][:3] or [""]


def recorded(world: World, seed: int) -> list[str]:
    """Make a visit, and return the script and the two tests that the console writes of it."""
    with ConsoleClient(world.stack.api_url) as client:
        client.sign_in(world.api_key)
        count = _visit(world, client, seed)
        page = client.path("/console/steps")
        until(lambda: f"{count} calls that you made" in client.get(page).text)
        return _scripts_of(client.get(page).text)
