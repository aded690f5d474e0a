"""Listen to the live feed over one connection per process, which all waiting and streaming requests share."""

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
from sandbox.infrastructure.live_feed import CHANNEL, Message
from sandbox.infrastructure.outages import Outage
from sandbox.infrastructure.redis_client import connect
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks

_CONFIRM_SECONDS: Final = 0.5
"""How long a connected Redis can take to confirm a subscription, in seconds."""
_NOBODY: Final = CHANNEL + "nobody"
_log = structlog.get_logger()

Callback = Callable[[Message | None], None]
"""Receives each message, or None if messages may have been missed or none will arrive for a while. Must not block."""


@dataclass(slots=True)
class _Channel:
    """The callbacks of a merchant's channel, and whether Redis has confirmed the subscription."""

    callbacks: Counter[Callback] = field(default_factory=Counter)
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)


class LiveSubscriber:
    """Subscribes to merchants' channels while they have callbacks."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._channels: dict[str, _Channel] = {}
        self.closing = False
        """Whether the process is about to end. Listening requests should end too."""
        self._pubsub: PubSub | None = None
        self._send_lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._decode = msgspec.msgpack.Decoder(Message).decode

    def start(self) -> None:
        """Start listening."""
        self._task = asyncio.create_task(self._listen_forever())

    def begin_closing(self) -> None:
        """Set `closing` and call every callback with None, so that listening requests end."""
        self.closing = True
        for channel in self._channels.values():
            _dispatch(channel, None)

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            await end_tasks(self._task)

    def is_live(self, merchant_id: str) -> bool:
        """Whether Redis has confirmed the merchant's subscription, so that no message is missed."""
        channel = self._channels.get(CHANNEL + merchant_id)
        return channel is not None and channel.confirmed.is_set()

    @asynccontextmanager
    async def subscribe(self, merchant_id: str, callback: Callback, max_wait: float = 0.0) -> AsyncIterator[bool]:
        """Pass the merchant's messages to `callback` during the block. A callback registered twice gets each message once.

        Waits for Redis to confirm the subscription, up to `max_wait` seconds if Redis is not connected. Yields whether Redis
        has confirmed it. If not, no messages arrive until the callback is called with None.
        """
        name = CHANNEL + merchant_id
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel()
        channel.callbacks[callback] += 1
        try:
            if channel.callbacks.total() == 1:
                # Later callbacks rely on this subscription, so send it even if this request is cancelled now.
                await asyncio.shield(self._send("subscribe", name))
            seconds = max_wait if self._pubsub is None else max(max_wait, _CONFIRM_SECONDS)
            if not channel.confirmed.is_set() and seconds > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(channel.confirmed.wait(), seconds)
            yield channel.confirmed.is_set()
        finally:
            channel.callbacks[callback] -= 1
            if not channel.callbacks[callback]:
                del channel.callbacks[callback]
            if not channel.callbacks and self._channels.get(name) is channel:
                del self._channels[name]
                await self._send("unsubscribe", name)

    async def _send(self, command: str, name: str) -> None:
        async with self._send_lock:
            # Subscribes and unsubscribes can overtake each other. Skip a command that no longer matches the channels in use, so
            # that the last command sent is correct.
            if self._pubsub is not None and (command == "subscribe") == (name in self._channels):
                with contextlib.suppress(*REDIS_ERRORS):  # _listen_forever notices the error too, and subscribes again
                    await getattr(self._pubsub, command)(name)

    async def _listen_forever(self) -> None:
        outage = Outage("redis_unavailable", note="live updates are not received")
        redis = connect(self._redis_url, read_timeout=None)
        try:
            async for attempt in backoff(0.1, 2.0, REDIS_ERRORS, outage.log):
                with attempt:
                    await self._listen(redis, attempt.retry_state)
        finally:
            with contextlib.suppress(*REDIS_ERRORS):
                await redis.aclose()

    async def _listen(self, redis: Redis, state: RetryCallState) -> None:
        pubsub = redis.pubsub()
        try:
            # Also subscribe to a channel that nobody publishes to: it keeps the connection in the subscribed state.
            known = tuple(self._channels)
            await pubsub.subscribe(_NOBODY, *known)
            self._pubsub = pubsub
            new = self._channels.keys() - {*known}  # channels added during the await above
            if new:
                await pubsub.subscribe(*new)
            state.attempt_number = 1  # connected: the next error starts a new outage
            while True:
                message = await pubsub.get_message(timeout=None)
                if message is not None:
                    self._receive(message["type"], message["channel"].decode(), message["data"])
        finally:
            self._pubsub = None
            for channel in self._channels.values():
                channel.confirmed.clear()
                _dispatch(channel, None)
            with contextlib.suppress(*REDIS_ERRORS):
                await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves this one untyped

    def _receive(self, kind: str, name: str, data: bytes | int) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        if kind == "subscribe":
            channel.confirmed.set()
            _dispatch(channel, None)  # messages before the subscription were missed
        elif kind == "message" and isinstance(data, bytes):
            _dispatch(channel, self._decode(data))


def _dispatch(channel: _Channel, message: Message | None) -> None:
    for callback in tuple(channel.callbacks):
        callback(message)
