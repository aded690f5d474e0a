"""The shop believes genuine webhooks only, applies each once and in order, and loses none."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from psp_sandbox.testing import World

from .. import payments
from ..psp import Psp
from .conftest import Shop


@pytest.fixture(autouse=True)
def owed(shop: Shop) -> None:
    """The shop owes a seller 100.00. A payout to this seller succeeds, and is returned after a minute."""
    shop.add_seller("ali", "0012")
    shop.sell("ali", "100.00")


def test_a_webhook_that_arrives_twice_counts_once(psp: World, shop: Shop) -> None:
    shop.pay()
    with psp.fault("duplicate", on="payout.returned"):
        psp.advance("1m")
    returned = psp.webhooks.expect("payout.returned", times=1)
    assert [copy.status for copy in returned.received] == [200, 200]
    assert shop.shows("ali") == ("100.00", ["RETURNED"])


def test_a_late_webhook_does_not_undo_a_newer_one(psp: World, shop: Shop) -> None:
    with psp.fault("delay", on="payout.succeeded", milliseconds=120_000):
        shop.pay()
        psp.advance("1m")
    assert shop.shows("ali") == ("100.00", ["RETURNED"])
    psp.advance("1m")
    assert [one.event["type"] for one in psp.webhooks.received][-2:] == ["payout.returned", "payout.succeeded"]
    assert shop.shows("ali") == ("100.00", ["RETURNED"])


@pytest.mark.parametrize("kind", ["wrong_key", "tampered_body"])
def test_a_forged_webhook_is_refused(psp: World, shop: Shop, kind: str) -> None:
    shop.pay()
    with psp.fault(kind, on="payout.returned", count=1):
        psp.advance("1m")
    assert psp.webhooks.received[-1].status == 401
    assert shop.shows("ali") == ("0.00", ["SUCCESS"])
    psp.advance("1m")  # the sandbox sends it again, and now it is genuine
    assert shop.shows("ali") == ("100.00", ["RETURNED"])


def test_a_replayed_webhook_is_refused(psp: World, shop: Shop) -> None:
    shop.pay()
    with psp.fault("stale_timestamp", on="payout.returned", seconds=301, count=1):
        psp.advance("1m")
    assert psp.webhooks.received[-1].status == 401
    assert shop.shows("ali") == ("0.00", ["SUCCESS"])
    psp.advance("1m")
    assert shop.shows("ali") == ("100.00", ["RETURNED"])


def test_a_new_secret_may_sign_before_we_know_it(psp: World, shop: Shop) -> None:
    psp.request("POST", f"/api/v1/webhook-endpoints/{shop.endpoint_id}/rotate-secret", {"grace_seconds": 7 * 86_400})
    shop.pay()
    psp.advance("1m")
    assert shop.shows("ali") == ("100.00", ["RETURNED"])


def test_an_event_survives_a_crash(psp: World, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> None:
        raise SystemError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(payments, "_apply", crash)
        shop.pay()
        psp.advance("1m")
        assert shop.shows("ali") == ("0.00", ["PENDING"])
    shop.restart()
    assert shop.shows("ali") == ("100.00", ["RETURNED"])


def test_a_webhook_that_cannot_be_stored_is_not_acknowledged(psp: World, shop: Shop) -> None:
    shop.pay()
    psp.drain()
    shop.restart(lock_seconds=0.01)
    with closing(sqlite3.connect(shop.settings.database, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")  # nobody else can write now
        psp.advance("1m")
        assert psp.webhooks.received[-1].status == 500
    assert shop.shows("ali") == ("0.00", ["SUCCESS"])
    psp.advance("1m")
    assert shop.shows("ali") == ("100.00", ["RETURNED"])


def test_a_webhook_that_is_faster_than_the_answer_wins(psp: World, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    create = Psp.create

    def create_slowly(self: Psp, payout: Any) -> dict[str, Any]:
        created = create(self, payout)
        psp.drain()  # all webhooks have arrived before the shop sees the answer
        return created

    monkeypatch.setattr(Psp, "create", create_slowly)
    shop.pay()
    assert shop.shows("ali") == ("0.00", ["SUCCESS"])
