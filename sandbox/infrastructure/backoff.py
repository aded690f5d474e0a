"""Try again after an error that passes by itself, such as a store that is away."""

from collections.abc import Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential


def backoff(
    first: float, longest: float, errors: tuple[type[BaseException], ...], say: Callable[[BaseException], None]
) -> AsyncRetrying:
    """Retry after any of `errors` without end, with pauses that double from `first` to `longest` seconds.

    `say` is told of an outage's first error. An outage is over when the call succeeds; a loop that should never return says
    so by setting its attempt's `retry_state.attempt_number` to 1, and the next pause is the first again.
    """

    def say_first(state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        if error is not None and state.attempt_number == 1:
            say(error)

    return AsyncRetrying(
        wait=wait_exponential(first, max=longest), retry=retry_if_exception_type(errors), before_sleep=say_first
    )
