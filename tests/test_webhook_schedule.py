"""The retry schedule is as documented, its jitter is deterministic and only shortens waits, and Retry-After is bounded."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.http.retry_after import RETRY_AFTER_LIMIT, parse_retry_after
from sandbox.webhooks.delivery.retry_schedule import (
    PROFILES,
    classify_response,
    is_final,
    next_attempt,
    slows_down,
)

NOW = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
profiles = st.sampled_from(sorted(PROFILES))


def test_the_retry_profiles_are_as_documented() -> None:
    assert [wait.total_seconds() for wait in PROFILES["standard"]] == [
        0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600,
    ]  # fmt: skip
    assert [wait.total_seconds() for wait in PROFILES["fast"]] == [0, 1, 2, 4, 8, 16]


@given(profiles, st.text())
def test_a_new_delivery_is_due_at_once_and_no_attempt_follows_the_last(profile: str, seed: str) -> None:
    attempts = len(PROFILES[profile])
    assert next_attempt(profile, 0, NOW, seed) == NOW
    assert next_attempt(profile, attempts - 1, NOW, seed) is not None
    assert next_attempt(profile, attempts, NOW, seed) is None
    assert next_attempt(profile, attempts + 1, NOW, seed, timedelta(seconds=1)) is None


@given(profiles, st.integers(0, 9), st.text())
def test_jitter_is_deterministic_and_shortens_a_wait_by_at_most_a_twentieth(
    profile: str, attempts_made: int, seed: str
) -> None:
    due = next_attempt(profile, attempts_made, NOW, seed)
    assert due == next_attempt(profile, attempts_made, NOW, seed)
    if due is not None:
        wait = PROFILES[profile][attempts_made]
        assert wait * 19 <= (due - NOW) * 20 <= wait * 20


def test_deliveries_that_failed_together_are_retried_at_different_times() -> None:
    due = {next_attempt("standard", 9, NOW, f"delivery-{number}") for number in range(200)}
    assert len(due) == 200


@given(profiles, st.integers(0, 5), st.text(), st.timedeltas(timedelta(days=-1), timedelta(days=3)))
def test_retry_after_delays_an_attempt_by_at_most_a_day_and_never_makes_it_earlier(
    profile: str, attempts_made: int, seed: str, retry_after: timedelta
) -> None:
    plain = next_attempt(profile, attempts_made, NOW, seed)
    due = next_attempt(profile, attempts_made, NOW, seed, retry_after)
    assert plain is not None
    assert due == max(plain, NOW + min(retry_after, RETRY_AFTER_LIMIT))


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="standard, fast"):
        next_attempt("slow", 0, NOW, "x")
    with pytest.raises(ValueError, match="negative"):
        next_attempt("fast", -1, NOW, "x")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("   ", None),
        ("0", 0),
        ("120", 120),
        (" 120\t", 120),
        ("000000000000000120", 120),
        ("-5", 0),
        ("-0", 0),
        ("-", None),
        ("--5", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("1_000", None),
        ("\u0665", None),
        ("\u00b2", None),
        ("soon", None),
        ("86400", 86400),
        ("86401", 86400),
        ("9" * 100_000, 86400),
        ("Sun, 01 Jun 2025 12:02:00 GMT", 120),
        ("Sunday, 01-Jun-25 12:02:00 GMT", 120),
        ("Sun Jun  1 12:02:00 2025", 120),
        ("Sun, 01 Jun 2025 14:02:00 +0200", 120),
        ("Sun, 01 Jun 2025 11:00:00 GMT", 0),
        ("Sun, 01 Jun 2035 12:00:00 GMT", 86400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
        ("Sun, 99 Jun 2025 12:02:00 GMT", None),
        ("Sun, 01 Jun 2025 99:99:99 GMT", None),
        ("2025-06-01T12:02:00Z", None),
        ("Sun, 01 Jun 2025 12:02:00 GMT" + "x" * 1000, None),
    ],
)
def test_retry_after_is_parsed_as_seconds_or_as_a_date(value: str | None, seconds: int | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert parse_retry_after(value, NOW) == expected


@given(st.one_of(st.text(), st.text("0123456789 :,-+GMTJanFebSunMon", min_size=16, max_size=64)))
def test_any_retry_after_is_parsed_without_an_error_and_within_its_bounds(value: str) -> None:
    wait = parse_retry_after(value, NOW)
    assert wait is None or timedelta(0) <= wait <= RETRY_AFTER_LIMIT


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (None, "failed"),
        (101, "failed"),
        (199, "failed"),
        (200, "succeeded"),
        (204, "succeeded"),
        (299, "succeeded"),
        (300, "failed"),
        (302, "failed"),
        (400, "failed"),
        (404, "failed"),
        (410, "gone"),
        (429, "failed"),
        (500, "failed"),
    ],
)
def test_only_2xx_succeeds_and_410_means_the_endpoint_is_gone(status: int | None, outcome: str) -> None:
    assert classify_response(status) == outcome
    assert classify_response(status, "server_errors") == outcome.replace("gone", "failed")
    assert is_final(status, "server_errors") is (status is not None and 300 <= status <= 499)
    assert not is_final(status, "fast")


def test_only_429_and_gateway_errors_slow_an_endpoint_down() -> None:
    assert {status for status in (None, *range(100, 600)) if slows_down(status)} == {429, 502, 503, 504}
