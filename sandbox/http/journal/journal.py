"""The journal of API calls: the newest 1000 calls of each merchant, kept in Redis for a day.

A quarter of Redis's memory is reserved for other data, such as rate limits. When less is left, the journals with the oldest
last write are deleted.

Losing Redis or an entry loses no money. Entries are written in the background, in batches. The queue is bounded and drops the
oldest entries, so the journal never slows down a request or makes it fail.

In Redis, a merchant's calls are a list, newest last. A batch is one push. That costs a tenth of what a command for
each call would.
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

from sandbox.domain import redaction, trace
from sandbox.domain.errors import ProblemBody, unavailable
from sandbox.domain.ids import MAX_ID, uuid7
from sandbox.domain.unit import Effect, UnitOfWork
from sandbox.http.fault import FaultNote
from sandbox.infrastructure.live_feed import Note
from sandbox.infrastructure.outages import Outage
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks

ENTRIES_KEPT: Final = 1000
BODY_LIMIT: Final = 4000
HEADERS_LIMIT: Final = 8000
"""Maximum bytes of a call's headers, names and values together."""
JOURNALED: Final = ("/api/v1/", "/vendor/", "/aggregator/", "/sandbox/v1/", "/ipn/")
NOT_JOURNALED: Final = ("/sandbox/v1/stream", "/sandbox/v1/requests", "/sandbox/v1/listeners/", "/sandbox/v1/world")
"""Paths that are not in the journal. The live stream never ends. Reading the journal or waiting as a listener must not
fill it. A world bundle contains the journal, so moving a world must not change it."""
_MAX_QUEUE_LENGTH: Final = 1000
_PART: Final = 50
"""Calls that are read from Redis at a time."""
_PAUSE_SECONDS: Final = 0.2
_TTL_SECONDS: Final = 86_400
_MEMORY_SHARE: Final = 0.75
"""The part of Redis's memory that may be in use while there are journals to delete."""
_JOURNALS: Final = "psp:journals"
"""The merchants with a journal, each with the time of its last write."""
_DELETED_AT_ONCE: Final = 10
_ID_SIZE: Final = 36
"""Bytes of the id before each entry. With it, an entry is found without decoding the others."""
_MAX_HEADERS: Final = 100
_PROBLEM: Final = redaction.shape_of(ProblemBody)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RedactionRules:
    """The parts of an operation's calls that are not redacted. The defaults are for paths that belong to no operation."""

    request: redaction.Shape = redaction.NEVER
    responses: Mapping[int, redaction.Shape] = field(default_factory=dict)
    """Status → the shape of the response body. A status not listed has a problem as its body."""
    parameters: frozenset[str] = frozenset()
    """Names of query parameters."""
    is_outbound: bool = False
    """The sandbox made the call: its path is a URL, and another party responded."""


class Entry(msgspec.Struct, array_like=True):
    """A call as it is stored. Query, headers and bodies are raw until `Journal.record` redacts them."""

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
    began: int = 0
    """When the call began, in microseconds of the host's time. It orders the calls of a client that waits for each response,
    even if several processes served them."""


class JournalEntry(msgspec.Struct):
    """A call in the journal. Bodies are cut to 4000 bytes; anything that might be a key or a secret reads `[redacted]`.

    `traceparent` is as sent, or the one that the sandbox started.
    """

    id: str
    at: str
    method: str
    path: str
    query: str
    status: int
    duration_ms: float
    request_id: str
    traceparent: str
    idempotency_key: str | None
    replayed: bool
    api_key_id: str | None
    request_headers: dict[str, str]
    request_body: str
    response_body: str
    fault: FaultNote | None


