"""Process bulk credits, one chunk of rows at a time."""

from collections.abc import Callable, Sequence
from typing import Final

from sandbox.infrastructure.live_feed import Note
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.bulk_credit.process import credit_chunk, read_user_ids_to_fail
from worker.merchant_tasks import MerchantTasks

MAX_CONCURRENT_MERCHANTS: Final = 2
"""Maximum number of merchants credited at the same time. Each needs a connection most of the time."""


def create_bulk_credit_tasks(work: UnitOfWorkRunner, on_progress: Callable[[str, Sequence[Note]], None]) -> MerchantTasks:
    """Return the tasks that process the bulk credits of woken merchants. `on_progress`: see `credit_chunk`."""
    return MerchantTasks(
        "credit",
        MAX_CONCURRENT_MERCHANTS,
        lambda merchant_id: credit_chunk(work, merchant_id, read_user_ids_to_fail(), on_progress),
    )
