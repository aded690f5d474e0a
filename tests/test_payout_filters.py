"""Filters of lists: they can be combined, pages neither repeat nor miss items, and invalid parameters are refused."""

from typing import Any

import pytest

from tests.harness.world import World

PAYOUTS = "/api/v1/payouts"


def ids(world: World, **params: Any) -> list[str]:
    """Fetch all pages of the payout list and return the ids. `limit` sets the page size."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        response = world.client.get(PAYOUTS, params={**params, **cursor})
        assert response.status_code == 200, response.text
        page = response.json()
        found += [payout["id"] for payout in page["data"]]
        if not page["has_more"]:
            return found
        cursor = {"cursor": page["next_cursor"]}


def create_payouts(world: World, *payouts: dict[str, Any]) -> list[str]:
    return [world.create_payout(item.pop("suffix", "0004"), **item)["id"] for item in payouts]


def test_payouts_in_several_statuses_are_listed_together_newest_first(world: World) -> None:
    world.client.post("/sandbox/v1/clock/freeze")
    created = create_payouts(world, *({"suffix": suffix, "amount": "1.00"} for suffix in ("0001", "0003", "0004", "0005") * 5))
    by_status = {status: [created[index] for index in range(20) if index % 4 == number] for number, status in
          enumerate(("SUCCESS", "FAILED", "PENDING", "ON_HOLD"))}  # fmt: skip
    for statuses in (["SUCCESS"], ["SUCCESS", "FAILED"], ["ON_HOLD", "PENDING", "SUCCESS"], ["RETURNED"], list(by_status)):
        expected = sorted((id_ for status in statuses for id_ in by_status.get(status, [])), reverse=True)
        assert ids(world, status=",".join(statuses), limit=3) == expected
    assert ids(world, status="FAILED,FAILED", limit=2) == sorted(by_status["FAILED"], reverse=True)


def test_failure_code_bank_and_wallet_are_filters_that_combine_with_all_others(world: World) -> None:
    hbl, mcb, other_code, wallet, good = create_payouts(
        world,
        {"suffix": "0007", "metadata": {"order": "17"}},
        {"suffix": "0007", "bank_code": "MCB"},
        {"suffix": "0006"},
        {"suffix": "0007", "dest_type": "WALLET", "bank_code": None, "wallet_code": "EASYPAISA"},
        {"suffix": "0001"},
    )
    world.post("/sandbox/v1/drain")
    reference = world.payout(mcb)["merchant_reference"]
    for params, expected in (
        ({"failure_code": "ACCOUNT_CLOSED", "limit": 1}, [wallet, mcb, hbl]),
        ({"failure_code": "ACCOUNT_CLOSED", "bank_code": "HBL"}, [hbl]),
        ({"failure_code": "ACCOUNT_CLOSED", "wallet_code": "EASYPAISA"}, [wallet]),
        ({"failure_code": "ACCOUNT_CLOSED", "dest_type": "BANK"}, [mcb, hbl]),
        ({"failure_code": "ACCOUNT_CLOSED", "metadata[order]": "17"}, [hbl]),
        ({"failure_code": "ACCOUNT_CLOSED", "merchant_reference": reference}, [mcb]),
        ({"failure_code": "NAME_MISMATCH", "merchant_reference": reference}, []),
        ({"failure_code": "ACCOUNT_CLOSED", "q": reference}, [mcb]),
        ({"failure_code": "NAME_MISMATCH", "q": reference}, []),
        ({"failure_code": "ACCOUNT_CLOSED", "q": "100.00"}, [wallet, mcb, hbl]),
        ({"bank_code": "HBL", "status": "SUCCESS"}, [good]),
        ({"bank_code": "HBL", "failure_code": "ACCOUNT_NOT_FOUND"}, [other_code]),
        ({"bank_code": "HBL", "created_to": "2000-01-01T00:00:00Z"}, []),
    ):
        assert ids(world, **params) == expected, params


def test_all_metadata_pairs_and_other_filters_must_match(world: World) -> None:
    red, blue, other, wallet = create_payouts(
        world,
        {"metadata": {"order": "17", "colour": "red"}},
        {"metadata": {"order": "17", "colour": "blue, not [red]"}},
        {"metadata": {"order": "18"}},
        {"metadata": {"order": "17"}, "dest_type": "WALLET", "bank_code": None, "wallet_code": "EASYPAISA"},
    )
    world.client.post(f"/api/v1/payouts/{blue}/cancel", headers={"X-IDEMPOTENCY-KEY": "c"}).raise_for_status()
    assert ids(world, **{"metadata[order]": "17", "limit": 1}) == [wallet, blue, red]
    assert ids(world, **{"metadata[order]": "17", "metadata[colour]": "red"}) == [red]
    assert ids(world, **{"metadata[colour]": "blue, not [red]"}) == [blue]
    assert ids(world, **{"metadata[order]": "17", "status": "PENDING,FAILED"}) == [wallet, red]
    assert ids(world, **{"metadata[order]": "17", "dest_type": "WALLET"}) == [wallet]
    reference = world.payout(other)["merchant_reference"]
    assert ids(world, **{"metadata[order]": "17", "merchant_reference": reference}) == []
    assert ids(world, **{"metadata[order]": "18", "merchant_reference": reference}) == [other]
    assert ids(world, **{"metadata[order]": "17", "created_to": "2000-01-01T00:00:00Z"}) == []
    assert ids(world, **{"metadata[nothing]": "17"}) == []
    with World.create(world.stack) as other_merchant:
        assert ids(other_merchant, **{"metadata[order]": "17"}) == []


def test_the_metadata_filter_follows_a_reset_and_a_restore(world: World) -> None:
    (kept,) = create_payouts(world, {"metadata": {"order": "17"}})
    snapshot = world.client.post("/sandbox/v1/snapshots", json={"name": "kept"}).json()["id"]
    create_payouts(world, {"metadata": {"order": "17"}})
    world.client.post("/sandbox/v1/reset").raise_for_status()
    assert ids(world, **{"metadata[order]": "17"}) == []
    world.client.post(f"/sandbox/v1/snapshots/{snapshot}/restore").raise_for_status()
    assert ids(world, **{"metadata[order]": "17"}) == [kept]
    world.assert_clean()


def test_metadata_and_user_filters_can_be_combined(world: World) -> None:
    create_payouts(world, {"metadata": {"order": "17"}})
    user = {"name": "U", "destination": {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900004"}}
    user_id = world.post("/api/v1/users", user).json()["id"]
    assert ids(world, **{"metadata[order]": "17", "user_id": user_id}) == []


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"status": "DONE,SUCCESS", "limit": "0", "user_id": "x", "nope": "1", "dest_type": "bank"},
         {"status", "limit", "user_id", "nope", "dest_type"}),
        ({"created_from": "yesterday", "created_to": "2026", "cursor": "x", "merchant_reference": "r" * 65},
         {"created_from", "created_to", "cursor", "merchant_reference"}),
        ({"status": ""}, {"status"}),
        ({"status": "SUCCESS,"}, {"status"}),
        ({"metadata": "x", "metadata[]": "1", f"metadata[{'k' * 65}]": "1", "metadata[a]": "v" * 501, "status[a]": "1"},
         {"metadata", "metadata[]", f"metadata[{'k' * 65}]", "metadata[a]", "status[a]"}),
    ],
)  # fmt: skip
def test_one_response_names_every_invalid_parameter(world: World, params: dict[str, str], expected: set[str]) -> None:
    response = world.client.get(PAYOUTS, params=params)
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR"), response.text
    assert {error["field"] for error in response.json()["errors"]} == expected


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/vendor/v1/transactions", {"startDate": "2026-13-01", "endDate": "then", "page": "0", "limit": "1001", "x": "y"}),
        ("/sandbox/v1/requests", {"method": "FETCH", "status": "99", "path": "", "q": "", "request_id": "r" * 129}),
        ("/api/v1/balance/history", {"payout_id": "x", "account": "WALLET", "limit": "101", "created_from": "2026-01-31"}),
        ("/api/v1/users", {"external_id": "", "limit": "x"}),
        ("/api/v1/webhook-deliveries", {"endpoint_id": "x", "event_id": "X", "status": "CONNECTION_ERRORS"}),
        ("/sandbox/v1/stream", {"limit": "0", "timeout": "-1"}),
    ],
)
def test_every_list_names_all_its_invalid_parameters(world: World, path: str, params: dict[str, str]) -> None:
    response = world.client.get(path, params=params)
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR"), response.text
    assert {error["field"] for error in response.json()["errors"]} == params.keys()


def test_too_many_parameters_are_refused(world: World) -> None:
    pairs = [(f"metadata[{number}]", "x") for number in range(101)]
    # A payout has at most 20 metadata pairs, so a filter can have at most 20.
    assert world.client.get(PAYOUTS, params=pairs[:20]).status_code == 200
    response = world.client.get(PAYOUTS, params=[*pairs[:21], ("limit", "1")])
    assert response.json()["errors"] == [{"field": "metadata", "message": "can be given at most 20 times as metadata[KEY]"}]
    response = world.client.get(PAYOUTS, params=pairs)
    assert response.json()["errors"] == [{"field": "query", "message": "must have at most 100 parameters; this one has 101"}]


def test_an_error_lists_the_allowed_values_and_suggests_the_likely_name(world: World) -> None:
    response = world.client.get(PAYOUTS, params=[("status", "succes"), ("stauts", "x"), ("limit", "1"), ("limit", "2")])
    messages = {error["field"]: error["message"] for error in response.json()["errors"]}
    assert messages["status"].startswith("must be one or more of REQUESTED, PENDING")
    assert messages["status"].endswith("comma-separated; did you mean SUCCESS?")
    assert messages["stauts"] == "is not a known parameter; did you mean status?"
    assert messages["limit"] == "is given more than once"
    response = world.client.get(PAYOUTS, params={"metadata": "x", "metdata[a]": "y"})
    messages = {error["field"]: error["message"] for error in response.json()["errors"]}
    assert set(messages.values()) == {"is not a known parameter; did you mean metadata[KEY]?"}
    response = world.client.get(
        f"{PAYOUTS}/{world.create_payout()['id']}", params={"wait_for": "DONE", "timeout": "x", "a": "b"}
    )
    assert {error["field"] for error in response.json()["errors"]} == {"wait_for", "timeout", "a"}
