"""Poll a merchant's vendor once: claim the call, make it outside of any transaction, record the result."""

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from sandbox.infrastructure.db.all_shards import on_every_shard
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, RETRYABLE, connection
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.users.aggregator.feed_clients import FetchFailedError, VendorClient
from sandbox.users.aggregator.next_poll import after_failure, after_page, has_shrunk
from sandbox.users.aggregator.store import (
    ANY_ROWS_OR_VENDORS,
    DUE_HTTP,
    DUE_OWN,
    MAX_DEAD_LETTERS,
    Claim,
    Outcome,
    claim_poll,
    dead_letter_capacity,
    record_fetch,
)
from sandbox.users.aggregator.vendor_rows import RowsOfPage, UnreadablePageError, read_page

_log = structlog.get_logger()


class Poller:
    """Polls vendors over HTTP, and the sandbox's own feed for merchants without a vendor."""

    def __init__(
        self,
        box: SecretBox,
        own: VendorClient,
        http: VendorClient,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`box` opens the vendors' sealed headers. `clock` returns the host's time."""
        self._box = box
        self._own = own
        self._http = http
        self._clock = clock

    async def due(self, http_limit: int, own_limit: int) -> tuple[list[str], list[str]]:
        """Return the merchants whose poll is due: with a vendor over HTTP, and with the sandbox's own feed."""
        now = self._clock()

        async def read(conn: Connection) -> list[tuple[str, bool]]:
            if not await conn.fetchval(ANY_ROWS_OR_VENDORS):
                return []
            http = await conn.fetch(DUE_HTTP, now, http_limit)
            own = await conn.fetch(DUE_OWN, now, own_limit)
            return [(record["merchant_id"], records is http) for records in (http, own) for record in records]

        found = (await on_every_shard(read)).rows
        http_due, own_due = ([id_ for id_, is_http in found if is_http == wanted] for wanted in (True, False))
        return http_due[:http_limit], own_due[:own_limit]

    async def poll(self, merchant_id: str) -> bool:
        """Make the merchant's next call if it is due and the rate limit allows it. Return whether a call was made."""
        claim = await claim_poll(merchant_id, self._box, self._clock())
        if claim is None:
            return False
        client = self._own if claim.request.url is None else self._http
        try:
            await self._read_page(claim, client)
        except FetchFailedError as failure:
            await self._record_failure(claim, failure)
        except UnreadablePageError as error:
            await self._record_failure(claim, FetchFailedError(str(error), 200))
        except (*CONNECTION_ERRORS, *RETRYABLE):
            raise  # nothing can be recorded now; the lease expires, and the page is requested again
        except Exception as error:
            # A bug in the sandbox. If it were not recorded, it would recur unnoticed each time that the lease expires.
            _log.exception("page_not_read", merchant_id=merchant_id, fetch_id=claim.fetch_id)
            await self._record_failure(claim, FetchFailedError(f"the page could not be processed ({type(error).__name__})"))
        return True

    async def _read_page(self, claim: Claim, client: VendorClient) -> None:
        page = read_page(await client.fetch(claim.request), claim.cursor.page)
        if has_shrunk(claim.cursor, page.total_pages):
            error = f"the vendor had at least {claim.cursor.page} pages and now has {page.total_pages}; the sync starts over"
            await self._record_failure(claim, FetchFailedError(error, 200), restart=True)
            return
        await _require_capacity(claim.merchant_id, page)
        await self._record_page(claim, page, client.in_order)

    async def _record_page(self, claim: Claim, page: RowsOfPage, in_order: bool) -> None:
        ended = self._clock()
        newest = max((row.created_at for row in page.rows), default=None)
        cursor, due = after_page(claim.cursor, newest, page.total_pages, claim.began, ended, in_order=in_order)
        # The sandbox's own ids increase. So the last id read, of a valid or invalid row, shows whether there are new rows.
        ids = [row.vendor_id for row in page.rows] + [row.vendor_id for row in page.bad if row.vendor_id is not None]
        last_id = max(ids, default=None) if in_order else None
        await record_fetch(claim, Outcome(ended, 200, page.rows, page.bad), cursor, due, last_id)

    async def _record_failure(self, claim: Claim, failure: FetchFailedError, *, restart: bool = False) -> None:
        ended = self._clock()
        cursor, due = after_failure(claim.cursor, failure.retry_after, ended, restart=restart)
        await record_fetch(claim, Outcome(ended, failure.status, error=str(failure)), cursor, due, None)


async def _require_capacity(merchant_id: str, page: RowsOfPage) -> None:
    """Raise UnreadablePageError if the merchant cannot have more dead letters. The page is retried later; no row is skipped."""
    if not page.bad:
        return
    async with connection(merchant_id) as conn:
        new, capacity = await dead_letter_capacity(conn, merchant_id, page.bad)
    if new > capacity:
        raise UnreadablePageError(
            f"the page has {new} more rows that cannot be parsed, "
            f"which would exceed the limit of {MAX_DEAD_LETTERS} dead letters"
        )
