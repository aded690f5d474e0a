"""Listens to the live feed: one connection a process, shared by all who wait or watch in it."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from tenacity import RetryCallState

from sandbox.infrastructure.backoff import backoff
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks
from sandbox.live.feed import CHANNEL, Message, connect

_CONFIRMED_WITHIN: Final = 0.5
"""Seconds in which a Redis that is there confirms a subscription, or counts as away for who has no more patience."""
_NOBODY: Final = CHANNEL + "nobody"
_log = structlog.get_logger()

Hear = Callable[[Message | None], None]
"""Told of each message; of None when some may have been missed, or nothing will come for a while. May not block."""


@dataclass(slots=True)
class _Channel:
    """Who hears a merchant's channel, and whether Redis has confirmed that it is listened to."""

    heard_by: Counter[Hear] = field(default_factory=Counter)
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)


class LiveListener:
    """Subscribes to merchants' channels for as long as somebody listens to them."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._channels: dict[str, _Channel] = {}
        self.closing = False
        """Whether the process is about to end: who listens should come to an end as well."""
        self._pubsub: PubSub | None = None
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._decode = msgspec.msgpack.Decoder(Message).decode

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._listen_forever())

    def leave(self) -> None:
        """Tell all who listen to come to an end."""
        self.closing = True
        for channel in self._channels.values():
            _tell(channel, None)

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            await end_tasks(self._task)

    def is_live(self, merchant_id: str) -> bool:
        """Whether all that the merchant's channel carries now is heard."""
        channel = self._channels.get(CHANNEL + merchant_id)
        return channel is not None and channel.confirmed.is_set()

    @asynccontextmanager
    async def hearing(self, merchant_id: str, hear: Hear, patience: float = 0.0) -> AsyncIterator[bool]:
        """Tell `hear` of all that the merchant's channel carries inside the block; given the same `hear` twice, once.

        A Redis that is away or slow is waited for, `patience` seconds at most. False if it has confirmed nothing by then:
        nothing is heard until `hear` is told of None.
        """
        name = CHANNEL + merchant_id
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel()
        channel.heard_by[hear] += 1
        try:
            if channel.heard_by.total() == 1:
                # Others count on it, so it is sent even if this one leaves at this moment.
                await asyncio.shield(self._send("subscribe", name))
            seconds = patience if self._pubsub is None else max(patience, _CONFIRMED_WITHIN)
            if not channel.confirmed.is_set() and seconds > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(channel.confirmed.wait(), seconds)
            yield channel.confirmed.is_set()
        finally:
            channel.heard_by[hear] -= 1
            if not channel.heard_by[hear]:
                del channel.heard_by[hear]
            if not channel.heard_by and self._channels.get(name) is channel:
                del self._channels[name]
                await self._send("unsubscribe", name)

    async def _send(self, verb: str, name: str) -> None:
        async with self._turn:
            # Who comes may take the turn of who leaves: what is sent last is what is wanted now.
            if self._pubsub is not None and (verb == "subscribe") == (name in self._channels):
                with contextlib.suppress(*REDIS_ERRORS):  # the loop below notices, and subscribes again
                    await getattr(self._pubsub, verb)(name)

    async def _listen_forever(self) -> None:
        def say(error: BaseException) -> None:
            _log.warning("redis_away", error=repr(error)[:300], note="nothing is heard live")

        redis = connect(self._redis_url, patient=True)
        try:
            async for attempt in backoff(0.1, 2.0, REDIS_ERRORS, say):
                with attempt:
                    await self._listen(redis, attempt.retry_state)
        finally:
            with contextlib.suppress(*REDIS_ERRORS):
                await redis.aclose()

    async def _listen(self, redis: Redis, state: RetryCallState) -> None:
        pubsub = redis.pubsub()
        try:
            # A channel of nobody's keeps the connection subscribed while no other is.
            known = tuple(self._channels)
            await pubsub.subscribe(_NOBODY, *known)
            self._pubsub = pubsub
            new = self._channels.keys() - {*known}  # since the line before the last
            if new:
                await pubsub.subscribe(*new)
            state.attempt_number = 1  # Redis is there: the next error begins an outage
            while True:
                message = await pubsub.get_message(timeout=None)
                if message is not None:
                    self._hear(message["type"], message["channel"].decode(), message["data"])
        finally:
            self._pubsub = None
            for channel in self._channels.values():
                channel.confirmed.clear()
                _tell(channel, None)
            with contextlib.suppress(*REDIS_ERRORS):
                await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves this one untyped

    def _hear(self, kind: str, name: str, data: bytes | int) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        if kind == "subscribe":
            channel.confirmed.set()
            _tell(channel, None)  # what came before the subscription was not heard
        elif kind == "message" and isinstance(data, bytes):
            _tell(channel, self._decode(data))


def _tell(channel: _Channel, message: Message | None) -> None:
    for hear in tuple(channel.heard_by):
        hear(message)
