"""Salaries are paid once, and the payroll knows what became of them."""

from decimal import Decimal

from psp_sandbox.testing import World

from ..payroll import Payroll


def statuses(payroll: Payroll) -> list[str]:
    return [salary["status"] for salary in payroll.salaries()]


def test_salaries_are_paid(psp: World, payroll: Payroll) -> None:
    before = psp.balance.available
    payroll.add("2026-01", "ali", "12345678900013", Decimal("1250.35"))
    payroll.add("2026-01", "bina", "12345678900001", Decimal("900"))
    payroll.run()
    psp.advance("30s")
    payroll.run()
    assert statuses(payroll) == ["SUCCESS", "SUCCESS"]
    assert before - psp.balance.available == Decimal("2150.35")


def test_a_failed_salary_is_known(psp: World, payroll: Payroll) -> None:
    payroll.add("2026-01", "chand", "12345678900014", Decimal("100"))
    payroll.run()
    psp.advance("30s")
    payroll.run()
    assert statuses(payroll) == ["FAILED"]
