"""The API against a tiny model: whatever is asked in whatever order, balances and states are the model's."""

import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from tests.harness.world import Stack, World

START = Decimal("1000.00")


def machine(stack: Stack) -> type[RuleBasedStateMachine]:
    """A machine that plays with payouts which stay where they are put (suffix 0004) on a merchant of its own."""

    class Payouts(RuleBasedStateMachine):
        payouts: Bundle[str] = Bundle("payouts")
        ended: Bundle[str] = Bundle("ended")

        def __init__(self) -> None:
            super().__init__()
            self.world = World.create(stack, opening_balance=str(START))
            self.available = START
            self.held: dict[str, tuple[Decimal, str]] = {}
            self.requests: list[tuple[dict[str, Any], str, bytes]] = []

        @rule(target=payouts, amount=st.decimals("0.01", "400.00", places=2), approval=st.booleans())
        def create(self, amount: Decimal, approval: bool) -> str:
            body = self.world.payout_body("0004", amount=str(amount), requires_approval=approval)
            key = str(uuid.uuid4())
            answer = self.world.post("/api/v1/payouts", body, key=key)
            self.requests.append((body, key, answer.content))
            if amount > self.available:
                assert (answer.status_code, answer.json()["code"]) == (422, "INSUFFICIENT_BALANCE")
                return ""
            assert answer.status_code == 201
            self.available -= amount
            created: str = answer.json()["id"]
            self.held[created] = (amount, "REQUESTED" if approval else "PENDING")
            return created

        @rule(which=st.integers(0, 1000))
        def repeat(self, which: int) -> None:
            if self.requests:
                body, key, content = self.requests[which % len(self.requests)]
                assert self.world.post("/api/v1/payouts", body, key=key).content == content

        @rule(payout=consumes(payouts), verb=st.sampled_from(["cancel", "reject"]), target=ended)
        def end(self, payout: str, verb: str) -> str:
            if not payout:
                return ""
            amount, status = self.held[payout]
            call = self.world.post if verb == "cancel" else self.world.patch
            answer = call(f"/api/v1/payouts/{payout}/{verb}")
            if verb == "reject" and status != "REQUESTED":
                assert answer.status_code == 409
                return ""
            assert answer.status_code == 200, answer.text
            del self.held[payout]
            self.available += amount
            return payout

        @rule(payout=payouts)
        def approve(self, payout: str) -> None:
            if payout and payout in self.held:
                amount, status = self.held[payout]
                answer = self.world.patch(f"/api/v1/payouts/{payout}/approve")
                assert answer.status_code == (200 if status == "REQUESTED" else 409)
                self.held[payout] = (amount, "PENDING")

        @rule(payout=ended, verb=st.sampled_from(["cancel", "reinitiate"]))
        def nothing_leaves_a_final_state(self, payout: str, verb: str) -> None:
            if payout:
                assert self.world.post(f"/api/v1/payouts/{payout}/{verb}").status_code == 409

        @invariant()
        def the_balance_is_the_models(self) -> None:
            locked = sum((amount for amount, _ in self.held.values()), Decimal("0.00"))
            assert self.world.balance() == (str(self.available), str(locked))

        def teardown(self) -> None:
            self.world.assert_clean()
            self.world.__exit__(None, None, None)

    return Payouts


def test_the_api_agrees_with_the_model(stack: Stack) -> None:
    run_state_machine_as_test(
        machine(stack),
        settings=settings(max_examples=10, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)),
    )


@pytest.mark.parametrize("number", range(2))
def test_worlds_do_not_touch_each_other(world: World, number: int) -> None:
    with World.create(world.stack, opening_balance="5.00") as other:
        world.create_payout("0004")
        assert other.balance() == ("5.00", "0.00")
        assert other.get("/api/v1/balance/history").json()["data"][0]["reason"] == "TOP_UP"
