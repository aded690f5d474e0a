"""The live feed: what happened, told to whoever listens at this moment, over Redis.

It is a convenience and no record: with Redis away it says nothing, and whoever needs to know reads PostgreSQL.
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
_WAITING: Final = 1000
_AT_ONCE: Final = 64
_PAUSE: Final = 0.5
_log = structlog.get_logger()


class Transition(msgspec.Struct, array_like=True):
    """A payout's change."""

    payout_id: str
    source: str | None
    to: str
    event_id: str
    type: str
    at: str
    cause: str


class Note(msgspec.Struct, array_like=True):
    """Anything else: its kind, as an event of the stream is called, and its members."""

    kind: str
    data: dict[str, Any]


class Message(msgspec.Struct, array_like=True):
    """What one commit of a merchant's did, or what else happened at once."""

    transitions: list[Transition]
    notes: list[Note]


def connect(redis_url: str, *, patient: bool = False) -> Redis:
    """A client that gives up soon: nothing that is told live is worth waiting for. A `patient` one waits for answers."""
    client: Redis = Redis.from_url(redis_url, socket_timeout=None if patient else 2, socket_connect_timeout=2)
    return client


class LiveFeed:
    """Publishes in the background, in the order of arrival; never fails and never blocks the caller.

    What finds no room is dropped.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._waiting: deque[tuple[str, UnitOfWork | list[Note]]] = deque(maxlen=_WAITING)
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._encode = msgspec.msgpack.Encoder().encode

    def start(self) -> None:
        """Begin to publish."""
        self._task = asyncio.create_task(self._publish_all())

    async def close(self) -> None:
        """Stop; what was not published is not missed."""
        if self._task is not None:
            await end_tasks(self._task)

    async def committed(self, unit: UnitOfWork) -> None:
        """Publish a committed unit's changes."""
        if unit.events:
            self._add(unit.merchant_id, unit)

    def notes(self, merchant_id: str, notes: Sequence[Note]) -> None:
        """Publish what is no change of a payout, such as recorded webhook attempts."""
        self._add(merchant_id, list(notes))

    def _add(self, merchant_id: str, what: UnitOfWork | list[Note]) -> None:
        self._waiting.append((merchant_id, what))
        self._some.set()

    async def _publish_all(self) -> None:
        redis = connect(self._redis_url)
        down = False
        try:
            while True:
                await self._some.wait()
                self._some.clear()
                while self._waiting:
                    batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]
                    try:
                        async with redis.pipeline(transaction=False) as pipe:
                            for merchant_id, what in batch:
                                pipe.publish(CHANNEL + merchant_id, self._encode(_message(what)))
                            await pipe.execute()
                        down = False
                    except REDIS_ERRORS as error:
                        if not down:
                            _log.warning("redis_away", error=repr(error)[:300], note="nothing is told live")
                        down = True
                        self._waiting.clear()
                        await asyncio.sleep(_PAUSE)
        finally:
            with contextlib.suppress(*REDIS_ERRORS):
                await redis.aclose()


def _message(what: UnitOfWork | list[Note]) -> Message:
    if isinstance(what, list):
        return Message([], what)
    at = what.now_text
    transitions, notes = [], []
    for event in what.events:
        if event.payout_id is not None and event.to_status is not None:
            transitions.append(
                Transition(event.payout_id, event.from_status, event.to_status, event.id, event.type, at, event.cause)
            )
        else:
            notes.append(Note(event.type, {"event_id": event.id, "at": at}))
    return Message(transitions, notes)