class Journal:
    """Records calls and reads them. `record` never waits and never fails."""

    def __init__(
        self, redis: Redis, on_recorded: Callable[[str, Sequence[Note]], None] = lambda merchant_id, notes: None
    ) -> None:
        """`on_recorded` is called with a merchant's id and a live-feed note for each recorded call."""
        self._on_recorded = on_recorded
        self._redis = redis
        self._queue: deque[tuple[str, str, Entry]] = deque(maxlen=_MAX_QUEUE_LENGTH)
        self._counter = itertools.count()
        self._has_entries = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._outage = Outage("journal_unavailable")

    def start(self) -> None:
        """Start writing in the background."""
        self._task = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Stop writing in the background, and try once to write the queue. Does not close the Redis client."""
        if self._task is not None:
            # Let a write in progress end first. If it were cancelled, the calls that it took from the queue would be lost.
            async with self._writing:
                await end_tasks(self._task)
            with contextlib.suppress(*REDIS_ERRORS):
                await self._write()

    def record(self, merchant_id: str, entry: Entry, rules: RedactionRules, *, is_validated: bool = False) -> None:
        """Redact a call by the rules and queue it for writing.

        `is_validated` says that the request body was decoded as the type that the rules describe.
        """
        counter = next(self._counter) & 0xFFFFFFFF
        entry_id = uuid7(time.time_ns() // 1_000_000, counter, random.getrandbits(42))
        # Redact and cut now, not when writing: the queue holds up to 1000 entries, and headers can have any size.
        _redact(entry, rules, is_validated)
        self._queue.append((merchant_id, entry_id, entry))
        self._has_entries.set()

    async def committed(self, unit: UnitOfWork) -> None:
        """Delete the journal of a merchant that was reset."""
        if Effect.WORLD_RESET in unit.effects:
            await self.forget(unit.merchant_id)

    async def calls(self, merchant_id: str) -> list[JournalEntry]:
        """Return all calls in the order in which they began, including those that another process has just served.

        Takes a third of a second. Raises UNAVAILABLE.
        """
        await asyncio.sleep(_PAUSE_SECONDS * 1.5)  # by then, the other processes have written their queues
        with contextlib.suppress(*REDIS_ERRORS):
            async with self._writing:
                await self._write()
        values = await self._read(merchant_id)
        oldest_first = values[::-1]
        oldest_first.sort(key=lambda value: _decode(value[_ID_SIZE:]).began)
        return [_to_journal_entry(value) for value in oldest_first]

    async def replace(self, merchant_id: str, calls: Sequence[JournalEntry]) -> None:
        """Replace a merchant's journal by these calls, oldest first. Loses them if Redis is down."""
        await self.forget(merchant_id)
        if not calls:
            return
        values = [call.id.encode() + _encode(_to_entry(call, number)) for number, call in enumerate(calls)]
        with contextlib.suppress(*REDIS_ERRORS):
            await self._make_room()
            await self._push({merchant_id: values[-ENTRIES_KEPT:]})

    async def forget(self, merchant_id: str) -> None:
        """Delete a merchant's journal. Other processes can still write entries that they have queued."""
        others = [item for item in self._queue if item[0] != merchant_id]
        self._queue.clear()
        self._queue += others
        with contextlib.suppress(*REDIS_ERRORS):
            await self._redis.delete(_key(merchant_id))

    async def page(
        self, merchant_id: str, before: str, limit: int, matches: Callable[[JournalEntry], bool]
    ) -> list[JournalEntry]:
        """Return at most `limit` calls that match, newest first, from before the call `before`. Raises UNAVAILABLE."""
        found: list[JournalEntry] = []
        has_passed = before == MAX_ID
        seen: set[bytes] = set()
        # Read in parts: all calls together can take 8 MB. New calls can shift the list meanwhile, so a part can repeat calls.
        for newest in range(0, ENTRIES_KEPT, _PART):
            values = await self._read(merchant_id, newest, newest + _PART)
            for value in values:
                entry_id = value[:_ID_SIZE]
                if entry_id in seen:
                    continue
                seen.add(entry_id)
                if not has_passed:
                    has_passed = entry_id == before.encode()
                elif matches(entry := _to_journal_entry(value)):
                    found.append(entry)
                    if len(found) == limit:
                        return found
            if len(values) < _PART:
                break
        return found

    async def get(self, merchant_id: str, entry_id: str) -> JournalEntry | None:
        """Return a call, or None if the journal does not contain it. Raises UNAVAILABLE."""
        found = await self.page(merchant_id, MAX_ID, 1, lambda entry: entry.id == entry_id)
        return found[0] if found else None

    async def _read(self, merchant_id: str, newest: int = 0, end: int = ENTRIES_KEPT) -> list[bytes]:
        """Return the calls from the one at `newest`, where 0 is the last one, to before the one at `end`, newest first."""
        try:
            values: list[bytes] = await self._redis.lrange(_key(merchant_id), -end, -newest - 1)  # type: ignore[misc]  # redis-py types one method for both of its clients
        except REDIS_ERRORS as error:
            raise unavailable("Redis is unavailable, so the journal cannot be read.") from error
        return values[::-1]

    async def _write_all(self) -> None:
        while True:
            await self._has_entries.wait()
            try:
                async with self._writing:
                    await self._write()
                self._outage.ended()
            except REDIS_ERRORS as error:
                self._outage.log_once(error)
            except Exception:
                # A call that cannot be written must not end the loop.
                _log.exception("journal_failed")
            # Calls queue up meanwhile, so that one round trip writes many.
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _write(self) -> None:
        self._has_entries.clear()
        entries = [self._queue.popleft() for _ in range(len(self._queue))]
        if not entries:
            return
        values: dict[str, list[bytes]] = {}
        calls: dict[str, list[dict[str, Any]]] = {}
        for merchant_id, entry_id, entry in entries:
            values.setdefault(merchant_id, []).append(entry_id.encode() + _encode(entry))
            calls.setdefault(merchant_id, []).append(_summary(entry_id, entry))
        await self._make_room()
        await self._push(values)
        for merchant_id, summaries in calls.items():
            self._on_recorded(merchant_id, [Note("request", call) for call in summaries])

    async def _push(self, values: Mapping[str, Sequence[bytes]]) -> None:
        now = time.time()
        pipeline = self._redis.pipeline(transaction=False)
        for merchant_id, pushed in values.items():
            pipeline.rpush(_key(merchant_id), *pushed)
            pipeline.ltrim(_key(merchant_id), -ENTRIES_KEPT, -1)
            pipeline.expire(_key(merchant_id), _TTL_SECONDS)
        pipeline.zadd(_JOURNALS, dict.fromkeys(values, now))
        pipeline.zremrangebyscore(_JOURNALS, "-inf", now - _TTL_SECONDS)
        await pipeline.execute()

    async def _make_room(self) -> None:
        """Delete journals, those not written for the longest time first, until Redis has memory left for everything else."""
        while True:
            memory = await self._redis.info("memory")
            if memory["used_memory"] <= memory["maxmemory"] * _MEMORY_SHARE or not memory["maxmemory"]:
                return
            oldest = await self._redis.zpopmin(_JOURNALS, _DELETED_AT_ONCE)
            if not oldest:
                return
            await self._redis.delete(*(_key(merchant_id.decode()) for merchant_id, _ in oldest))
            _log.warning("journals_deleted", count=len(oldest), note="Redis has little memory left")


