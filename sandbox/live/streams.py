"""A merchant's live feed as server-sent events: everything as it happens, to whoever watches."""

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.domain.errors import Problem, unavailable
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks
from sandbox.live.feed import Message, Transition, connect
from sandbox.live.listener import LiveListener

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send

MEDIA_TYPE: Final = "text/event-stream"
MOST_STREAMS: Final = 32
"""Streams of one merchant at a time, in all processes together."""
MOST_WAITING: Final = 1000
"""Events that wait for a slow client; one more, and it is cut off."""
HEARTBEAT: Final = 15.0
"""Seconds of silence after which a comment shows that the stream lives, and after which its place is renewed in any case."""
_LAPSES: Final = 45_000
"""Milliseconds for which a place is taken unless it is renewed: longer than two heartbeats."""
_CHECKED_EACH: Final = 0.25
"""Seconds between two looks at the key. With the half second that keys are remembered, a revoked one ends within one."""
_GRACE: Final = 1.0
"""Seconds that a stream without a key has to end as it should; a client that does not read is cut off then."""
_PATIENCE: Final = 5.0
"""Seconds that a stream waits for Redis before it begins all the same."""
_MISSING: Final = b": events may be missing here\n\n"
_encode: Final = msgspec.json.Encoder().encode

# Connections are members of a sorted set, by the time at which they lapse: what a process held that died comes free by itself.
_TAKE: Final = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
if not redis.call('ZSCORE', KEYS[1], ARGV[3]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then
    return 0
end
redis.call('ZADD', KEYS[1], ARGV[1] + ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""


class Streams:
    """Opens streams, at most MOST_STREAMS a merchant."""

    def __init__(self, redis_url: str, listener: LiveListener) -> None:
        self._redis = connect(redis_url)
        self._take = self._redis.register_script(_TAKE)
        self._listener = listener

    async def close(self) -> None:
        """Close the connection on which places are counted."""
        with contextlib.suppress(*REDIS_ERRORS):
            await self._redis.aclose()

    async def open(
        self,
        merchant_id: str,
        check_key: Callable[[], Awaitable[object]],
        limit: int | None,
        seconds: float | None,
        types: Sequence[str] = ("*",),
    ) -> "EventStream":
        """A response that streams what happens from now on, until so many events or seconds, if they are given.

        It ends once `check_key` raises INVALID_API_KEY. Only events of `types` are told and counted; one may end in `*`.

        Raises RATE_LIMITED for one stream too many, UNAVAILABLE without Redis.
        """
        place = f"{uuid.uuid4()}"
        try:
            if not await self.take(merchant_id, place):
                raise Problem(
                    "RATE_LIMITED",
                    f"A merchant has at most {MOST_STREAMS} streams at a time; close one first.",
                    headers={"Retry-After": "1"},
                )
        except REDIS_ERRORS as error:
            raise unavailable("Redis does not answer, so there is no live stream.") from error
        return EventStream(self, self._listener, merchant_id, check_key, place, limit, seconds, types)

    async def take(self, merchant_id: str, place: str) -> bool:
        """Take a place, or keep it for longer; False if there is none. Raises redis's errors."""
        now = time.time_ns() // 1_000_000
        return bool(await self._take(keys=[_key(merchant_id)], args=[now, _LAPSES, place, MOST_STREAMS]))

    async def leave(self, merchant_id: str, place: str) -> None:
        """Give a place back."""
        with contextlib.suppress(*REDIS_ERRORS):
            await self._redis.zrem(_key(merchant_id), place)


class EventStream:
    """One client's stream, from the headers on."""

    def __init__(
        self,
        streams: Streams,
        listener: LiveListener,
        merchant_id: str,
        check_key: Callable[[], Awaitable[object]],
        place: str,
        limit: int | None,
        seconds: float | None,
        types: Sequence[str] = ("*",),
    ) -> None:
        self._streams = streams
        self._listener = listener
        self._merchant_id = merchant_id
        self._check_key = check_key
        self._place = place
        self._limit = limit
        self._seconds = seconds
        self._exact = {name for name in types if not name.endswith("*")}
        self._prefixes = tuple(name[:-1] for name in types if name.endswith("*"))
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._cut = asyncio.Event()
        self._is_over = False

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Stream until the client leaves, is cut off, has got what it asked for, or its key is revoked."""
        ends = [
            asyncio.create_task(self._write(send)),
            asyncio.create_task(_gone(receive)),
            asyncio.create_task(self._cut.wait()),
            asyncio.create_task(self._end_with_key()),
            asyncio.create_task(self._keep_place()),
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*ends)
            await self._streams.leave(self._merchant_id, self._place)

    def hear(self, message: Message | None) -> None:
        """Keep what is to be sent; a client that lets too much of it wait is cut off."""
        if message is None:
            self._waiting.append(_MISSING)
        else:
            for item in message.transitions:
                if self._wants(item.type):
                    self._waiting.append(_event(item.type, _members(item), item.event_id))
            for note in message.notes:
                if self._wants(note.kind):
                    self._waiting.append(_event(note.kind, note.data, None))
        if self._waiting:  # what is not wanted does not break the silence
            self._news.set()
        if len(self._waiting) > MOST_WAITING:
            self._cut.set()

    def _wants(self, kind: str) -> bool:
        return kind in self._exact or kind.startswith(self._prefixes)

    async def _end_with_key(self) -> None:
        while True:
            try:
                await self._check_key()
            except Problem as problem:
                # Anything else says that PostgreSQL is away: then no key is revoked either, and nothing happens to tell of.
                if problem.code == "INVALID_API_KEY":
                    break
            await asyncio.sleep(_CHECKED_EACH)
        self._is_over = True
        self._news.set()
        await asyncio.sleep(_GRACE)

    async def _keep_place(self) -> None:
        # By time alone: on a busy merchant there may be no silence, and sending to a slow client may take as long as it likes.
        while True:
            await asyncio.sleep(HEARTBEAT)
            with contextlib.suppress(*REDIS_ERRORS):
                await self._streams.take(self._merchant_id, self._place)

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
        async with self._listener.hearing(self._merchant_id, self.hear, _PATIENCE) as is_heard:
            self._waiting.clear()  # from here on all is heard, so nothing is missing yet
            if not is_heard:
                yield _MISSING
            yield b": listening\n\n"
            while not self._is_over:
                if self._waiting:
                    chunk = self._waiting.popleft()
                    yield chunk
                    sent += not chunk.startswith(b":")
                    if self._limit is not None and sent >= self._limit:
                        return
                    continue
                if self._listener.closing:
                    return
                left = HEARTBEAT if self._seconds is None else min(HEARTBEAT, began + self._seconds - clock())
                if left <= 0:
                    return
                self._news.clear()
                try:
                    async with asyncio.timeout(left):
                        await self._news.wait()
                except TimeoutError:
                    yield b": heartbeat\n\n"


async def _gone(receive: "Receive") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(kind: str, data: dict[str, Any], id_: str | None) -> bytes:
    head = f"id: {id_}\nevent: {kind}\n" if id_ is not None else f"event: {kind}\n"
    return head.encode() + b"data: " + _encode(data) + b"\n\n"


def _members(item: Transition) -> dict[str, Any]:
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
