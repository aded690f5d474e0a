"""Payouts over Safepay Raast: everything works, or the bank says no."""

from decimal import Decimal
from typing import TYPE_CHECKING

from psp_sandbox.testing import World

if TYPE_CHECKING:
    from .conftest import Running


def test_a_seller_is_paid(psp: World, running: "Running") -> None:
    before = psp.balance.available
    running.pay("PK93HABB0000000000000001", "1250.35")
    psp.drain()
    assert running.statuses() == ["P_SETTLED"]
    assert before - psp.balance.available == Decimal("1250.35")


def test_a_failed_payout_is_known(psp: World, running: "Running") -> None:
    running.pay("PK39HABB0000000000000003", "100")
    psp.drain()
    assert running.statuses() == ["P_FAILED"]


def test_a_returned_payout_is_known(psp: World, running: "Running") -> None:
    running.pay("PK87HABB0000000000000012", "70.50")
    psp.drain()
    psp.advance("60s")
    assert running.statuses() == ["P_REVERSED"]
