"""A journal in this process, for tests of the journal and of what writes it."""

from collections.abc import Callable, Sequence

from sandbox.http.journal.journal import Journal
from sandbox.infrastructure.live_feed import Note
from sandbox.infrastructure.redis_client import connect


class OwnJournal(Journal):
    """A journal with a Redis client, which `close` closes too."""

    def __init__(self, redis_url: str, on_recorded: Callable[[str, Sequence[Note]], None] = lambda _, notes: None) -> None:
        self._client = connect(redis_url)
        super().__init__(self._client, on_recorded)

    async def close(self) -> None:
        """Stop writing, and close the client."""
        await super().close()
        await self._client.aclose()
