"""Drivers get what they earned, once."""

from typing import Any

import pytest

from psp_sandbox.testing import World

from .conftest import DriversApp


def test_a_driver_withdraws_the_balance(psp: World, drivers: DriversApp) -> None:
    drivers.earns("ali", "1000.00")
    drivers.earns("ali", "250.35")
    drivers.withdraws("ali", "0012")
    psp.drain()
    assert drivers.shows("ali") == ("0.00", ["SUCCESS"])
    psp.advance("1m")
    assert drivers.shows("ali") == ("1250.35", ["RETURNED"])


def test_a_failed_withdrawal_gives_the_balance_back(psp: World, drivers: DriversApp) -> None:
    drivers.earns("bina", "100.00")
    drivers.withdraws("bina", "0014")
    assert drivers.shows("bina")[0] == "0.00"
    psp.advance("30s")
    assert drivers.shows("bina") == ("100.00", ["FAILED"])


@pytest.mark.psp(balance="1.00")
def test_a_refused_withdrawal_gives_the_balance_back(drivers: DriversApp) -> None:
    drivers.earns("chand", "100.00")
    drivers.withdraws("chand", "0001")
    assert drivers.shows("chand") == ("100.00", ["REFUSED"])


@pytest.mark.parametrize("fault", [{"kind": "connection_reset"}, {"kind": "truncated_body"}, {"kind": "error", "status": 503}])
def test_a_withdrawal_without_an_answer_is_sent_again(psp: World, drivers: DriversApp, fault: dict[str, Any]) -> None:
    drivers.earns("dina", "100.00")
    with psp.fault(**fault, on="POST /payouts", count=1), psp.fault("delay", on="webhooks", milliseconds=1000):
        drivers.withdraws("dina", "0001")
        drivers.withdraws("dina", "0001")  # the balance is 0, so this only sends the first one again
        psp.drain()
    psp.advance("1s")
    assert drivers.shows("dina") == ("0.00", ["SUCCESS"])
    assert len(list(psp.client.payouts.list())) == 1


@pytest.mark.parametrize("kind", ["duplicate", "reorder"])
def test_the_order_and_the_number_of_webhooks_do_not_matter(psp: World, drivers: DriversApp, kind: str) -> None:
    drivers.earns("emad", "100.00")
    with psp.fault(kind, on="webhooks"):
        drivers.withdraws("emad", "0003")
        psp.advance("2s")
    assert drivers.shows("emad") == ("100.00", ["FAILED"])
