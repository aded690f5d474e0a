"""Process bulk credits, one chunk of rows at a time."""

from typing import Final

from sandbox.bulk_credit.process import credit_chunk, fail_listed_users
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from worker.merchant_tasks import MerchantTasks

AT_ONCE: Final = 2
"""Merchants credited at the same time; each needs a connection most of the time."""


def crediting_tasks(work: UnitOfWorkRunner) -> MerchantTasks:
    """Return the tasks that process the bulk credits of the merchants that are woken."""
    return MerchantTasks("credit", AT_ONCE, lambda merchant_id: credit_chunk(work, merchant_id, fail_listed_users()))
