"""Retries wait longer each time and report each outage once; unexpected errors are raised immediately."""

import pytest

from sandbox.infrastructure.backoff import backoff


async def test_delays_double_up_to_the_maximum_and_an_outage_is_reported_once() -> None:
    errors = [OSError("unavailable"), OSError("still unavailable"), OSError("still unavailable"), OSError("still unavailable")]
    reported: list[str] = []
    pauses: list[float] = []

    async def call() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    retrying = backoff(0.1, 0.5, (OSError,), lambda error: reported.append(str(error)))
    retrying.sleep = pause
    assert await retrying(call) == "done"
    assert pauses == [0.1, 0.2, 0.4, 0.5]
    assert reported == ["unavailable"]


async def test_a_failure_after_a_success_is_reported_as_a_new_outage() -> None:
    reported: list[str] = []
    pauses: list[float] = []
    runs = 0

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    retrying = backoff(0.1, 0.5, (OSError,), lambda error: reported.append(str(error)))
    retrying.sleep = pause
    async for attempt in retrying:
        with attempt:
            runs += 1
            if runs == 3:
                attempt.retry_state.attempt_number = 1  # as the caller does after it worked for a while
            if runs < 5:
                raise OSError(f"run {runs}")
    assert pauses == [0.1, 0.2, 0.1, 0.2]
    assert reported == ["run 1", "run 3"]


async def test_any_other_error_is_raised_unchanged() -> None:
    async def call() -> None:
        raise KeyError("unexpected")

    with pytest.raises(KeyError, match="unexpected"):
        await backoff(0.1, 0.5, (OSError,), print)(call)
