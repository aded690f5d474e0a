"""Count and log the payments of sales that were committed."""

from collections.abc import Sequence
from typing import Final, Literal

import structlog

from sandbox.domain.money import ZERO
from sandbox.domain.sale import RUN_MINUTES, RunResult
from sandbox.infrastructure.metrics import SALE_PAYMENTS, SALES_RUNS
from sandbox.users.sales.payments import Attempt, add_attempts

Cause = Literal["api", "cron", "clock"]
"""The cause of a run: a request, the worker's schedule, or an advance of the clock past the scheduled time."""
NOTHING: Final = RunResult(0, 0, ZERO)
"""The result of a run that has paid nothing yet."""
_log = structlog.get_logger()


def record_run(merchant_id: str, kind: str, cause: Cause, request_id: str, result: RunResult) -> None:
    """Count and log a completed run."""
    SALES_RUNS.labels(kind, cause).inc()
    _log.info(
        "sales_run", merchant_id=merchant_id, kind=kind, cause=cause, request_id=request_id,
        paid=result.paid, failed=result.failed, total_amount=str(result.total_amount),
    )  # fmt: skip


def record_attempts(merchant_id: str, attempts: Sequence[Attempt]) -> None:
    """Count committed attempts, and log those that failed."""
    for attempt in attempts:
        SALE_PAYMENTS.labels(attempt.kind, "paid" if attempt.error is None else "failed").inc()
        if attempt.error is not None:
            _log.warning(
                "sale_payment_failed", merchant_id=merchant_id, sale_id=attempt.sale_id, user_id=attempt.user_id,
                kind=attempt.kind, amount=str(attempt.amount), error=attempt.error,
            )  # fmt: skip


def record_scheduled(merchant_id: str, cause: Cause, attempts: Sequence[Attempt]) -> None:
    """Count and log the attempts of a scheduled run, or of a part of one, as a run of each kind among them."""
    record_attempts(merchant_id, attempts)
    for kind in RUN_MINUTES:
        of_kind = [attempt for attempt in attempts if attempt.kind == kind]
        if of_kind:
            record_run(merchant_id, kind, cause, cause, add_attempts(NOTHING, of_kind))
