"""The payroll is right after outages and late changes."""

from decimal import Decimal
from typing import Any

import pytest

from psp_sandbox.testing import World

from ..payroll import Payroll
from .test_payroll import statuses


@pytest.fixture(autouse=True)
def salary(payroll: Payroll) -> None:
    """One salary is due."""
    payroll.add("2026-01", "ali", "12345678900012", Decimal("1250.35"))


@pytest.mark.parametrize("fault", [{"kind": "connection_reset"}, {"kind": "truncated_body"}, {"kind": "error", "status": 503}])
def test_a_salary_is_paid_once_whatever_happens_to_the_answer(psp: World, payroll: Payroll, fault: dict[str, Any]) -> None:
    with psp.fault(**fault, on="POST /payouts", count=1):
        payroll.run()
    payroll.run()
    psp.drain()
    payroll.run()
    assert statuses(payroll) == ["SUCCESS"]
    assert len(list(psp.client.payouts.list())) == 1


def test_a_salary_is_paid_once_when_its_key_has_expired(psp: World, payroll: Payroll) -> None:
    with psp.fault("connection_reset", on="/payouts"):
        payroll.run()
        psp.advance("25h")
    assert statuses(payroll) == ["NEW"]
    payroll.run()
    assert statuses(payroll) == ["RETURNED"]
    assert len(list(psp.client.payouts.list())) == 1


def test_a_question_without_an_answer_changes_nothing(psp: World, payroll: Payroll) -> None:
    payroll.run()
    psp.drain()
    payroll.run()
    for kind in ("connection_reset", "rate_limit", "truncated_body"):
        with psp.fault(kind, on="GET /payouts"):
            payroll.run()
        assert statuses(payroll) == ["SUCCESS"]


def test_a_late_return_is_noticed(psp: World, payroll: Payroll) -> None:
    payroll.run()
    psp.drain()
    payroll.run()
    assert statuses(payroll) == ["SUCCESS"]
    psp.advance("1m")
    payroll.run()
    assert statuses(payroll) == ["RETURNED"]


@pytest.mark.psp(balance="1.00")
def test_a_refused_salary_is_known(payroll: Payroll) -> None:
    payroll.run()
    assert statuses(payroll) == ["REFUSED"]
