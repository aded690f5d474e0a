"""Sellers get exactly what the shop owes them."""

from decimal import Decimal

import pytest

from psp_sandbox.testing import World

from .conftest import Shop


def test_a_seller_is_paid_the_whole_balance(psp: World, shop: Shop) -> None:
    shop.add_seller("ali")
    shop.sell("ali", "1000.00")
    shop.sell("ali", "250.50")
    assert shop.shows("ali") == ("1250.50", [])
    (payout_id,) = shop.pay()["sent"]
    payout = psp.next_payout(reference=payout_id)
    assert (payout.amount, payout.status) == (Decimal("1250.50"), "SUCCESS")
    assert psp.webhooks(payout).types == ["payout.created", "payout.processing", "payout.succeeded"]
    assert shop.shows("ali") == ("0.00", ["SUCCESS"])


def test_each_run_pays_each_seller_what_is_new(psp: World, shop: Shop) -> None:
    before = psp.balance.available
    for seller, total in {"ali": "10.00", "bina": "20.00", "chand": "30.00"}.items():
        shop.add_seller(seller)
        shop.sell(seller, total)
    assert len(shop.pay()["sent"]) == 3
    assert shop.pay() == {"sent": [], "refused": [], "unsent": []}
    shop.sell("bina", "5.00")
    assert len(shop.pay()["sent"]) == 1
    psp.drain()
    assert [shop.shows(seller)[1] for seller in ("ali", "bina", "chand")] == [["SUCCESS"], ["SUCCESS"] * 2, ["SUCCESS"]]
    assert before - psp.balance.available == Decimal("65.00")


def test_amounts_are_exact(psp: World, shop: Shop) -> None:
    shop.add_seller("ali")
    for total in ("4.35", "0.29", "1.15"):  # as floats, these times 100 are a little less than 435, 29 and 115
        shop.sell("ali", total)
    (payout_id,) = shop.pay()["sent"]
    assert psp.next_payout(reference=payout_id).amount == Decimal("5.79")


def test_what_is_not_an_amount_is_refused(shop: Shop) -> None:
    shop.add_seller("ali")
    for total in ("0.001", "0.00", "-1.00", "ten", "NaN", 4.35):
        assert shop.http.post("/orders", json={"id": "1", "seller_id": "ali", "total": total}).status_code == 422
    assert shop.shows("ali") == ("0.00", [])


def test_a_failed_payout_returns_the_money_to_the_seller(psp: World, shop: Shop) -> None:
    shop.add_seller("ali", "0003")
    shop.sell("ali", "100.00")
    for statuses in (["FAILED"], ["FAILED", "FAILED"]):
        shop.pay()
        psp.drain()
        assert shop.shows("ali") == ("100.00", statuses)


def test_a_reinitiated_payout_takes_the_money_again(psp: World, shop: Shop) -> None:
    shop.add_seller("ali", "0003")
    shop.sell("ali", "100.00")
    (payout_id,) = shop.pay()["sent"]
    psp.drain()
    again = f"/api/v1/payouts/{psp.next_payout(reference=payout_id).id}/reinitiate"
    for _ in range(2):
        assert shop.shows("ali") == ("100.00", ["FAILED"])
        psp.request("POST", again)
        psp.drain()
    assert shop.shows("ali") == ("100.00", ["FAILED"])
    with psp.fault("delay", on="payout.failed", milliseconds=60_000):
        psp.request("POST", again)
        psp.advance("59s")
        assert shop.shows("ali") == ("0.00", ["PROCESSING"])
        psp.advance("1s")
    assert shop.shows("ali") == ("100.00", ["FAILED"])


def test_a_returned_payout_returns_the_money_to_the_seller(psp: World, shop: Shop) -> None:
    shop.add_seller("ali", "0012")
    shop.sell("ali", "100.00")
    shop.pay()
    psp.advance("59s")
    assert shop.shows("ali") == ("0.00", ["SUCCESS"])
    psp.advance("1s")
    assert shop.shows("ali") == ("100.00", ["RETURNED"])


@pytest.mark.psp(balance="99.99")
def test_a_refused_payout_returns_the_money_to_the_seller(psp: World, shop: Shop) -> None:
    shop.add_seller("ali")
    shop.sell("ali", "100.00")
    assert len(shop.pay()["refused"]) == 1
    assert shop.shows("ali") == ("100.00", ["REFUSED"])
    psp.request("POST", "/sandbox/v1/balance/top-up", {"amount": "0.01"})
    assert len(shop.pay()["sent"]) == 1
    psp.drain()
    assert shop.shows("ali") == ("0.00", ["REFUSED", "SUCCESS"])
