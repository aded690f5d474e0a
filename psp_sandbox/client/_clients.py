"""The two clients. They differ in how they wait: Client blocks, AsyncClient awaits."""

from types import TracebackType
from typing import TYPE_CHECKING

from psp_sandbox.client._callers import AsyncCaller, AsyncPool, Caller, Pool
from psp_sandbox.client._generated.nouns import AsyncNouns, Nouns
from psp_sandbox.client._http import Address
from psp_sandbox.client._streams import AsyncEventStream, EventStream, stream_call

if TYPE_CHECKING:
    from psp_sandbox.client.models import Drained


class Client(Nouns):
    """A client that blocks. Threads may share it.

    `url`, `api_key` and `admin_key` come from PSP_URL, PSP_API_KEY and PSP_ADMIN_KEY if they are not given; on loopback the
    defaults are those of `psp up`. Each attempt of a call waits up to `timeout` seconds for data. A call is retried up to
    `retries` times, within `retry_seconds`. The first call opens a connection; later ones use it again.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        admin_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        retry_seconds: float = 60.0,
        user_agent: str | None = None,
    ) -> None:
        address = Address.of(url, api_key, admin_key, timeout, retries, retry_seconds, user_agent)
        super().__init__(Caller(address, Pool(address)))

    @property
    def url(self) -> str:
        """The URL of the sandbox."""
        return self._caller.address.url

    def with_key(self, api_key: str) -> "Client":
        """Return a client for another merchant, such as one from `merchants.create`. It shares the connections."""
        found = object.__new__(Client)
        Nouns.__init__(found, self._caller.with_key(api_key))
        return found

    def drain(self, *, idempotency_key: str | None = None) -> "Drained":
        """Run all work that is due now, and wait for work in progress. `ran` lists what ran.

        Much work takes several calls; the result is that of all. `drained` is false, and `stopped_because` says why, if work
        remains that cannot be done, for example because a webhook endpoint does not respond.
        """
        from psp_sandbox.client._extended import drain

        return self._caller.run(drain(idempotency_key))

    def stream(self, *, types: str | None = None, limit: int | None = None, timeout: float | None = None) -> EventStream:
        """Return the merchant's changes as they happen. Iterate over it, in a `with` block if you may stop early.

        It is listening when this method returns: nothing that happens afterwards is missed. `types` selects event types, such
        as "payout.*,request"; the stream ends after `limit` events or `timeout` seconds, or else when you close it.
        """
        return EventStream(self._caller, stream_call(types, limit, timeout))

    def close(self) -> None:
        """Close the connections."""
        self._caller.pool.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncClient(AsyncNouns):
    """A client for asyncio, to be used on one event loop. Its arguments are those of Client."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        admin_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        retry_seconds: float = 60.0,
        user_agent: str | None = None,
    ) -> None:
        address = Address.of(url, api_key, admin_key, timeout, retries, retry_seconds, user_agent)
        super().__init__(AsyncCaller(address, AsyncPool(address)))

    @property
    def url(self) -> str:
        """The URL of the sandbox."""
        return self._caller.address.url

    def with_key(self, api_key: str) -> "AsyncClient":
        """Return a client for another merchant, such as one from `merchants.create`. It shares the connections."""
        found = object.__new__(AsyncClient)
        AsyncNouns.__init__(found, self._caller.with_key(api_key))
        return found

    async def drain(self, *, idempotency_key: str | None = None) -> "Drained":
        """Run all work that is due now, and wait for work in progress. `ran` lists what ran.

        Much work takes several calls; the result is that of all. `drained` is false, and `stopped_because` says why, if work
        remains that cannot be done, for example because a webhook endpoint does not respond.
        """
        from psp_sandbox.client._extended import drain

        return await self._caller.run(drain(idempotency_key))

    def stream(self, *, types: str | None = None, limit: int | None = None, timeout: float | None = None) -> AsyncEventStream:
        """Return the merchant's changes as they happen. Use it as `async with client.stream() as events: async for …`.

        In the `async with` block it is listening: nothing that happens from then on is missed. `types` selects event types,
        such as "payout.*,request"; the stream ends after `limit` events or `timeout` seconds, or else when the block ends.
        """
        return AsyncEventStream(self._caller, stream_call(types, limit, timeout))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._caller.pool.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
