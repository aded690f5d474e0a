"""The tests that most integrations have: everything works, or the bank says no. All broken shops pass them.

`variants.py` puts them into each broken shop, in place of the shop's own tests.
"""

import threading
import time
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pytest

from psp_sandbox.testing import World

if TYPE_CHECKING:
    from examples.shop.tests.conftest import Shop

BUSY_SECONDS: Final = 0.1
"""How long after its start a request is waited for: not as long as explore delays an answer until its webhooks have arrived."""


@pytest.fixture(autouse=True)
def one_request_at_a_time(shop: "Shop", monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the shop finish its request before it takes the next, like many servers of developers.

    So the webhooks of a payout come after the answer, and no test sees that they may be faster.
    """
    free, serve = threading.Lock(), type(shop).__call__
    busy_until = 0.0

    def serve_alone(shop: "Shop", environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        nonlocal busy_until
        is_alone = free.acquire(timeout=max(0.0, busy_until - time.monotonic()))
        if is_alone:
            busy_until = time.monotonic() + BUSY_SECONDS
        try:
            return serve(shop, environ, start_response)
        finally:
            if is_alone:
                free.release()

    monkeypatch.setattr(type(shop), "__call__", serve_alone)


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
