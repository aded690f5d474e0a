"""The journal of API calls: the newest thousand of each merchant, kept in Redis for a day.

Redis is only a cache here: losing it, or an entry, loses no money. Entries are written in the background, in batches; the
queue is bounded and forgets the oldest, so that no request is slower or fails because of it.

A merchant's calls are a list there, the newest last: all that have gathered are one push, which costs a busy API a tenth of
what a command for each does.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio import Redis

from sandbox.domain import redaction
from sandbox.domain.errors import ProblemBody, unavailable
from sandbox.domain.fault import FaultNote
from sandbox.domain.ids import LARGEST_ID, uuid7
from sandbox.domain.unit import Effect, UnitOfWork
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks
from sandbox.live.feed import Note

KEPT: Final = 1000
BODY_LIMIT: Final = 4000
HEADERS_LIMIT: Final = 8000
"""Bytes of all headers of a call, names and values."""
JOURNALED: Final = ("/api/v1/", "/vendor/", "/aggregator/", "/sandbox/v1/")
NOT_JOURNALED: Final = ("/sandbox/v1/stream", "/sandbox/v1/requests")
"""The live stream has no end; and whoever watches the journal must not fill it with what he reads there."""
_WAITING: Final = 1000
_PAUSE: Final = 0.2
_SECONDS: Final = 86_400
_ID: Final = 36
"""Bytes of the id that stands before each entry, so that one can be looked for without reading them all."""
_MOST_HEADERS: Final = 100
_PROBLEM: Final = redaction.shape_of(ProblemBody)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be shown of the calls of one operation. The default is for a path that no operation has."""

    request: redaction.Shape = redaction.NEVER
    answers: Mapping[int, redaction.Shape] = field(default_factory=dict)
    """Status → the shape of the body; another status answers with a problem."""
    parameters: frozenset[str] = frozenset()
    """Names of query parameters."""
    is_ours: bool = False
    """The call was made by the sandbox: its path is a URL, and another party answered."""


class Entry(msgspec.Struct, array_like=True):
    """A call as it is written down: bytes as they came, until they are cleaned when they are noted."""

    at: str
    method: str
    path: str
    query: bytes
    status: int
    duration_ms: float
    request_id: str
    api_key_id: str | None
    replayed: bool
    headers: list[tuple[bytes, bytes]]
    request_body: bytes
    response_body: bytes
    fault: FaultNote | None


class JournalEntry(msgspec.Struct):
    """A call in the journal. Bodies are cut to 4000 bytes; what might be a key or a secret reads `[redacted]`."""

    id: str
    at: str
    method: str
    path: str
    query: str
    status: int
    duration_ms: float
    request_id: str
    idempotency_key: str | None
    replayed: bool
    api_key_id: str | None
    request_headers: dict[str, str]
    request_body: str
    response_body: str
    fault: FaultNote | None


