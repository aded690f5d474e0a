"""Nobody is paid twice, and nobody is forgotten, whatever happens to a call."""

from typing import Any

import pytest

from psp_sandbox.testing import World

from ..psp import Psp
from .conftest import Shop


@pytest.fixture(autouse=True)
def owed(shop: Shop) -> None:
    """The shop owes one seller 100.00."""
    shop.add_seller("ali")
    shop.sell("ali", "100.00")


def payouts(psp: World) -> list[str]:
    """Return the references of all payouts that the sandbox has."""
    return [payout["merchant_reference"] for payout in psp.request("GET", "/api/v1/payouts").json()["data"]]


def calls(psp: World) -> list[dict[str, Any]]:
    """Return the calls that create payouts, oldest first. The list of requests can lag behind; the world has them all."""
    found: list[dict[str, Any]] = psp.request("GET", "/sandbox/v1/world").json()["journal"]["calls"]
    return [call for call in found if (call["method"], call["path"]) == ("POST", "/api/v1/payouts")]


def assert_paid_once(psp: World, shop: Shop) -> None:
    psp.drain()
    assert len(payouts(psp)) == 1
    assert shop.shows("ali") == ("0.00", ["SUCCESS"])


@pytest.mark.parametrize("kind", ["connection_reset", "truncated_body"])
def test_a_lost_answer_is_asked_for_again_with_the_same_key(psp: World, shop: Shop, kind: str) -> None:
    with psp.fault(kind, on="POST /payouts", count=1) as fault:
        (payout_id,) = shop.pay()["sent"]
    assert fault.hits == 1
    assert [(call["idempotency_key"], call["replayed"]) for call in calls(psp)] == [(payout_id, False), (payout_id, True)]
    assert_paid_once(psp, shop)


def test_without_any_answer_nobody_is_paid_twice(psp: World, shop: Shop) -> None:
    with psp.fault("connection_reset", on="POST /payouts"):
        (payout_id,) = shop.pay()["unsent"]
    assert shop.shows("ali")[0] == "0.00"
    shop.pay()
    assert payouts(psp) == [payout_id]
    assert_paid_once(psp, shop)


@pytest.mark.parametrize("kind", ["error", "rate_limit"])
def test_a_payout_is_sent_again_while_the_psp_is_unavailable(psp: World, shop: Shop, kind: str) -> None:
    options: dict[str, Any] = {"status": 503} if kind == "error" else {}
    with psp.fault(kind, on="POST /payouts", count=2, **options):
        assert len(shop.pay()["sent"]) == 1
    assert_paid_once(psp, shop)


def test_a_payout_is_found_when_its_key_is_forgotten(psp: World, shop: Shop) -> None:
    # Neither an answer nor a webhook tells the shop of its payout for a day.
    with psp.fault("connection_reset", on="POST /payouts"), psp.fault("drop", on="webhooks"):
        (payout_id,) = shop.pay()["unsent"]
        psp.advance("25h")
    assert shop.pay()["sent"] == [payout_id]
    psp.advance("25h")
    assert_paid_once(psp, shop)


def test_a_payout_is_sent_after_a_crash_before_the_call(psp: World, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Psp, payout: object) -> None:
        raise SystemError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Psp, "create", crash)
        assert shop.http.post("/payouts").status_code == 500
    assert payouts(psp) == []
    shop.restart()
    assert_paid_once(psp, shop)


def test_a_payout_is_not_repeated_after_a_crash_behind_the_call(
    psp: World, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Psp.create

    def create_and_crash(self: Psp, payout: Any) -> None:
        create(self, payout)
        raise SystemError("power cut")

    with monkeypatch.context() as patch, psp.fault("delay", on="webhooks", milliseconds=1000):
        # No webhook tells the shop in the meantime.
        patch.setattr(Psp, "create", create_and_crash)
        assert shop.http.post("/payouts").status_code == 500
        psp.drain()
    assert len(payouts(psp)) == 1
    shop.pay()
    psp.advance("1s")
    assert_paid_once(psp, shop)
