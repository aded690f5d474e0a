"""Every accepted scenario rule, from the API or a file, makes only legal transitions."""

import asyncio
import uuid
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.domain.errors import Problem
from sandbox.domain.idempotency import execute
from sandbox.domain.ids import IdSource
from sandbox.domain.payout_commands import CreatePayout, NewPayout, TransitionPayout
from sandbox.domain.payout_states import HOLDS_FUNDS, PENDING, PROCESSING, TRANSITIONS
from sandbox.domain.scenario_engine import Facts, Match, Scenario, decide, draw, is_taken, next_step
from sandbox.domain.scenario_runner import take_steps
from sandbox.domain.stored_scenario import stored_rule
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.settings import Settings
from sandbox.payouts.directory.loader import load_directory
from sandbox.payouts.scenarios.builtin import load_catalogue
from sandbox.payouts.scenarios.explained import explained_steps
from sandbox.payouts.scenarios.rules import RuleBody, RuleMatch, RuleStep, check_rule, parse_rules
from seeds.demo import seed
from tests.harness.work import request_of
from tests.harness.world import Stack

CATALOGUE = load_catalogue()
DIRECTORY = load_directory()
RULES = "/sandbox/v1/scenarios"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_random_steps_are_the_same_for_the_same_payout_and_step() -> None:
    assert is_taken(1.0, "any", 0)
    assert not is_taken(0.0, "any", 0)
    taken = [is_taken(0.3, f"payout-{number}", 1) for number in range(2000)]
    assert taken == [is_taken(0.3, f"payout-{number}", 1) for number in range(2000)]
    assert 500 < sum(taken) < 700
    assert all(0 <= draw(str(number)) < 1 for number in range(100))


# ---- accepted rules make only legal transitions

STEPS = st.lists(
    st.builds(
        RuleStep,
        to=st.sampled_from(["PROCESSING", "RETRY", "ON_HOLD", "IN_REVIEW", "SUCCESS", "FAILED", "CANCELLED", "RETURNED"]),
        after=st.sampled_from([0.0, 0.5, 60.0]),
        probability=st.sampled_from([0.0, 0.5, 1.0, 1.0]),
        wait=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def accepted_rule(steps: list[RuleStep]) -> Scenario | None:
    try:
        match, text = check_rule(RuleBody(name="own", match=RuleMatch(suffix="7"), steps=steps), DIRECTORY)
    except Problem:
        return None
    return stored_rule(str(uuid.uuid4()), "own", match, text)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=8), st.integers(0, 2**42 - 1))
def test_accepted_paths_make_only_legal_transitions_and_move_the_money(paths: list[list[RuleStep]], bits: int) -> None:
    context = request_of("m")
    for steps in paths:
        scenario = accepted_rule(steps)
        if scenario is None:
            continue
        balances = {"AVAILABLE": Decimal(100), "LOCKED": Decimal(0), "SETTLEMENT": Decimal(0), "FUNDING": Decimal(-100)}
        unit = UnitOfWork("m", NOW, IdSource(0, 0, lambda _: bits), "success", CATALOGUE, balances, custom_scenarios=[scenario])
        new = NewPayout("r", Decimal(10), "BANK", "HBL", None, "12345678900007", None, {}, False)
        assert execute(unit, CreatePayout(context, new)).status == 201
        (row,) = unit.created
        for _ in range(2 * len(steps) + 2):
            if row.due_at is not None:
                unit.now = row.due_at
                before = row.step
                take_steps(unit, row)
                assert row.step > before
                # At an illegal transition the runner stops the payout. Then the path checked below would differ too.
                assert all((event.from_status, event.to_status) in TRANSITIONS for event in unit.events)
            elif row.payout.status in ("ON_HOLD", "IN_REVIEW", "RETRY", PENDING) and row.step < len(steps):
                # Not as a bank's callback, which cannot release a payout from IN_REVIEW.
                release = TransitionPayout(context, row.payout.id, "transition", PROCESSING, "simulation", can_approve=True)
                assert execute(unit, release).status == 200
            else:
                break
        assert row.due_at is None
        assert balances["LOCKED"] == (10 if row.payout.status in HOLDS_FUNDS else 0)
        expected: list[str] = []
        for number, step in enumerate(steps):
            # A step to FAILED, CANCELLED or RETURNED ends the path, and only a return can follow SUCCESS.
            ended = {"FAILED", "CANCELLED", "RETURNED"} & {*expected} or ("SUCCESS" in expected and step.to != "RETURNED")
            if not ended and is_taken(step.probability, row.payout.id, number):
                expected.append(step.to)
        reached = [event.to_status for event in unit.events][1:]
        # A step to PROCESSING after a wait is the release itself. All other steps are taken in order.
        assert [status for status in reached if status != PROCESSING] == [to for to in expected if to != PROCESSING]


def outcome(steps: list[RuleStep], payout_id: str) -> str:
    """Return the last status of a payout that no call changes."""
    scenario = accepted_rule(steps)
    assert scenario is not None
    status, now = PENDING, NOW
    step, due_at = next_step(scenario, 0, now, payout_id)
    while due_at is not None:
        now = due_at
        decision = decide(scenario, step, now, payout_id)
        for _, taken in decision.taken:
            assert (status, taken.to) in TRANSITIONS
            status = taken.to
        step, due_at = decision.step, decision.due_at
    return status


