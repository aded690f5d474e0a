"""Process bulk credits, one chunk of rows at a time."""

from typing import Final

from sandbox.bulk_credit.process import credit_chunk, read_user_ids_to_fail
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from worker.merchant_tasks import MerchantTasks

MAX_CONCURRENT_MERCHANTS: Final = 2
"""Maximum number of merchants credited at the same time. Each needs a connection most of the time."""


def create_bulk_credit_tasks(work: UnitOfWorkRunner) -> MerchantTasks:
    """Return the tasks that process the bulk credits of woken merchants."""
    return MerchantTasks(
        "credit", MAX_CONCURRENT_MERCHANTS, lambda merchant_id: credit_chunk(work, merchant_id, read_user_ids_to_fail())
    )
