"""Retry after temporary errors, such as an unavailable database."""

from collections.abc import Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential


def backoff(
    first: float, max_pause: float, errors: tuple[type[BaseException], ...], on_outage: Callable[[BaseException], None]
) -> AsyncRetrying:
    """Retry after any of `errors`, without limit, with pauses that double from `first` to `max_pause` seconds.

    Calls `on_outage` with the first error of an outage. An outage ends when the call succeeds. A call that never returns can
    report success by setting its attempt's `retry_state.attempt_number` to 1; the next pause is then `first` again.
    """

    def report_first(state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        if error is not None and state.attempt_number == 1:
            on_outage(error)

    return AsyncRetrying(
        wait=wait_exponential(first, max=max_pause), retry=retry_if_exception_type(errors), before_sleep=report_first
    )
