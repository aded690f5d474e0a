"""A unit of work is repeated where that is safe, three times at most."""

import asyncpg
import pytest

from sandbox.domain.errors import Problem
from sandbox.unit_of_work.transaction import ATTEMPTS, with_retries

CONTENTION = asyncpg.SerializationError("another transaction was in the way")
LOST = asyncpg.ConnectionDoesNotExistError("the connection broke during COMMIT")


class Attempts:
    """A transaction that fails with these errors, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.mark.parametrize("errors", [[], [CONTENTION], [CONTENTION, CONTENTION], [LOST, CONTENTION], [LOST, LOST]])
async def test_what_its_key_makes_repeatable_is_repeated(errors: list[Exception]) -> None:
    attempts = Attempts(*errors)
    assert await with_retries(attempts, retry_safe=True) == "done"
    assert attempts.made == len(errors) + 1


@pytest.mark.parametrize("error", [CONTENTION, LOST])
async def test_it_gives_up_after_three_attempts(error: Exception) -> None:
    attempts = Attempts(*[error] * 5)
    with pytest.raises(Problem, match="UNAVAILABLE"):
        await with_retries(attempts, retry_safe=True)
    assert attempts.made == ATTEMPTS


async def test_without_a_key_a_lost_commit_is_never_repeated() -> None:
    """It may have happened; repeated, it would happen twice."""
    attempts = Attempts(LOST)
    with pytest.raises(Problem, match="UNAVAILABLE"):
        await with_retries(attempts, retry_safe=False)
    assert attempts.made == 1


async def test_without_a_key_contention_is_repeated_and_a_loss_after_it_is_not() -> None:
    attempts = Attempts(CONTENTION, LOST)
    with pytest.raises(Problem, match="UNAVAILABLE"):
        await with_retries(attempts, retry_safe=False)
    assert attempts.made == 2


async def test_a_defect_is_not_repeated() -> None:
    attempts = Attempts(ArithmeticError("a defect"))
    with pytest.raises(ArithmeticError):
        await with_retries(attempts, retry_safe=True)
    assert attempts.made == 1
