"""The pure core: amounts, transfers, states and scenarios, as tables of cases and properties."""

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
from sandbox.scenarios.builtin import load_catalogue

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'"1500.00"', "1500.00"), (b'"1500"', "1500.00"), (b'"0.1"', "0.10"), (b"1500", "1500.00"), (b"0.07", "0.07"),
        (b"1.5e3", "1500.00"), (b"1E2", "100.00"), (b"999999999999.99", "999999999999.99"), (b"10.10000", "10.10"),
    ],
)  # fmt: skip
def test_what_is_an_amount(raw: bytes, value: str) -> None:
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
def test_what_is_none(raw: bytes) -> None:
    with pytest.raises(InvalidAmountError):
        parse_amount(raw)


@given(st.decimals(min_value="0.01", max_value=MAX_AMOUNT, places=2))
def test_an_amount_comes_back_exactly(amount: Decimal) -> None:
    assert parse_amount(f'"{amount}"'.encode()) == amount
    assert parse_amount(str(amount).encode()) == amount


@pytest.mark.parametrize(("value", "rounded"), [("0.005", "0.01"), ("0.0049", "0.00"), ("3.333", "3.33"), ("-0.005", "-0.01")])
def test_halves_are_rounded_up(value: str, rounded: str) -> None:
    assert round_half_up(Decimal(value)) == Decimal(rounded)


amounts = st.decimals(min_value="0.01", max_value="1000.00", places=2)
transfers = st.lists(st.tuples(st.sampled_from(sorted(MOVEMENTS)), amounts), max_size=60)


@given(transfers)
def test_money_is_neither_made_nor_lost_and_never_negative(asked: list[tuple[str, Decimal]]) -> None:
    accounts = (*MERCHANT_ACCOUNTS, wallet_of("user"))
    balances = dict.fromkeys(accounts, Decimal("0.00"))
    transfers = [Transfer(str(n), MOVEMENTS[reason], amount, None, "", "user") for n, (reason, amount) in enumerate(asked)]
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


def test_one_that_lacks_funds_fails_alone_and_a_later_one_may_pass() -> None:
    balances = {"AVAILABLE": Decimal(100), "LOCKED": Decimal(0), "SETTLEMENT": Decimal(0), "FUNDING": Decimal(-100)}
    asked = [Transfer(str(n), LOCK, Decimal(amount), None, "") for n, amount in enumerate((60, 60, 40, 1))]
    kinds = [type(post(balances, transfer)) for transfer in asked]
    assert kinds == [Posted, Refused, Posted, Refused]
    assert balances["AVAILABLE"] == 0


@pytest.mark.parametrize("amount", ["0.00", "-1.00"])
def test_a_transfer_of_nothing_is_a_defect_of_the_caller(amount: str) -> None:
    with pytest.raises(ValueError, match="must have a positive amount"):
        post(dict.fromkeys(MERCHANT_ACCOUNTS, Decimal(5)), Transfer("1", LOCK, Decimal(amount), None, ""))


def test_each_status_is_the_constant_of_its_name() -> None:
    assert {status: getattr(payout_states, status) for status in STATUSES} == {status: status for status in STATUSES}


@given(st.lists(st.integers(0, 10), max_size=30))
def test_whatever_path_a_payout_takes_its_funds_are_where_its_state_says(choices: list[int]) -> None:
    """Walk the table at random: locked holds the amount exactly in the states that hold funds."""
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


def test_final_states_are_final() -> None:
    assert {status for status in STATUSES if not legal_from(status)} == {"CANCELLED", "REJECTED", "RETURNED"}


def test_every_scenario_takes_only_legal_changes_and_ends() -> None:
    for scenario in load_catalogue().scenarios:
        status, step, now = "PENDING", 0, NOW
        _, due = next_step(scenario, 0, now, "")
        taken = 0
        while due is not None:
            decision = decide(scenario, step, due)
            for _, change in decision.taken:
                assert (status, change.to) in TRANSITIONS, (scenario.name, status, change.to)
                status = change.to
                taken += 1
            assert decision.step > step
            step, due = decision.step, decision.due_at
            assert taken <= len(scenario.steps)


def test_a_scenarios_waits_are_counted_from_the_change_before() -> None:
    scenario = load_catalogue().named("bank_unavailable")
    waits, step, due = [], 0, NOW
    while due is not None:
        decision = decide(scenario, step, due)
        if decision.due_at is not None:
            waits.append((decision.due_at - due).total_seconds())
        step, due = decision.step, decision.due_at
    assert waits == [2, 4, 8]


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**42 - 1))
def test_an_id_is_a_uuidv7_of_its_moment(milliseconds: int, counter: int, bits: int) -> None:
    made = uuid7(milliseconds, counter, bits)
    assert is_uuid(made)
    assert (made[14], made[19] in "89ab") == ("7", True)
    assert int(made.replace("-", "")[:12], 16) == milliseconds
    assert first_id_at(milliseconds) <= made


def test_ids_of_one_frozen_moment_sort_as_they_were_made() -> None:
    source = IdSource(1_700_000_000_000, 2**20 - 50, lambda bits: 0)
    made = [source.next() for _ in range(200)]
    assert made == sorted(set(made))


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1), max_value=datetime(2999, 1, 1)))  # noqa: DTZ001
def test_a_time_comes_back_to_the_millisecond(moment: datetime) -> None:
    assert abs(parse(render(moment)) - moment) < timedelta(milliseconds=1)


def test_a_clock_is_frozen_or_runs_at_its_offset() -> None:
    assert Clock(None, timedelta(hours=1)).now(NOW) == NOW + timedelta(hours=1)
    assert Clock(NOW, timedelta(hours=1)).now(NOW + timedelta(days=9)) == NOW


@pytest.mark.parametrize(
    "text", ["", "2026-01-31", "2026-01-31T12:00:00", "2026-13-31T12:00:00Z", "now", "2026-01-31T12:00:00Z\n"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse(text)
