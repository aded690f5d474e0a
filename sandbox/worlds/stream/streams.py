"""Stream a merchant's live feed as server-sent events."""

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.domain.errors import Problem, unavailable
from sandbox.http.middleware import KEY_CHECK_SECONDS
from sandbox.infrastructure.live_feed import Message, Transition
from sandbox.infrastructure.live_subscriber import LiveSubscriber
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send
    from redis.asyncio import Redis

MEDIA_TYPE: Final = "text/event-stream"
MAX_STREAMS: Final = 32
"""Maximum streams of one merchant at a time, in all processes together."""
MAX_QUEUED_EVENTS: Final = 1000
"""Maximum number of events queued for a slow client. If there is one more, the client is disconnected."""
HEARTBEAT: Final = 15.0
"""Seconds without an event after which a comment keeps the stream alive. Also the interval at which its slot is renewed."""
_SLOT_TTL_MS: Final = 45_000
"""Milliseconds after which a slot expires unless it is renewed. Longer than two heartbeats."""
_GRACE_SECONDS: Final = 1.0
"""How long a stream whose key was revoked can take to end normally. After that, the client is disconnected."""
_SUBSCRIBE_TIMEOUT: Final = 5.0
"""How long a new stream waits for Redis. After that, it starts without a subscription."""
_MISSING: Final = b": events may be missing here\n\n"
_encode: Final = msgspec.json.Encoder().encode

