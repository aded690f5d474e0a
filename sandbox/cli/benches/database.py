"""Direct access to the measured sandbox's PostgreSQL, as the database's owner. Each call opens its own connection."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from sandbox.cli.benches.stack import BenchError, Merchant

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]

_DRAIN_SECONDS = 300.0
_SAMPLE = """
SELECT e.body AS event_body, convert_from(k.body, 'UTF8') AS response_body, p.request_id
FROM payouts p
JOIN events e ON e.merchant_id = p.merchant_id AND e.payout_id = p.id AND e.change = 0
JOIN idempotency_keys k ON k.merchant_id = p.merchant_id AND k.key = 'bench-payout-key' || p.merchant_reference
WHERE p.merchant_id = $1 ORDER BY p.id LIMIT 1
"""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sample:
    """The texts that a create over HTTP stored."""

    event_body: str
    response_body: str
    request_id: str


class Database:
    """The database of the measured sandbox."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.version: str = self.with_connection(lambda conn: conn.fetchval("SHOW server_version"))
        number = self.with_connection(lambda conn: conn.fetchval("SELECT current_setting('server_version_num')::int"))
        self.has_uuidv7: bool = number >= 180_000

    def execute(self, statement: str) -> None:
        """Run a statement. Raises BenchError."""
        self.with_connection(lambda conn: conn.execute(statement))

    def analyze(self) -> None:
        """Update the planner's statistics: plans made on empty tables are slow."""
        self.execute("ANALYZE")  # all tables, because they differ between revisions

    def sample(self, merchant: Merchant) -> Sample:
        """Return the stored texts of a payout that was created over HTTP. Raises BenchError if there is none."""
        record = self.with_connection(lambda conn: conn.fetchrow(_SAMPLE, merchant.merchant_id))
        if record is None:
            raise BenchError("The creates over HTTP stored no payout.")
        return Sample(record["event_body"], record["response_body"], record["request_id"])

    def count_payouts(self, merchants: Sequence[Merchant]) -> int:
        """Return how many payouts the merchants have."""
        statement = "SELECT count(*) FROM payouts WHERE merchant_id = ANY($1::uuid[])"
        ids = [merchant.merchant_id for merchant in merchants]
        return int(self.with_connection(lambda conn: conn.fetchval(statement, ids)))

    def count_transactions(self) -> int:
        """Return how many transactions have ended in the database."""
        statement = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        return int(self.with_connection(lambda conn: conn.fetchval(statement)))

    def drain(self, merchants: Sequence[Merchant]) -> int:
        """Wait until the worker has settled all of the merchants' payouts. Return how many were unsettled at first.

        Unfinished work would slow down the next measurement. Raises BenchError after five minutes.
        """
        statement = "SELECT count(*) FROM payouts WHERE merchant_id = ANY($1::uuid[]) AND due_at IS NOT NULL"
        return self._wait_for_zero(statement, [merchant.merchant_id for merchant in merchants], "payouts to settle")

    def wait_for_attempts(self, merchant: Merchant, every: float = 0.1) -> None:
        """Wait until the worker has recorded all of the merchant's attempts. Raises BenchError after five minutes.

        Looks again after each `every` seconds.
        """
        statement = "SELECT count(*) FROM webhook_deliveries WHERE merchant_id = $1 AND next_attempt_at IS NOT NULL"
        self._wait_for_zero(statement, merchant.merchant_id, "deliveries to record", every)

    def _wait_for_zero(self, statement: str, argument: object, what: str, every: float = 0.1) -> int:
        """Wait until a count is 0. Return the first count. Raises BenchError after five minutes."""

        async def work(conn: "Connection") -> int:
            # Reuse one connection: connecting costs PostgreSQL more than the query does.
            first = remaining = int(await conn.fetchval(statement, argument))
            loop = asyncio.get_running_loop()
            deadline = loop.time() + _DRAIN_SECONDS
            while remaining:
                if loop.time() > deadline:
                    raise BenchError(f"After {_DRAIN_SECONDS:.0f} seconds, the worker still has {remaining} {what}.")
                await asyncio.sleep(every)
                remaining = int(await conn.fetchval(statement, argument))
            return first

        return self.with_connection(work)

    def with_connection(self, work: "Callable[[Connection], Awaitable[T]]") -> T:
        """Run `work` on a new connection. Raises BenchError if PostgreSQL reports an error."""

        async def run() -> T:
            conn = await asyncpg.connect(self._url, timeout=10)
            try:
                return await work(conn)
            finally:
                await conn.close()

        try:
            return asyncio.run(run())
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise BenchError(f"PostgreSQL: {error}") from error
