"""Claim a listener's deliveries from the sandbox, post them, and report the results.

Nothing is lost: a delivery stays due until its result is recorded, and results that cannot be reported are kept until they can.
Nothing is posted twice, except what was in flight when this process was killed: a delivery is posted only while its lease
lasts, so after a pause (SIGSTOP, a sleeping laptop) it is left to a new claim; and if a claim returns a delivery that was
already posted, its known result is reported instead.
"""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx

from sandbox.cli.client import Client
from sandbox.cli.failures import failed_response
from sandbox.infrastructure.backoff import backoff
from sandbox.webhooks.outbound.sender import TIMEOUT, Sender, SendResult

MAX_OPEN: Final = 32
"""Maximum number of deliveries that are being posted or whose results are not reported yet."""
_WAIT_SECONDS: Final = 20.0
"""How long one claim waits for a delivery."""
_MAX_ATTEMPT_SECONDS: Final = TIMEOUT + 1
_MAX_PAUSE: Final = 2.0
"""Maximum seconds between two tries to reach the sandbox."""
_STALE_SECONDS: Final = 1.0
"""If a result has waited longer than this, it is reported before anything else is claimed."""
_MAX_REPORT_BYTES: Final = 1_000_000
_MAX_REPORTED: Final = 50
_MAX_LATE: Final = 1000
_STOP_SECONDS: Final = 3.0
"""When the listener stops, the calls in progress may take so long, and then the last report as long again."""
_TRY_AGAIN: Final = (408, 429)
"""Statuses below 500 after which a repeated request can succeed. 408: this process was stopped while it sent the request."""

# A lease also ends while the machine sleeps. On Linux, the monotonic clock stands still then; elsewhere it does not.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(slots=True)
class Delivery:
    """A claimed delivery. `claimed` is as the sandbox sent it."""

    claimed: dict[str, Any]
    ends_at: float
    """When its lease ends, on this process's clock."""
    result: SendResult | None = None
    ended_at: float = 0.0

    @property
    def key(self) -> tuple[str, int]:
        """The delivery and the number of its attempt."""
        return self.claimed["delivery_id"], self.claimed["attempt"]


class _OutageError(Exception):
    """The sandbox cannot be reached, or cannot serve the request now."""


