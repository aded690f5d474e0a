"""Poll a merchant's vendor once: claim the call, make it outside of any transaction, record what came of it."""

from collections.abc import Callable
from datetime import UTC, datetime

from sandbox.aggregator.clients import FetchFailedError, VendorClient
from sandbox.aggregator.polling import after_failure, after_page
from sandbox.aggregator.rows import RowsOfPage, UnreadablePageError, read_page
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
from sandbox.db.engine import connection
from sandbox.secrets_at_rest import SecretBox


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

    async def due(self, at_most: int) -> list[str]:
        """Merchants whose poll is due, at most so many of either kind."""
        now = self._clock()
        async with connection() as conn:
            records = [*await conn.fetch(DUE_HTTP, now, at_most), *await conn.fetch(DUE_OWN, now, at_most)]
        return [record["merchant_id"] for record in records]

    async def poll(self, merchant_id: str) -> bool:
        """Make the merchant's next call if it is due and the limit allows it; says whether one was made."""
        claim = await claim_poll(merchant_id, self._box, self._clock())
        if claim is None:
            return False
        client = self._own if claim.ask.url is None else self._http
        try:
            page = read_page(await client.fetch(claim.ask), claim.cursor.page)
            await _require_room(merchant_id, page)
        except UnreadablePageError as error:
            await self._failed(claim, FetchFailedError(str(error), 200))
        except FetchFailedError as failure:
            await self._failed(claim, failure)
        else:
            await self._succeeded(claim, page, client.in_order)
        return True

    async def _succeeded(self, claim: Claim, page: RowsOfPage, in_order: bool) -> None:
        ended = self._clock()
        newest = max((row.created_at for row in page.rows), default=None)
        cursor, due = after_page(claim.cursor, newest, page.total_pages, claim.began, ended, in_order=in_order)
        # Our own ids rise: the last one taken tells whether there is anything new, without a call.
        last_id = max((row.vendor_id for row in page.rows), default=None) if in_order else None
        await record_fetch(claim, Outcome(ended, 200, page.rows, page.bad), cursor, due, last_id)

    async def _failed(self, claim: Claim, failure: FetchFailedError) -> None:
        ended = self._clock()
        cursor, due = after_failure(claim.cursor, failure.retry_after, ended)
        await record_fetch(claim, Outcome(ended, failure.status, error=str(failure)), cursor, due, None)


async def _require_room(merchant_id: str, page: RowsOfPage) -> None:
    """Raise UnreadablePageError if the page's bad rows are too many to keep: then reading waits, and none is skipped."""
    if not page.bad:
        return
    async with connection() as conn:
        left = await dead_letters_left(merchant_id, conn)
    if len(page.bad) > left:
        raise UnreadablePageError(
            f"{len(page.bad)} of its rows cannot be understood, and only {LARGEST_DEAD_LETTERS} such rows are kept"
        )
