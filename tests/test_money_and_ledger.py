"""The pure domain code: amounts, transfers, payout statuses, scenarios, ids and times."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.domain import payout_states
from sandbox.domain.clock import Clock, parse, render
from sandbox.domain.ids import IdSource, first_id_at, is_uuid, uuid7
from sandbox.domain.ledger import (
    LOCK,
    MERCHANT_ACCOUNTS,
    MOVEMENTS,
    NEVER_NEGATIVE,
    Posted,
    Refused,
    Transfer,
    post,
    wallet_of,
)
from sandbox.domain.money import MAX_AMOUNT, InvalidAmountError, parse_amount, round_half_up
from sandbox.domain.payout_states import HOLDS_FUNDS, STATUSES, TRANSITIONS, legal_from
from sandbox.domain.scenario_engine import decide, next_step
from sandbox.payouts.scenarios.builtin import load_catalogue

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'"1500.00"', "1500.00"), (b'"1500"', "1500.00"), (b'"0.1"', "0.10"), (b"1500", "1500.00"), (b"0.07", "0.07"),
        (b"1.5e3", "1500.00"), (b"1E2", "100.00"), (b"999999999999.99", "999999999999.99"), (b"10.10000", "10.10"),
    ],
)  # fmt: skip
def test_valid_amounts_are_parsed(raw: bytes, value: str) -> None:
    assert parse_amount(raw) == Decimal(value)
    assert str(parse_amount(raw)) == value


@pytest.mark.parametrize(
    "raw",
    [
        b'"0"', b"0", b"-1", b'"-1"', b'"+1"', b'" 1"', b'"1 "', b'"1."', b'".5"', b'"01"', b'"1e2"', b'"NaN"', b'"Infinity"',
        b'"1_000"', b"1.001", b'"1.001"', b"1e999999999", b"1000000000000", b"true", b"null", b"{}", b"[]", b'""', b'"1.0\\n"',
        b'"\xd9\xa1"', b"9" * 1000, b"1e-400",
    ],
)  # fmt: skip
def test_invalid_amounts_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidAmountError):
        parse_amount(raw)


@given(st.decimals(min_value="0.01", max_value=MAX_AMOUNT, places=2))
def test_a_parsed_amount_is_exact(amount: Decimal) -> None:
    assert parse_amount(f'"{amount}"'.encode()) == amount
    assert parse_amount(str(amount).encode()) == amount


@pytest.mark.parametrize(("value", "rounded"), [("0.005", "0.01"), ("0.0049", "0.00"), ("3.333", "3.33"), ("-0.005", "-0.01")])
def test_halves_are_rounded_away_from_zero(value: str, rounded: str) -> None:
    assert round_half_up(Decimal(value)) == Decimal(rounded)


amounts = st.decimals(min_value="0.01", max_value="1000.00", places=2)
transfers = st.lists(st.tuples(st.sampled_from(sorted(MOVEMENTS)), amounts), max_size=60)


@given(transfers)
def test_transfers_neither_create_nor_lose_money_and_available_and_locked_never_go_negative(
    requested: list[tuple[str, Decimal]],
) -> None:
    accounts = (*MERCHANT_ACCOUNTS, wallet_of("user"))
    balances = dict.fromkeys(accounts, Decimal("0.00"))
    transfers = [Transfer(str(n), MOVEMENTS[reason], amount, None, "", "user") for n, (reason, amount) in enumerate(requested)]
    results = [post(balances, transfer) for transfer in transfers]
    assert sum(balances.values()) == 0
    assert all(balances[account] >= 0 for account in NEVER_NEGATIVE)
    replayed = dict.fromkeys(accounts, Decimal("0.00"))
    for result in results:
        transfer = result.transfer
        if isinstance(result, Refused):
            assert replayed[result.account] == result.balance < transfer.amount
            continue
        replayed[transfer.debit_account] -= transfer.amount
        replayed[transfer.credit_account] += transfer.amount
        assert replayed[transfer.debit_account] == result.debit_balance_after
        assert replayed[transfer.credit_account] == result.credit_balance_after
    assert replayed == balances


def test_a_transfer_without_funds_is_refused_and_later_ones_can_still_be_posted() -> None:
    balances = {"AVAILABLE": Decimal(100), "LOCKED": Decimal(0), "SETTLEMENT": Decimal(0), "FUNDING": Decimal(-100)}
    transfers = [Transfer(str(n), LOCK, Decimal(amount), None, "") for n, amount in enumerate((60, 60, 40, 1))]
    kinds = [type(post(balances, transfer)) for transfer in transfers]
    assert kinds == [Posted, Refused, Posted, Refused]
    assert balances["AVAILABLE"] == 0


@pytest.mark.parametrize("amount", ["0.00", "-1.00"])
def test_a_transfer_of_zero_or_less_raises(amount: str) -> None:
    with pytest.raises(ValueError, match="must have a positive amount"):
        post(dict.fromkeys(MERCHANT_ACCOUNTS, Decimal(5)), Transfer("1", LOCK, Decimal(amount), None, ""))


def test_each_status_has_a_constant_with_its_name() -> None:
    assert {status: getattr(payout_states, status) for status in STATUSES} == {status: status for status in STATUSES}


@given(st.lists(st.integers(0, 10), max_size=30))
def test_a_payouts_funds_are_in_the_account_that_its_status_requires(choices: list[int]) -> None:
    """After any sequence of transitions, LOCKED has the amount exactly in the statuses that hold funds."""
    balances = {"AVAILABLE": Decimal(10), "LOCKED": Decimal(0), "SETTLEMENT": Decimal(0), "FUNDING": Decimal(-10)}
    status: str | None = None
    for choice in choices:
        targets = [target for source, target in TRANSITIONS if source == status]
        if not targets:
            break
        target = targets[choice % len(targets)]
        movement = TRANSITIONS[status, target].movement
        if movement is not None:
            assert isinstance(post(balances, Transfer("1", movement, Decimal(10), None, "")), Posted)
        status = target
        assert balances["LOCKED"] == (10 if status in HOLDS_FUNDS else 0)
        assert balances["SETTLEMENT"] == (10 if status == "SUCCESS" else 0)


def test_only_final_statuses_have_no_transitions() -> None:
    assert {status for status in STATUSES if not legal_from(status)} == {"CANCELLED", "REJECTED", "RETURNED"}


def test_every_scenario_makes_only_legal_changes_and_ends() -> None:
    for scenario in load_catalogue().scenarios:
        status, step, now = "PENDING", 0, NOW
        _, due = next_step(scenario, 0, now, "")
        changes = 0
        while due is not None:
            decision = decide(scenario, step, due)
            for _, change in decision.taken:
                assert (status, change.to) in TRANSITIONS, (scenario.name, status, change.to)
                status = change.to
                changes += 1
            assert decision.step > step
            step, due = decision.step, decision.due_at
            assert changes <= len(scenario.steps)


def test_a_scenarios_waits_start_at_the_previous_change() -> None:
    scenario = load_catalogue().named("bank_unavailable")
    waits, step, due = [], 0, NOW
    while due is not None:
        decision = decide(scenario, step, due)
        if decision.due_at is not None:
            waits.append((decision.due_at - due).total_seconds())
        step, due = decision.step, decision.due_at
    assert waits == [2, 4, 8]


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**42 - 1))
def test_an_id_is_a_uuidv7_with_its_time(milliseconds: int, counter: int, bits: int) -> None:
    id_ = uuid7(milliseconds, counter, bits)
    assert is_uuid(id_)
    assert (id_[14], id_[19] in "89ab") == ("7", True)
    assert int(id_.replace("-", "")[:12], 16) == milliseconds
    assert first_id_at(milliseconds) <= id_


def test_ids_made_at_one_frozen_time_sort_in_order_of_creation() -> None:
    source = IdSource(1_700_000_000_000, 2**20 - 50, lambda bits: 0)
    ids = [source.next() for _ in range(200)]
    assert ids == sorted(set(ids))


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1), max_value=datetime(2999, 1, 1)))  # noqa: DTZ001
def test_a_rendered_time_parses_to_the_same_millisecond(moment: datetime) -> None:
    assert abs(parse(render(moment)) - moment) < timedelta(milliseconds=1)


def test_a_clock_is_frozen_or_runs_with_an_offset() -> None:
    assert Clock(None, timedelta(hours=1)).now(NOW) == NOW + timedelta(hours=1)
    assert Clock(NOW, timedelta(hours=1)).now(NOW + timedelta(days=9)) == NOW


@pytest.mark.parametrize(
    "text", ["", "2026-01-31", "2026-01-31T12:00:00", "2026-13-31T12:00:00Z", "now", "2026-01-31T12:00:00Z\n"]
)
def test_invalid_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse(text)
