"""The live feed: publish changes over Redis to the processes that are listening.

It is a convenience, not a record. Without Redis it publishes nothing. The record of all changes is in PostgreSQL.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio import Redis

from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks

CHANNEL: Final = "psp:live:"
_MAX_QUEUE_LENGTH: Final = 1000
_MAX_BATCH_SIZE: Final = 64
_PAUSE_SECONDS: Final = 0.5
_log = structlog.get_logger()


class Transition(msgspec.Struct, array_like=True):
    """A payout's status change."""

    payout_id: str
    source: str | None
    to: str
    event_id: str
    type: str
    at: str
    cause: str


class Note(msgspec.Struct, array_like=True):
    """Anything else: its kind, which is the name of the stream's event, and its fields."""

    kind: str
    data: dict[str, Any]


class Message(msgspec.Struct, array_like=True):
    """The changes of one commit, or notes published together."""

    transitions: list[Transition]
    notes: list[Note]


def connect(redis_url: str, *, read_timeout: float | None = 2.0) -> Redis:
    """Return a Redis client with short timeouts: live messages are not worth waiting for.

    `read_timeout` is in seconds. It must be None for a subscription.
    """
    client: Redis = Redis.from_url(redis_url, socket_timeout=read_timeout, socket_connect_timeout=2)
    return client


class LiveFeed:
    """Publishes in the background, in order of arrival. Never fails and never blocks the caller.

    The queue is bounded and drops the oldest messages.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._queue: deque[tuple[str, UnitOfWork | list[Note]]] = deque(maxlen=_MAX_QUEUE_LENGTH)
        self._has_messages = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._encode = msgspec.msgpack.Encoder().encode

    def start(self) -> None:
        """Start publishing."""
        self._task = asyncio.create_task(self._publish_all())

    async def close(self) -> None:
        """Stop publishing and drop the queue."""
        if self._task is not None:
            await end_tasks(self._task)

    async def committed(self, unit: UnitOfWork) -> None:
        """Publish a committed unit's changes."""
        if unit.events:
            self._add(unit.merchant_id, unit)

    def notes(self, merchant_id: str, notes: Sequence[Note]) -> None:
        """Publish notes about anything other than payout changes, such as recorded webhook attempts."""
        self._add(merchant_id, list(notes))

    def _add(self, merchant_id: str, content: UnitOfWork | list[Note]) -> None:
        self._queue.append((merchant_id, content))
        self._has_messages.set()

    async def _publish_all(self) -> None:
        redis = connect(self._redis_url)
        is_down = False
        try:
            while True:
                await self._has_messages.wait()
                self._has_messages.clear()
                while self._queue:
                    batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH_SIZE))]
                    try:
                        async with redis.pipeline(transaction=False) as pipe:
                            for merchant_id, content in batch:
                                pipe.publish(CHANNEL + merchant_id, self._encode(_message(content)))
                            await pipe.execute()
                        is_down = False
                    except REDIS_ERRORS as error:
                        if not is_down:
                            _log.warning("redis_unavailable", error=repr(error)[:300], note="live updates are not published")
                        is_down = True
                        self._queue.clear()
                        await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            with contextlib.suppress(*REDIS_ERRORS):
                await redis.aclose()


def _message(content: UnitOfWork | list[Note]) -> Message:
    if isinstance(content, list):
        return Message([], content)
    at = content.now_text
    transitions, notes = [], []
    for event in content.events:
        if event.payout_id is not None and event.to_status is not None:
            transitions.append(
                Transition(event.payout_id, event.from_status, event.to_status, event.id, event.type, at, event.cause)
            )
        else:
            notes.append(Note(event.type, {"event_id": event.id, "at": at}))
    return Message(transitions, notes)