class Journal:
    """Writes calls down, and reads them. `note` never waits and never fails."""

    def __init__(
        self, redis_url: str, on_recorded: Callable[[str, Sequence[Note]], None] = lambda merchant_id, notes: None
    ) -> None:
        """`on_recorded` is called with notes of a merchant's calls once they are recorded."""
        self._on_recorded = on_recorded
        self._redis: Redis = Redis.from_url(redis_url, socket_timeout=2, socket_connect_timeout=2)
        self._queue: deque[tuple[str, str, Entry]] = deque(maxlen=_WAITING)
        self._counter = itertools.count()
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._down = False

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Stop writing, what waits being tried once more."""
        if self._task is not None:
            await end_tasks(self._task)
            with contextlib.suppress(*REDIS_ERRORS):
                await self._write()
        await self._redis.aclose()

    def note(self, merchant_id: str, entry: Entry, rules: Rules, *, as_declared: bool = False) -> None:
        """Write a call down, some time soon, as far as the rules let it be shown.

        `as_declared` says that its body was decoded as the type that the rules were made of.
        """
        counter = next(self._counter) & 0xFFFFFFFF
        entry_id = uuid7(time.time_ns() // 1_000_000, counter, random.getrandbits(42))
        # Now, and not when it is written: a thousand may wait, and headers may be of any size.
        _clean(entry, rules, as_declared)
        self._queue.append((merchant_id, entry_id, entry))
        self._some.set()

    async def committed(self, unit: UnitOfWork) -> None:
        """Drop the journal of a merchant whose world was reset."""
        if Effect.WORLD_RESET in unit.effects:
            await self.forget(unit.merchant_id)

    async def forget(self, merchant_id: str) -> None:
        """Drop a merchant's journal. What other processes have still to write of it may come afterwards."""
        kept = [item for item in self._queue if item[0] != merchant_id]
        self._queue.clear()
        self._queue += kept
        with contextlib.suppress(*REDIS_ERRORS):
            await self._redis.delete(_key(merchant_id))

    async def page(
        self, merchant_id: str, before: str, limit: int, wanted: Callable[[JournalEntry], bool]
    ) -> list[JournalEntry]:
        """At most `limit` calls that are wanted, newest first, behind the one with the id `before`. Raises UNAVAILABLE."""
        found: list[JournalEntry] = []
        is_behind = before == LARGEST_ID
        for value in await self._read(merchant_id):
            if not is_behind:
                is_behind = value.startswith(before.encode())
            elif wanted(entry := _shown(value)):
                found.append(entry)
                if len(found) == limit:
                    break
        return found

    async def get(self, merchant_id: str, entry_id: str) -> JournalEntry | None:
        """One call, None if it is not there (any more). Raises UNAVAILABLE."""
        values = await self._read(merchant_id)
        return next((_shown(value) for value in values if value.startswith(entry_id.encode())), None)

    async def _read(self, merchant_id: str) -> list[bytes]:
        try:
            values: list[bytes] = await self._redis.lrange(_key(merchant_id), 0, -1)  # type: ignore[misc]  # redis-py types one method for both of its clients
        except REDIS_ERRORS as error:
            raise unavailable("Redis does not answer, so the journal cannot be read.") from error
        return values[::-1]

    async def _write_all(self) -> None:
        while True:
            await self._some.wait()
            try:
                await self._write()
                self._down = False
            except REDIS_ERRORS as error:
                if not self._down:
                    _log.warning("journal_away", error=repr(error)[:300])
                self._down = True
            except Exception:
                # A call that cannot be written down must not end the journal.
                _log.exception("journal_failed")
            # Calls gather meanwhile, so that many are one round trip however fast they come.
            await asyncio.sleep(_PAUSE)

    async def _write(self) -> None:
        self._some.clear()
        entries = [self._queue.popleft() for _ in range(len(self._queue))]
        if not entries:
            return
        values: dict[str, list[bytes]] = {}
        calls: dict[str, list[dict[str, Any]]] = {}
        for merchant_id, entry_id, entry in entries:
            values.setdefault(merchant_id, []).append(entry_id.encode() + _encode(entry))
            calls.setdefault(merchant_id, []).append(_summary(entry_id, entry))
        pipeline = self._redis.pipeline(transaction=False)
        for merchant_id, pushed in values.items():
            pipeline.rpush(_key(merchant_id), *pushed)
            pipeline.ltrim(_key(merchant_id), -KEPT, -1)
            pipeline.expire(_key(merchant_id), _SECONDS)
        await pipeline.execute()
        for merchant_id, summaries in calls.items():
            self._on_recorded(merchant_id, [Note("request", call) for call in summaries])


def _summary(entry_id: str, entry: Entry) -> dict[str, Any]:
    """What the live stream tells of a call; the rest is in the journal under its id."""
    return {
        "id": entry_id,
        "at": entry.at,
        "method": entry.method,
        "path": entry.path,
        "status": entry.status,
        "duration_ms": entry.duration_ms,
        "request_id": entry.request_id,
        "fault": None if entry.fault is None else msgspec.to_builtins(entry.fault),
    }


def _key(merchant_id: str) -> str:
    return f"psp:journal:{merchant_id}"


def _clean(entry: Entry, rules: Rules, as_declared: bool) -> None:
    """Keep what may be shown to everybody who has a key of the merchant, and bound it."""
    entry.query = redaction.query(entry.query, rules.parameters).encode("latin-1", "replace")
    entry.path = redaction.address(entry.path) if rules.is_ours else redaction.path(entry.path)
    entry.headers = _headers(entry.headers)
    if rules.is_ours:
        entry.request_body = redaction.text_body(entry.request_body, BODY_LIMIT)
        entry.response_body = redaction.text_body(entry.response_body, BODY_LIMIT)
        return
    entry.request_body = redaction.body(entry.request_body, rules.request, BODY_LIMIT, as_declared=as_declared)
    answer = rules.answers.get(entry.status, _PROBLEM)
    entry.response_body = redaction.body(entry.response_body, answer, BODY_LIMIT, as_declared=True)


def _headers(given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept: list[tuple[bytes, bytes]] = []
    room = HEADERS_LIMIT
    for name, value in redaction.headers(given[:_MOST_HEADERS]):
        room -= len(name) + len(value)
        if room < 0:
            break
        kept.append((name, value))
    if len(kept) < len(given):
        kept.append((redaction.CUT.encode(), b"%d more" % (len(given) - len(kept))))
    return kept


def _shown(value: bytes) -> JournalEntry:
    entry = _decode(value[_ID:])
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in entry.headers}
    return JournalEntry(
        id=value[:_ID].decode(),
        at=entry.at,
        method=entry.method,
        path=entry.path,
        query=entry.query.decode("latin-1"),
        status=entry.status,
        duration_ms=entry.duration_ms,
        request_id=entry.request_id,
        idempotency_key=headers.get("x-idempotency-key", headers.get("idempotency-key")),
        replayed=entry.replayed,
        api_key_id=entry.api_key_id,
        request_headers=headers,
        request_body=entry.request_body.decode("utf-8", "replace"),
        response_body=entry.response_body.decode("utf-8", "replace"),
        fault=entry.fault,
    )


_encode: Final[Any] = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Entry).decode
