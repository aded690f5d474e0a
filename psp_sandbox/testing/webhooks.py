"""The requests that a test's webhook endpoint received."""

import base64
import binascii
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

_TOLERANCE_SECONDS: Final = 300
_HOST_OFFSET: Final = time.time() - time.monotonic()
"""A test may freeze this process's clock, but never the monotonic one."""
_EXPECT_SECONDS: Final = 10.0
_FIRST_PAUSE_SECONDS: Final = 0.01
_MAX_PAUSE_SECONDS: Final = 0.2
GATE_SECONDS: Final = 0.01
"""How often a webhook asks whether it may reach its application."""


@dataclass(slots=True, eq=False)
class Received:
    """One request that an endpoint received, and its answer. Names of headers are lowercase."""

    headers: dict[str, str]
    body: bytes
    problem: str | None
    """Why it is not a valid webhook, or None."""
    event: dict[str, Any]
    """The parsed body; empty unless it is valid."""
    status: int | None = None
    """The endpoint's answer; None until it answers."""
    answer: bytes = b""
    at: float = field(default_factory=lambda: host_seconds())
    """When it arrived, in seconds of the host's time."""
    answered_at: float | None = None
    """When an application had handled it."""


def host_seconds() -> float:
    """Return the host's time, even while this process's clock is frozen."""
    return time.monotonic() + _HOST_OFFSET


@dataclass(frozen=True, slots=True)
class Webhook:
    """An event that arrived with a valid signature, however many times it arrived."""

    id: str
    type: str
    timestamp: datetime
    """When it happened, in the merchant's time."""
    previous_status: str | None
    data: dict[str, Any]
    """The payout at that moment, or what else the event is about. Money is a string, as on the wire."""
    received: tuple[Received, ...] = field(repr=False)
    """Every time that it arrived, in order."""

    @property
    def version(self) -> int:
        """The version of the payout; 0 if the event is about something else."""
        return int(self.data.get("version", 0))

    @property
    def payout_id(self) -> str | None:
        """The payout's id, or None if the event is about something else."""
        return str(self.data["id"]) if self.type.startswith("payout.") else None


def why_invalid(secret: str, headers: dict[str, str], body: bytes, application_time: float | None = None) -> str | None:
    """Return why a request is not a valid webhook, or None if it is. Names of headers are lowercase.

    Its timestamp may be compared with the host's time, with this process's, which a test can freeze, or with an application's.
    """
    try:
        sent = int(headers["webhook-timestamp"][:13])  # cut, because arithmetic fails with hundreds of digits
        signed = f"{headers['webhook-id']}.{sent}.".encode() + body
        given = headers["webhook-signature"].split()
    except KeyError as missing:
        return f"the header {missing.args[0]} is missing"
    except ValueError:
        return f"webhook-timestamp is not a number: {headers['webhook-timestamp']!r}"
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"))
    except binascii.Error:
        return "the secret is not whsec_ and base64"
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    if not any(hmac.compare_digest(expected.encode(), one.encode()) for one in given):
        return "no signature matches"
    times = (time.time(), host_seconds(), application_time)
    off = min(abs(now - sent) for now in times if now is not None)
    if off > _TOLERANCE_SECONDS:
        return f"the timestamp is {off:.0f} s off"
    return None


class Inbox:
    """The requests that one test's endpoints received, in order. Thread-safe."""

    def __init__(self) -> None:
        self._received: list[Received] = []
        self._lock = threading.Lock()
        self.on_answer: Callable[[Received], bool] | None = None
        """Called when an application has handled a webhook, before it answers. If it returns True, the answer is lost."""
        self.application_time: Callable[[], float | None] = lambda: None
        """The wall clock of an application that follows the merchant's clock."""
        self.gate: Callable[[Received], bool] | None = None
        """Says whether a webhook may reach its application now. One that may not asks again; until then it has not arrived."""

    def add(self, secret: str | None, headers: Iterable[tuple[str, str]], body: bytes) -> Received:
        """Record a request when it arrives. Set `status` and `answer` of the result before the answer is sent.

        If `secret` is None, its signature is not checked.
        """
        received = self.read(secret, headers, body)
        while (gate := self.gate) is not None and not gate(received):
            time.sleep(GATE_SECONDS)
        return self.record(received)

    def record(self, received: Received) -> Received:
        """Record a request that `read` has returned, and return it."""
        received.at = host_seconds()
        with self._lock:
            self._received.append(received)
        return received

    def read(self, secret: str | None, headers: Iterable[tuple[str, str]], body: bytes) -> Received:
        """Verify a request and return it."""
        named = {name.lower(): value for name, value in headers}
        problem = None if secret is None else why_invalid(secret, named, body, self.application_time())
        event: dict[str, Any] = {}
        if problem is None:
            try:
                event = _read_event(body)
            except (ValueError, KeyError, TypeError):
                problem = "the body is not an event"
        return Received(named, body, problem, event)

    def answered(self, received: Received, status: int) -> int:
        """Record an application's answer, and return the status to send: 503 if the answer is to be lost."""
        received.status = status
        received.answered_at = host_seconds()
        return 503 if self.on_answer is not None and self.on_answer(received) else status

    def all(self) -> list[Received]:
        """Return everything so far, in order of arrival."""
        with self._lock:
            return list(self._received)


def _read_event(body: bytes) -> dict[str, Any]:
    event = json.loads(body)
    datetime.fromisoformat(event["timestamp"])
    if not (isinstance(event["id"], str) and isinstance(event["type"], str) and isinstance(event["data"], dict)):
        raise TypeError
    found: dict[str, Any] = event
    return found