HALF_FAIL = [RuleStep(to="PROCESSING"), RuleStep(to="FAILED", probability=0.5), RuleStep(to="SUCCESS")]
HALF_SUCCEED = [RuleStep(to="PROCESSING"), RuleStep(to="SUCCESS", probability=0.5), RuleStep(to="FAILED")]
SOME_RETURNED = [*HALF_SUCCEED, RuleStep(to="RETURNED", after=60.0, probability=0.5)]
EXPECTED_SHARES = [
    (HALF_FAIL, {"FAILED": 0.5, "SUCCESS": 0.5}),
    (HALF_SUCCEED, {"FAILED": 0.5, "SUCCESS": 0.5}),
    (SOME_RETURNED, {"FAILED": 0.5, "SUCCESS": 0.25, "RETURNED": 0.25}),
    (
        [RuleStep(to="CANCELLED", probability=0.2), RuleStep(to="PROCESSING", after=5.0), RuleStep(to="SUCCESS")],
        {"CANCELLED": 0.2, "SUCCESS": 0.8},
    ),
]


@pytest.mark.parametrize(("steps", "shares"), EXPECTED_SHARES)
def test_a_path_ends_when_a_step_to_failed_cancelled_or_returned_is_taken(
    steps: list[RuleStep], shares: dict[str, float]
) -> None:
    ended = Counter(outcome(steps, f"payout-{number}") for number in range(4000))
    assert set(ended) == set(shares)
    for status, share in shares.items():
        assert abs(ended[status] / 4000 - share) < 0.03


@given(STEPS)
def test_explained_probabilities_of_an_accepted_path_add_up(steps: list[RuleStep]) -> None:
    scenario = accepted_rule(steps)
    if scenario is None:
        return
    explained = explained_steps(scenario, False)[1:]
    assert all(0 <= step.overall_probability <= step.probability + 1e-9 for step in explained)
    # A payout fails, is cancelled or is returned at most once.
    assert sum(step.overall_probability for step in explained if step.to in ("FAILED", "CANCELLED", "RETURNED")) <= 1 + 1e-6


def test_a_rule_can_match_the_user_and_the_scenario_header() -> None:
    facts = Facts(Decimal(5), "12345678900007", "HBL", None, "u", {"a": "b"}, "h")
    assert Match(user_id="u", scenario_header="h").matches(facts)
    assert not Match(user_id="v").matches(facts)
    assert not Match(scenario_header="i").matches(facts)


# ---- a file of rules

FILE = """
[[scenario]]
name = "from_file"
match = { suffix = "4242", amount_to = 50.5 }
steps = [{ to = "PROCESSING" }, { to = "FAILED", after = 2, failure_code = "FROM_FILE" }]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[scenario", "not valid TOML"),
        ("x = 1", "[[scenario]]"),
        (FILE.replace("suffix", "sufix"), "scenario 1: match.sufix"),
        (FILE + FILE, "more than one scenario is named 'from_file'"),
        (FILE + FILE.replace("from_file", "other").replace("PROCESSING", "RETRY"), "scenario 2: steps[0].to"),
    ],
)
def test_the_error_of_an_invalid_file_names_the_rule_and_field(text: str, message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 -- the message is checked below
        parse_rules(text, DIRECTORY)
    assert message in str(raised.value)


def test_a_file_of_rules_has_the_format_of_the_built_in_catalogue() -> None:
    text = (Path(__file__).parent.parent / "sandbox" / "payouts" / "scenarios" / "catalogue.toml").read_text()
    parts = [part for part in text.split("[[scenario]]")[1:] if "steps = []" not in part]
    rules = parse_rules("[[scenario]]" + "[[scenario]]".join(parts), DIRECTORY)
    assert [rule.name for rule in rules] == [s.name for s in CATALOGUE.scenarios if s.steps]
    assert msgspec.json.encode(rules)


def test_the_example_file_is_valid() -> None:
    text = (Path(__file__).parent.parent / "examples" / "scenarios.toml").read_text()
    assert [rule.name for rule in parse_rules(text, DIRECTORY)] == ["five_minutes", "flaky_bank", "hold_then_fail", "sent_back"]


def test_seeding_a_file_creates_or_replaces_the_demo_merchants_rules_by_name(stack: Stack, tmp_path: Path) -> None:
    """The second seeding replaces the rule of the first."""
    found: list[list[dict[str, Any]]] = []
    for text in (FILE, FILE.replace("FROM_FILE", "CHANGED")):
        path = tmp_path / "rules.toml"
        path.write_text(text)
        env = {
            "DATABASE_URL": stack.database_url, "REDIS_URL": stack.redis_url, "SANDBOX_SECRET_KEY": "A" * 43 + "=",
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("seeds.demo.MerchantService.secrets", _no_secrets)
            asyncio.run(seed(Settings.load(env), path))
        listed = httpx.get(stack.api_url + RULES, headers={"X-API-KEY": stack.api_key}, timeout=60).json()["data"]
        found.append([r for r in listed if r["name"] == "from_file"])
    (first,), (second,) = found
    assert (first["id"], first["position"]) == (second["id"], second["position"])
    assert (first["steps"][1]["failure_code"], second["steps"][1]["failure_code"]) == ("FROM_FILE", "CHANGED")
    httpx.delete(f"{stack.api_url}{RULES}/{second['id']}", headers={"X-API-KEY": stack.api_key}, timeout=60)


async def _no_secrets(*_: object) -> tuple[str, str]:
    """Replace reading the merchant's secrets, which are sealed with the running sandbox's key."""
    return "", ""
