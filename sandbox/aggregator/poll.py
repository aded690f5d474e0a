"""Poll a merchant's vendor once: claim the call, make it outside of any transaction, record what came of it."""

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from sandbox.aggregator.clients import FetchFailedError, VendorClient
from sandbox.aggregator.store import (
    DUE_HTTP,
    DUE_OWN,
    LARGEST_DEAD_LETTERS,
    Claim,
    Outcome,
    claim_poll,
    dead_letters_left,
    record_fetch,
)
from sandbox.db.engine import CONNECTION_ERRORS, RETRYABLE, connection
from sandbox.domain.vendor_polling import after_failure, after_page, has_shrunk
from sandbox.domain.vendor_rows import RowsOfPage, UnreadablePageError, read_page
from sandbox.infrastructure.secrets_at_rest import SecretBox

_log = structlog.get_logger()


class Poller:
    """Polls vendors over HTTP, and our own feed for merchants that have none."""

    def __init__(
        self,
        box: SecretBox,
        own: VendorClient,
        http: VendorClient,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take what opens the vendors' headers, the two ways to fetch a page, and the host's clock."""
        self._box = box
        self._own = own
        self._http = http
        self._clock = clock

    async def due(self, http_at_most: int, own_at_most: int) -> tuple[list[str], list[str]]:
        """Merchants whose poll is due: those of a vendor over HTTP, and those of our own feed; at most so many of each."""
        now = self._clock()
        async with connection() as conn:
            http = await conn.fetch(DUE_HTTP, now, http_at_most)
            own = await conn.fetch(DUE_OWN, now, own_at_most)
        return [record["merchant_id"] for record in http], [record["merchant_id"] for record in own]

    async def poll(self, merchant_id: str) -> bool:
        """Make the merchant's next call if it is due and the limit allows it; says whether one was made."""
        claim = await claim_poll(merchant_id, self._box, self._clock())
        if claim is None:
            return False
        client = self._own if claim.ask.url is None else self._http
        try:
            await self._take(claim, client)
        except FetchFailedError as failure:
            await self._failed(claim, failure)
        except UnreadablePageError as error:
            await self._failed(claim, FetchFailedError(str(error), 200))
        except (*CONNECTION_ERRORS, *RETRYABLE):
            raise  # nothing can be recorded just now; the lease lapses, and the page is asked for again
        except Exception as error:
            # A defect of ours. Unrecorded, it would come again with the page, at every lapse of its lease and unseen.
            _log.exception("page_not_taken", merchant_id=merchant_id, fetch_id=claim.fetch_id)
            await self._failed(claim, FetchFailedError(f"the page could not be taken ({type(error).__name__})"))
        return True

    async def _take(self, claim: Claim, client: VendorClient) -> None:
        page = read_page(await client.fetch(claim.ask), claim.cursor.page)
        if has_shrunk(claim.cursor, page.total_pages):
            error = f"there were {claim.cursor.page} pages or more, and now there are {page.total_pages}; reading begins anew"
            await self._failed(claim, FetchFailedError(error, 200), restart=True)
            return
        await _require_room(claim.merchant_id, page)
        await self._succeeded(claim, page, client.in_order)

    async def _succeeded(self, claim: Claim, page: RowsOfPage, in_order: bool) -> None:
        ended = self._clock()
        newest = max((row.created_at for row in page.rows), default=None)
        cursor, due = after_page(claim.cursor, newest, page.total_pages, claim.began, ended, in_order=in_order)
        # Our own ids rise: the last one seen, understood or not, tells whether there is anything new, without a call.
        ids = [row.vendor_id for row in page.rows] + [row.vendor_id for row in page.bad if row.vendor_id is not None]
        last_id = max(ids, default=None) if in_order else None
        await record_fetch(claim, Outcome(ended, 200, page.rows, page.bad), cursor, due, last_id)

    async def _failed(self, claim: Claim, failure: FetchFailedError, *, restart: bool = False) -> None:
        ended = self._clock()
        cursor, due = after_failure(claim.cursor, failure.retry_after, ended, restart=restart)
        await record_fetch(claim, Outcome(ended, failure.status, error=str(failure)), cursor, due, None)


async def _require_room(merchant_id: str, page: RowsOfPage) -> None:
    """Raise UnreadablePageError if the page's bad rows are too many to keep: then reading waits, and none is skipped."""
    if not page.bad:
        return
    async with connection() as conn:
        new, left = await dead_letters_left(conn, merchant_id, page.bad)
    if new > left:
        raise UnreadablePageError(
            f"{new} more of its rows cannot be parsed, and only {LARGEST_DEAD_LETTERS} such rows are kept"
        )
