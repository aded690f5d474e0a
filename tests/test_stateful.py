"""After any sequence of calls, the API's balances and statuses equal those of a small model."""

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
    """Return a state machine for payouts of a new merchant that change status only by a call (suffix 0004)."""

    class Payouts(RuleBasedStateMachine):
        payouts: Bundle[str] = Bundle("payouts")
        final: Bundle[str] = Bundle("final")

        def __init__(self) -> None:
            super().__init__()
            self.world = World.create(stack, opening_balance=str(START))
            self.available = START
            self.locked: dict[str, tuple[Decimal, str]] = {}
            self.requests: list[tuple[dict[str, Any], str, bytes]] = []

        @rule(target=payouts, amount=st.decimals("0.01", "400.00", places=2), approval=st.booleans())
        def create(self, amount: Decimal, approval: bool) -> str:
            body = self.world.payout_body("0004", amount=str(amount), requires_approval=approval)
            key = str(uuid.uuid4())
            response = self.world.post("/api/v1/payouts", body, key=key)
            self.requests.append((body, key, response.content))
            if amount > self.available:
                assert (response.status_code, response.json()["code"]) == (422, "INSUFFICIENT_BALANCE")
                return ""
            assert response.status_code == 201
            self.available -= amount
            created: str = response.json()["id"]
            self.locked[created] = (amount, "REQUESTED" if approval else "PENDING")
            return created

        @rule(index=st.integers(0, 1000))
        def repeat(self, index: int) -> None:
            if self.requests:
                body, key, content = self.requests[index % len(self.requests)]
                assert self.world.post("/api/v1/payouts", body, key=key).content == content

        @rule(payout=consumes(payouts), action=st.sampled_from(["cancel", "reject"]), target=final)
        def cancel_or_reject(self, payout: str, action: str) -> str:
            if not payout:
                return ""
            amount, status = self.locked[payout]
            call = self.world.post if action == "cancel" else self.world.patch
            response = call(f"/api/v1/payouts/{payout}/{action}")
            if action == "reject" and status != "REQUESTED":
                assert response.status_code == 409
                return ""
            assert response.status_code == 200, response.text
            del self.locked[payout]
            self.available += amount
            return payout

        @rule(payout=payouts)
        def approve(self, payout: str) -> None:
            if payout and payout in self.locked:
                amount, status = self.locked[payout]
                response = self.world.patch(f"/api/v1/payouts/{payout}/approve")
                assert response.status_code == (200 if status == "REQUESTED" else 409)
                self.locked[payout] = (amount, "PENDING")

        @rule(payout=final, action=st.sampled_from(["cancel", "reinitiate"]))
        def a_final_status_cannot_change(self, payout: str, action: str) -> None:
            if payout:
                assert self.world.post(f"/api/v1/payouts/{payout}/{action}").status_code == 409

        @invariant()
        def the_balance_equals_the_models(self) -> None:
            locked = sum((amount for amount, _ in self.locked.values()), Decimal("0.00"))
            assert self.world.balance() == (str(self.available), str(locked))

        def teardown(self) -> None:
            self.world.assert_clean()
            self.world.__exit__(None, None, None)

    return Payouts


def test_balances_and_statuses_equal_the_models(stack: Stack) -> None:
    run_state_machine_as_test(
        machine(stack),
        settings=settings(max_examples=10, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)),
    )


@pytest.mark.parametrize("number", range(2))
def test_merchants_do_not_affect_each_other(world: World, number: int) -> None:
    with World.create(world.stack, opening_balance="5.00") as other:
        world.create_payout("0004")
        assert other.balance() == ("5.00", "0.00")
        assert other.get("/api/v1/balance/history").json()["data"][0]["reason"] == "TOP_UP"