def _summary(entry_id: str, entry: Entry) -> dict[str, Any]:
    """Return the fields of a call that the live stream shows. The journal has the others under the same id."""
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


def _redact(entry: Entry, rules: RedactionRules, is_validated: bool) -> None:
    """Redact what some holders of the merchant's keys may not see, and apply the size limits."""
    entry.query = redaction.query(entry.query, rules.parameters).encode("latin-1", "replace")
    # Usually a call has no secret, and one search over all its parts is enough. Parts of a URL or of a query value are
    # searched separately.
    headers = redaction.showable_parts_of_headers(entry.headers[:_MAX_HEADERS])
    shown = b"\n".join((*headers, entry.request_body, entry.response_body)).decode("latin-1")
    is_clean = not redaction.has_secret(f"{entry.path}\n{shown}")
    entry.path = redaction.address(entry.path) if rules.is_outbound else redaction.path(entry.path, is_clean=is_clean)
    entry.headers = _headers(entry.headers, is_clean)
    if rules.is_outbound:
        entry.request_body = redaction.text_body(entry.request_body, BODY_LIMIT)
        entry.response_body = redaction.text_body(entry.response_body, BODY_LIMIT)
        return
    request, response = rules.request, rules.responses.get(entry.status, _PROBLEM)
    entry.request_body = redaction.body(entry.request_body, request, BODY_LIMIT, is_validated=is_validated, is_clean=is_clean)
    entry.response_body = redaction.body(entry.response_body, response, BODY_LIMIT, is_validated=True, is_clean=is_clean)


def _headers(given: list[tuple[bytes, bytes]], is_clean: bool) -> list[tuple[bytes, bytes]]:
    kept: list[tuple[bytes, bytes]] = []
    bytes_left = HEADERS_LIMIT
    for name, value in redaction.headers(given[:_MAX_HEADERS], is_clean=is_clean):
        bytes_left -= len(name) + len(value)
        if bytes_left < 0:
            break
        kept.append((name, value))
    if len(kept) < len(given):
        kept.append((redaction.CUT.encode(), b"%d more" % (len(given) - len(kept))))
    return kept


def _to_journal_entry(value: bytes) -> JournalEntry:
    entry = _decode(value[_ID_SIZE:])
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in entry.headers}
    return JournalEntry(
        id=value[:_ID_SIZE].decode(),
        at=entry.at,
        method=entry.method,
        path=entry.path,
        query=entry.query.decode("latin-1"),
        status=entry.status,
        duration_ms=entry.duration_ms,
        request_id=entry.request_id,
        traceparent=trace.given(entry.headers) or trace.derive(entry.request_id),
        idempotency_key=headers.get("x-idempotency-key", headers.get("idempotency-key")),
        replayed=entry.replayed,
        api_key_id=entry.api_key_id,
        request_headers=headers,
        request_body=entry.request_body.decode("utf-8", "replace"),
        response_body=entry.response_body.decode("utf-8", "replace"),
        fault=entry.fault,
    )


def _to_entry(call: JournalEntry, began: int) -> Entry:
    return Entry(
        at=call.at,
        method=call.method,
        path=call.path,
        query=call.query.encode("latin-1", "replace"),
        status=call.status,
        duration_ms=call.duration_ms,
        request_id=call.request_id,
        api_key_id=call.api_key_id,
        replayed=call.replayed,
        headers=[
            (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
            for name, value in call.request_headers.items()
        ],
        request_body=call.request_body.encode(),
        response_body=call.response_body.encode(),
        fault=call.fault,
        began=began,
    )


_encode: Final[Any] = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Entry).decode
