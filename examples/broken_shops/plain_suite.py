"""The tests that most integrations have: everything works, or the bank says no. All broken shops pass them.

`variants.py` puts them into each broken shop, in place of the shop's own tests.
"""

from decimal import Decimal
from typing import TYPE_CHECKING

from psp_sandbox.testing import World

if TYPE_CHECKING:
    from examples.shop.tests.conftest import Shop


def test_each_run_pays_what_is_new(psp: World, shop: "Shop") -> None:
    before = psp.balance.available
    shop.add_seller("ali")
    shop.sell("ali", "1250.35")
    shop.pay()
    psp.advance("1d")
    shop.sell("ali", "50.00")
    shop.pay()
    psp.drain()
    assert shop.shows("ali") == ("0.00", ["SUCCESS", "SUCCESS"])
    assert before - psp.balance.available == Decimal("1300.35")


def test_a_failed_payout_gives_the_money_back(psp: World, shop: "Shop") -> None:
    shop.add_seller("bina", "0003")
    shop.sell("bina", "100.00")
    shop.pay()
    psp.drain()
    assert shop.shows("bina") == ("100.00", ["FAILED"])


def test_a_payout_can_take_its_time(psp: World, shop: "Shop") -> None:
    shop.add_seller("chand", "0004")
    shop.sell("chand", "70.00")
    shop.pay()
    psp.drain()
    assert shop.shows("chand") == ("0.00", ["PENDING"])