# Slots are elements of a sorted set, scored by their expiry time. So the slots of a process that died become free.
_ACQUIRE: Final = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
if not redis.call('ZSCORE', KEYS[1], ARGV[3]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then
    return 0
end
redis.call('ZADD', KEYS[1], ARGV[1] + ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""


class Streams:
    """Opens streams, at most MAX_STREAMS per merchant."""

    def __init__(self, redis: "Redis", subscriber: LiveSubscriber) -> None:
        self._redis = redis
        self._acquire = self._redis.register_script(_ACQUIRE)
        self._subscriber = subscriber

    async def open(
        self,
        merchant_id: str,
        check_key: Callable[[], Awaitable[object]],
        limit: int | None,
        seconds: float | None,
        types: Sequence[str] = ("*",),
    ) -> "EventStream":
        """Return a response that streams events from now on.

        The stream ends after `limit` events or `seconds`, if given, and when `check_key` raises INVALID_API_KEY. It sends and
        counts only events of `types`; a type can end in `*`. Raises RATE_LIMITED if the merchant has MAX_STREAMS streams,
        UNAVAILABLE without Redis.
        """
        slot = f"{uuid.uuid4()}"
        try:
            if not await self.acquire(merchant_id, slot):
                raise Problem(
                    "RATE_LIMITED",
                    f"A merchant has at most {MAX_STREAMS} streams at a time; close one first.",
                    headers={"Retry-After": "1"},
                )
        except REDIS_ERRORS as error:
            raise unavailable("Redis is unavailable, so there is no live stream.") from error
        return EventStream(self, self._subscriber, merchant_id, check_key, slot, limit, seconds, types)

    async def acquire(self, merchant_id: str, slot: str) -> bool:
        """Acquire or renew a slot; return False if none is free. Raises redis's errors."""
        now = time.time_ns() // 1_000_000
        return bool(await self._acquire(keys=[_key(merchant_id)], args=[now, _SLOT_TTL_MS, slot, MAX_STREAMS]))

    async def release(self, merchant_id: str, slot: str) -> None:
        """Release a slot."""
        with contextlib.suppress(*REDIS_ERRORS):
            await self._redis.zrem(_key(merchant_id), slot)


class EventStream:
    """The response to one client: its headers, then its events."""

    def __init__(
        self,
        streams: Streams,
        subscriber: LiveSubscriber,
        merchant_id: str,
        check_key: Callable[[], Awaitable[object]],
        slot: str,
        limit: int | None,
        seconds: float | None,
        types: Sequence[str] = ("*",),
    ) -> None:
        self._streams = streams
        self._subscriber = subscriber
        self._merchant_id = merchant_id
        self._check_key = check_key
        self._slot = slot
        self._limit = limit
        self._seconds = seconds
        self._exact = {name for name in types if not name.endswith("*")}
        self._prefixes = tuple(name[:-1] for name in types if name.endswith("*"))
        self._queue: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._too_slow = asyncio.Event()
        self._is_over = False

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Stream until a limit is reached, the client disconnects or is too slow, or its key is revoked."""
        tasks = [
            asyncio.create_task(self._write(send)),
            asyncio.create_task(_wait_for_disconnect(receive)),
            asyncio.create_task(self._too_slow.wait()),
            asyncio.create_task(self._end_when_key_revoked()),
            asyncio.create_task(self._renew_slot()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*tasks)
            await self._streams.release(self._merchant_id, self._slot)

    def receive(self, message: Message | None) -> None:
        """Queue a message's events of the requested types. If the queue becomes too long, the client is disconnected."""
        if message is None:
            self._queue.append(_MISSING)
        else:
            for item in message.transitions:
                if self._wants(item.type):
                    self._queue.append(_event(item.type, _fields(item), item.event_id))
            for note in message.notes:
                if self._wants(note.kind):
                    self._queue.append(_event(note.kind, note.data, None))
        if self._queue:  # events of other types must not delay the heartbeat
            self._changed.set()
        if len(self._queue) > MAX_QUEUED_EVENTS:
            self._too_slow.set()

    def _wants(self, kind: str) -> bool:
        return kind in self._exact or kind.startswith(self._prefixes)

    async def _end_when_key_revoked(self) -> None:
        while True:
            try:
                await self._check_key()
            except Problem as problem:
                # Any other problem means that PostgreSQL is down. Then no key can be revoked and no event can happen.
                if problem.code == "INVALID_API_KEY":
                    break
            await asyncio.sleep(KEY_CHECK_SECONDS)
        self._is_over = True
        self._changed.set()
        await asyncio.sleep(_GRACE_SECONDS)

    async def _renew_slot(self) -> None:
        # Not tied to the heartbeats sent: a busy stream sends none, and sending to a slow client can take any time.
        while True:
            await asyncio.sleep(HEARTBEAT)
            with contextlib.suppress(*REDIS_ERRORS):
                await self._streams.acquire(self._merchant_id, self._slot)

    async def _write(self, send: "Send") -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with contextlib.aclosing(self._chunks()) as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        clock = asyncio.get_running_loop().time
        began, sent = clock(), 0
        async with self._subscriber.subscribe(self._merchant_id, self.receive, _SUBSCRIBE_TIMEOUT) as is_subscribed:
            self._queue.clear()  # the stream starts now, so no event is missing yet
            if not is_subscribed:
                yield _MISSING
            yield b": listening\n\n"
            while not self._is_over:
                if self._queue:
                    chunk = self._queue.popleft()
                    yield chunk
                    sent += not chunk.startswith(b":")
                    if self._limit is not None and sent >= self._limit:
                        return
                    continue
                if self._subscriber.closing:
                    return
                seconds = HEARTBEAT if self._seconds is None else min(HEARTBEAT, began + self._seconds - clock())
                if seconds <= 0:
                    return
                self._changed.clear()
                try:
                    async with asyncio.timeout(seconds):
                        await self._changed.wait()
                except TimeoutError:
                    yield b": heartbeat\n\n"


async def _wait_for_disconnect(receive: "Receive") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(kind: str, data: dict[str, Any], id_: str | None) -> bytes:
    head = f"id: {id_}\nevent: {kind}\n" if id_ is not None else f"event: {kind}\n"
    return head.encode() + b"data: " + _encode(data) + b"\n\n"


def _fields(item: Transition) -> dict[str, Any]:
    return {
        "event_id": item.event_id,
        "type": item.type,
        "at": item.at,
        "payout_id": item.payout_id,
        "from": item.source,
        "to": item.to,
        "cause": item.cause,
    }


def _key(merchant_id: str) -> str:
    return f"psp:streams:{merchant_id}"
