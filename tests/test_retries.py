"""A unit of work is retried only if that is safe, with at most three attempts."""

import asyncpg
import pytest

from sandbox.domain.errors import Problem
from sandbox.unit_of_work.transaction import ATTEMPTS, with_retries

CONTENTION = asyncpg.SerializationError("conflict with another transaction")
COMMIT_INTERRUPTED = asyncpg.ConnectionDoesNotExistError("the connection broke during COMMIT")


class Attempts:
    """A transaction that fails with the given errors and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.count = 0

    async def __call__(self) -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.mark.parametrize(
    "errors",
    [[], [CONTENTION], [CONTENTION, CONTENTION], [COMMIT_INTERRUPTED, CONTENTION], [COMMIT_INTERRUPTED, COMMIT_INTERRUPTED]],
)
async def test_with_an_idempotency_key_contention_and_interrupted_commits_are_retried(errors: list[Exception]) -> None:
    attempts = Attempts(*errors)
    assert await with_retries(attempts, retry_safe=True) == "done"
    assert attempts.count == len(errors) + 1


@pytest.mark.parametrize("error", [CONTENTION, COMMIT_INTERRUPTED])
async def test_three_failed_attempts_are_reported_as_unavailable(error: Exception) -> None:
    attempts = Attempts(*[error] * 5)
    with pytest.raises(Problem, match="UNAVAILABLE"):
        await with_retries(attempts, retry_safe=True)
    assert attempts.count == ATTEMPTS


async def test_without_a_key_an_interrupted_commit_is_never_retried() -> None:
    """The commit may have succeeded, and a retry would run the request twice."""
    attempts = Attempts(COMMIT_INTERRUPTED)
    with pytest.raises(Problem, match="UNAVAILABLE"):
        await with_retries(attempts, retry_safe=False)
    assert attempts.count == 1


async def test_without_a_key_contention_is_retried_but_an_interrupted_commit_after_it_is_not() -> None:
    attempts = Attempts(CONTENTION, COMMIT_INTERRUPTED)
    with pytest.raises(Problem, match="UNAVAILABLE"):
        await with_retries(attempts, retry_safe=False)
    assert attempts.count == 2


async def test_other_errors_are_not_retried() -> None:
    attempts = Attempts(ArithmeticError("a defect"))
    with pytest.raises(ArithmeticError):
        await with_retries(attempts, retry_safe=True)
    assert attempts.count == 1