class Webhooks(Sequence[Webhook]):
    """The verified webhooks that a test's endpoint received, each event once, those of a payout ordered by its version.

    What counts is what arrived in this process: at the plugin's own endpoint or, after `live_app`, at the app. So the bytes are
    the ones that were sent, and nothing else has to listen. Requests whose signature is invalid are not included; see
    `received`.

    Reading waits until all due deliveries have been attempted, so there is nothing to wait for in between.
    """

    def __init__(
        self, inbox: Inbox, settle: Callable[[], None], payout_id: str | None = None, *, can_change: Callable[[], bool]
    ) -> None:
        self._inbox = inbox
        self._settle = settle
        self._payout_id = payout_id
        self._can_change = can_change
        """Whether events can still arrive when all due work is done: if a clock or an application runs."""

    def __call__(self, payout: Any) -> "Webhooks":
        """Return the webhooks of one payout: a payout or its id."""
        return Webhooks(self._inbox, self._settle, payout_id_of(payout), can_change=self._can_change)

    @property
    def types(self) -> list[str]:
        """Their event types, in order."""
        return [webhook.type for webhook in self._read()]

    @property
    def received(self) -> list[Received]:
        """Every request that arrived, in order of arrival: also repeated ones and, unless of one payout, invalid ones."""
        self._settle()
        return [one for one in self._inbox.all() if self._payout_id in (None, one.event.get("data", {}).get("id"))]

    def expect(self, event_type: str, *, times: int | None = None, payout: Any = None, timeout: float | None = None) -> Webhook:
        """Wait for an event of this type and return the last one. `timeout` is in seconds of real time.

        By default it is 10. It is 0 if the clock is frozen and the test has no application: then all that is due is done, and
        nothing more arrives before the test itself does something.

        With `times`, at least 1, there must be exactly so many different ones. `payout` is a payout or its id. Repeated
        deliveries of one event count once. Raises AssertionError, which says what arrived instead, and ValueError if `times` is
        0 or `event_type` is not an event type.
        """
        __tracebackhide__ = True
        if "." not in event_type:
            raise ValueError(f"{event_type!r} is not an event type. Event types look like payout.succeeded.")
        if times == 0:
            raise ValueError("times=0 cannot be expected. Assert that the type is not in psp.webhooks.types.")
        wanted = self if payout is None else self(payout)
        seconds = timeout if timeout is not None else _EXPECT_SECONDS if self._can_change() else 0.0
        deadline = time.monotonic() + seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            is_last = time.monotonic() >= deadline
            found = [webhook for webhook in wanted._read() if webhook.type == event_type]
            if found and (times is None or len(found) == times):
                return found[-1]
            if is_last or len(found) > (times or len(found)):
                raise AssertionError(wanted._explain(event_type, times, len(found), seconds))
            time.sleep(pause)
            pause = min(pause * 1.5, _MAX_PAUSE_SECONDS)

    def __len__(self) -> int:
        return len(self._read())

    def __iter__(self) -> Iterator[Webhook]:
        return iter(self._read())

    def __getitem__(self, index: Any) -> Any:
        return self._read()[index]

    def __repr__(self) -> str:
        return f"<webhooks {self._now()}>"

    def _read(self) -> list[Webhook]:
        self._settle()
        return self._now()

    def _now(self) -> list[Webhook]:
        return [webhook for webhook in events_of(self._inbox.all()) if self._payout_id in (None, webhook.payout_id)]

    def _explain(self, event_type: str, times: int | None, found: int, seconds: float) -> str:
        wanted = f"{event_type} once" if times == 1 else event_type if times is None else f"{event_type} {times} times"
        of = f" of payout {self._payout_id}" if self._payout_id else ""
        lines = [f"expected {wanted}{of}, but it arrived {found} times" + (f" within {seconds:g} s" if seconds else "")]
        if not self._can_change() and found < (times or 1):
            lines.append("  The clock is frozen, and nothing more is due. To let time pass, call psp.advance.")
        webhooks = self._now()
        lines += [f"  arrived: {webhook.type} (version {webhook.version})" for webhook in webhooks[-20:]] or [
            "  nothing arrived"
        ]
        lines += [f"  not counted: {one.problem}" for one in self._inbox.all() if one.problem is not None][-5:]
        return "\n".join(lines)


def events_of(received: Iterable[Received]) -> list[Webhook]:
    """Return the events in valid requests: each once, in order of first arrival, but those of one payout by version."""
    copies: dict[str, list[Received]] = {}
    for one in received:
        if one.problem is None:
            copies.setdefault(one.event["id"], []).append(one)
    webhooks = [_webhook(all_copies) for all_copies in copies.values()]
    groups: dict[str, list[Webhook]] = {}
    for webhook in webhooks:
        groups.setdefault(webhook.payout_id or webhook.id, []).append(webhook)
    return [webhook for group in groups.values() for webhook in sorted(group, key=lambda one: one.version)]


def _webhook(copies: list[Received]) -> Webhook:
    event = copies[0].event
    at = datetime.fromisoformat(event["timestamp"])
    return Webhook(event["id"], event["type"], at, event.get("previous_status"), event["data"], tuple(copies))


def payout_id_of(payout: Any) -> str:
    """Return the id of a payout, which may be given as its id. Raises TypeError."""
    found = getattr(payout, "id", payout)
    if not isinstance(found, str):
        raise TypeError(f"expected a payout or its id, not {payout!r}")
    return found
