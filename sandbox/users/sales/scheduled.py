"""Pay due sales by schedule, for merchants whose clock is running. A clock that is advanced pays them itself.

A payment or a failed attempt changes when the sale is due, in the same transaction. So a repeated or concurrent run finds no
sale twice, and needs neither a checkpoint nor an idempotency key.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import structlog

from sandbox.domain.errors import Problem
from sandbox.domain.ids import MIN_ID
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.distributed.cluster import Shard
from sandbox.infrastructure.db.distributed.placement import every_shard
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.metrics import SALES_RUNS_ABORTED
from sandbox.unit_of_work.claim import ClaimRequest
from sandbox.unit_of_work.runner import NothingToDoError, UnitOfWorkRunner
from sandbox.unit_of_work.transaction import with_retries
from sandbox.users.sales.payments import CHUNK, WEIGHT, Attempt, pay_due
from sandbox.users.sales.reporting import record_scheduled

_MERCHANTS_PER_PAGE: Final = 500
_log = structlog.get_logger()

_SQL: Final = read_statements(__name__)


class ScheduledSales:
    """Pays the sales of all merchants when they are due."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work
        self._is_paying = False

    async def pay_all(self) -> None:
        """Pay the sales that are due now, of every merchant whose clock is running. Merchants take turns.

        Does nothing while an earlier call still pays. A merchant whose payments fail is logged; the others are paid. Raises
        CONNECTION_ERRORS if merchants cannot be listed, after those of all nodes that respond; the next call pays the rest.
        """
        if self._is_paying:
            return
        self._is_paying = True
        try:
            failed: Exception | None = None
            for shard in await every_shard():
                try:
                    while await self._pay_shard(shard):
                        pass
                except CONNECTION_ERRORS as error:
                    failed = error
            if failed is not None:
                raise failed
        finally:
            self._is_paying = False

    async def pay(self, merchant_id: str) -> bool:
        """Pay up to CHUNK due sales of the merchant, in one transaction. Return whether more are due.

        Raises NOT_FOUND if the merchant was deleted, UNAVAILABLE after repeated conflicts or without a connection.
        """

        async def decide(conn: Connection, unit: UnitOfWork) -> Sequence[Attempt]:
            # The clock may have been frozen since the merchants were listed. Then only an advance pays.
            attempts = [] if unit.clock.frozen_at is not None else await pay_due(conn, unit)
            if not attempts:
                raise NothingToDoError(attempts)
            return attempts

        async def attempt() -> Sequence[Attempt]:
            return await self._work.run_transaction(ClaimRequest(merchant_id, WEIGHT), decide)

        attempts = await self._work.run_to_completion(with_retries(attempt, retry_safe=True))
        record_scheduled(merchant_id, "cron", attempts)
        return len(attempts) == CHUNK

    async def _pay_shard(self, shard: Shard) -> bool:
        """Pay up to CHUNK due sales of each merchant. Return whether a merchant has more."""
        merchant_id, more = MIN_ID, False
        while True:
            async with connection(shard) as conn:
                records = await conn.fetch(_SQL["merchants"], datetime.now(UTC), merchant_id, _MERCHANTS_PER_PAGE)
            for record in records:
                merchant_id = record["merchant_id"]
                more |= await self._try(merchant_id)
            if len(records) < _MERCHANTS_PER_PAGE:
                return more

    async def _try(self, merchant_id: str) -> bool:
        try:
            return await self.pay(merchant_id)
        except Problem as problem:
            # NOT_FOUND: the merchant was deleted during the run, so there is nothing left to pay.
            if problem.code != "NOT_FOUND":
                SALES_RUNS_ABORTED.labels("unavailable").inc()
                _log.warning("sales_run_failed", merchant_id=merchant_id, error=problem.detail)
        except Exception:
            SALES_RUNS_ABORTED.labels("error").inc()
            _log.exception("sales_run_failed", merchant_id=merchant_id)
        return False
