"""The live feed: publish changes over Redis to the processes that are listening.

It is a convenience, not a record. Without Redis it publishes nothing. The record of all changes is in PostgreSQL.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.redis_messages import Command, RedisSender

CHANNEL: Final = "psp:live:"
_MAX_QUEUE_LENGTH: Final = 1000
_MAX_BATCH_SIZE: Final = 64


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


class LiveFeed:
    """Publishes in the background, in order of arrival. Never fails and never blocks the caller.

    The queue is bounded and drops the oldest messages.
    """

    def __init__(self, sender: RedisSender) -> None:
        self._sender = sender
        self._queue: deque[tuple[str, UnitOfWork | list[Note]]] = deque(maxlen=_MAX_QUEUE_LENGTH)
        self._encode = msgspec.msgpack.Encoder().encode
        sender.add_source(self._take)

    async def committed(self, unit: UnitOfWork) -> None:
        """Publish a committed unit's changes."""
        if unit.events:
            self._add(unit.merchant_id, unit)

    def notes(self, merchant_id: str, notes: Sequence[Note]) -> None:
        """Publish notes about anything other than payout changes, such as recorded webhook attempts."""
        self._add(merchant_id, list(notes))

    def _add(self, merchant_id: str, content: UnitOfWork | list[Note]) -> None:
        self._queue.append((merchant_id, content))
        self._sender.send_soon()

    def _take(self) -> list[Command]:
        taken = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH_SIZE))]
        if self._queue:
            self._sender.send_soon()
        return [("PUBLISH", CHANNEL + merchant_id, self._encode(_message(content))) for merchant_id, content in taken]


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