class Forwarder:
    """Runs one listener. `on_attempt` gets each reported attempt, and whether the sandbox recorded it."""

    def __init__(
        self,
        client: Client,
        sender: Sender,
        listener_id: str,
        forward_to: str,
        on_attempt: Callable[[Delivery, dict[str, Any]], None],
        on_message: Callable[[str], None],
    ) -> None:
        """`on_message` gets messages for a person, for example about an outage."""
        self._client = client
        self._sender = sender
        self._path = f"/sandbox/v1/listeners/{listener_id}"
        self._forward_to = forward_to
        self._on_attempt = on_attempt
        self._on_message = on_message
        self._open: dict[tuple[str, int], Delivery] = {}
        self._late: dict[tuple[str, int], Delivery] = {}
        """Posted deliveries whose leases had passed to a claim whose response has not arrived yet."""
        self._unreported: deque[Delivery] = deque()
        self._posts: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._stopping = asyncio.Event()
        self._is_down = False
        self._http: httpx.AsyncClient | None = None

    def stop(self) -> None:
        """Stop claiming. `run` returns when the calls in progress have ended and are reported."""
        self._stopping.set()

    async def run(self) -> None:
        """Forward deliveries until `stop`. Raises Failure if the sandbox refuses, for example because the key was revoked."""
        try:
            async with self._client.open_async() as self._http, asyncio.TaskGroup() as group:
                claiming = group.create_task(self._claim_forever(group))
                reporting = group.create_task(self._report_forever())
                await self._stopping.wait()
                claiming.cancel()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_SECONDS):
                        await self._until(lambda: all(delivery.result is not None for delivery in self._open.values()))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_SECONDS):
                        await self._until(lambda: not self._unreported and not self._open)
                for task in self._posts:
                    task.cancel()
                reporting.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _claim_forever(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._until(lambda: len(self._open) < MAX_OPEN and not self._has_stale())
            wanted = {"max": MAX_OPEN - len(self._open), "wait_seconds": _WAIT_SECONDS}
            sent_at, claimed = await self._call("claim", json.dumps(wanted))
            # Counted from before the request was sent, so the lease cannot end earlier, however late the response is read.
            ends_at = sent_at + claimed["lease_ends_after_ms"] / 1000
            for delivery in claimed["data"]:
                self._accept(group, Delivery(delivery, ends_at))
            await self._notify()

    def _accept(self, group: asyncio.TaskGroup, new: Delivery) -> None:
        known = self._open.get(new.key) or self._late.pop(new.key, None)
        if known is not None and (known.claimed["manual"] or not new.claimed["manual"]):
            # It was posted, and its lease ended before the result was recorded. Report the result under the new lease.
            known.claimed, known.ends_at = new.claimed, new.ends_at
            if known.key not in self._open:
                self._open[known.key] = known
                self._unreported.append(known)
            return
        self._open[new.key] = new
        task = group.create_task(self._post(new))
        self._posts.add(task)
        task.add_done_callback(self._posts.discard)

    async def _post(self, delivery: Delivery) -> None:
        claimed = delivery.claimed
        await asyncio.sleep(claimed["delay_ms"] / 1000)
        for _ in range(claimed["copies"]):
            # Check as late as possible: the process may have been stopped since the claim.
            if time.clock_gettime(_CLOCK) > delivery.ends_at - _MAX_ATTEMPT_SECONDS:
                event = f"{claimed['event_type']} {claimed['event_id']}"
                self._on_message(f"{event} was claimed too long ago to send it now; it comes again.")
                await self._close(delivery)
                return
            delivery.result = await self._sender.send(self._forward_to, claimed["body"].encode(), claimed["headers"])
        delivery.ended_at = time.clock_gettime(_CLOCK)
        self._unreported.append(delivery)
        await self._notify()

    async def _report_forever(self) -> None:
        while True:
            await self._until(lambda: bool(self._unreported))
            batch, body = self._take_batch()
            leases = [delivery.claimed["lease"] for delivery in batch]
            _, reported = await self._call("results", body)
            for delivery, lease, found in zip(batch, leases, reported["data"], strict=True):
                if found["outcome"] == "late":
                    if delivery.claimed["lease"] != lease:  # meanwhile, another claim returned it
                        self._unreported.append(delivery)
                        continue
                    if len(self._late) >= _MAX_LATE:
                        self._late.pop(next(iter(self._late)))
                    self._late[delivery.key] = delivery
                self._on_attempt(delivery, found)
                await self._close(delivery)

    def _take_batch(self) -> tuple[list[Delivery], str]:
        """Take the oldest results that fit into one request. Return them, and the request's body."""
        batch: list[Delivery] = []
        texts: list[str] = []
        size = 0
        while self._unreported and len(batch) < _MAX_REPORTED and size < _MAX_REPORT_BYTES:
            delivery = self._unreported.popleft()
            batch.append(delivery)
            texts.append(_result(delivery))
            size += len(texts[-1])
        return batch, f'{{"results": [{", ".join(texts)}]}}'

    async def _close(self, delivery: Delivery) -> None:
        if self._open.get(delivery.key) is delivery:
            del self._open[delivery.key]
        await self._notify()

    def _has_stale(self) -> bool:
        before = time.clock_gettime(_CLOCK) - _STALE_SECONDS
        return any(delivery.result is not None and delivery.ended_at < before for delivery in self._open.values())

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _call(self, operation: str, body: str) -> tuple[float, Any]:
        """Repeat a request until the sandbox has served it. Return the time of the last try, and the response.

        Raises Failure if the sandbox refuses it.
        """

        async def call() -> tuple[float, Any]:
            assert self._http is not None, "called by `run` only"
            sent_at = time.clock_gettime(_CLOCK)
            try:
                headers = {"Content-Type": "application/json"}
                response = await self._http.post(f"{self._path}/{operation}", content=body, headers=headers)
            except httpx.TransportError as error:
                raise _OutageError(str(error) or type(error).__name__) from None
            if response.status_code >= 500 or response.status_code in _TRY_AGAIN:
                raise _OutageError(f"it responds with {response.status_code}")
            if not response.is_success:
                raise failed_response(response)
            if self._is_down:
                self._is_down = False
                self._on_message("Connected again.")
            return sent_at, response.json()

        return await backoff(0.1, _MAX_PAUSE, (_OutageError,), self._begin_outage)(call)

    def _begin_outage(self, error: BaseException) -> None:
        if not self._is_down and not self._stopping.is_set():
            self._is_down = True
            self._on_message(f"The sandbox cannot be reached ({error}). Trying again; results are kept until then.")


def _result(delivery: Delivery) -> str:
    result = delivery.result
    assert result is not None, "only posted deliveries are reported"
    timings = result.timings
    return json.dumps(
        {
            "lease": delivery.claimed["lease"],
            "status": result.status,
            "headers": result.response_headers,
            "body": result.response_body,
            "error": result.error,
            "error_class": result.error_class,
            "timings": {name: getattr(timings, name) for name in ("dns_ms", "connect_ms", "tls_ms", "first_byte_ms")},
            "duration_ms": result.duration_ms,
        }
    )
