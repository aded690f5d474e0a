"""Retries: growing pauses, one word an outage, and every other error at once."""

import pytest

from sandbox.infrastructure.backoff import backoff


async def test_pauses_double_up_to_the_longest_and_an_outage_is_told_once() -> None:
    errors = [OSError("away"), OSError("still away"), OSError("still away"), OSError("still away")]
    told: list[str] = []
    pauses: list[float] = []

    async def call() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    retrying = backoff(0.1, 0.5, (OSError,), lambda error: told.append(str(error)))
    retrying.sleep = pause
    assert await retrying(call) == "done"
    assert pauses == [0.1, 0.2, 0.4, 0.5]
    assert told == ["away"]


async def test_a_loop_that_ran_well_begins_a_new_outage() -> None:
    told: list[str] = []
    pauses: list[float] = []
    runs = 0

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    retrying = backoff(0.1, 0.5, (OSError,), lambda error: told.append(str(error)))
    retrying.sleep = pause
    async for attempt in retrying:
        with attempt:
            runs += 1
            if runs == 3:
                attempt.retry_state.attempt_number = 1  # it worked for a while
            if runs < 5:
                raise OSError(f"run {runs}")
    assert pauses == [0.1, 0.2, 0.1, 0.2]
    assert told == ["run 1", "run 3"]


async def test_any_other_error_is_raised_as_it_is() -> None:
    async def call() -> None:
        raise KeyError("a defect")

    with pytest.raises(KeyError, match="a defect"):
        await backoff(0.1, 0.5, (OSError,), print)(call)
