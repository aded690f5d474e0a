"""One merchant's unit of work, decided in memory: what was claimed comes in, what is to be written gathers here. Pure.

Commands are decided in the order of their arrival. Each checks first; `transfer` may refuse, and behind it nothing may
fail, so that a refused command leaves no trace in the unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Final, Protocol

import msgspec

from sandbox.domain.clock import RUNNING, Clock, render
from sandbox.domain.errors import Problem
from sandbox.domain.ids import IdSource
from sandbox.domain.ledger import GIVE_BACK, PAY_OUT, Movement, Posted, Refused, Transfer, post
from sandbox.domain.payout import Payout, PayoutRow
from sandbox.domain.payout_states import (
    FAILED,
    FAILURES,
    PENDING,
    PROCESSING,
    REJECTED,
    RETRY,
    RETURNED,
    SUCCESS,
    TRANSITIONS,
    legal_from,
)
from sandbox.domain.scenario_engine import Catalogue, Scenario
from sandbox.domain.user import DEBITED, UserRow, UserTransaction, feed_rows, place_of

IDS_PER_COMMAND: Final = 512
"""Ids reserved for one payout's changes: each has an event, two transfers at most, and a delivery for each of 16 endpoints;
an own scenario of 20 steps may be taken at once."""

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's key, and the SHA-256 of the method, path and body that it came with."""

    key: str
    fingerprint: bytes
    keeps_refusals: bool = True
    """Whether a 404, 409 or 422 is kept as well; a bank's callback that was refused may come again."""
    lapses: bool = True
    """Whether it is forgotten after a day of the merchant's time."""
    waits: bool = False
    """Whether a second request that comes while the first one runs waits for its answer; else it is refused at once."""


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Whose request it is, and what its problems, logs and timelines need to know of it."""

    merchant_id: str
    """Empty for the operator's requests, which belong to no merchant."""
    key: IdempotencyKey | None
    request_id: str
    path: str
    public_url: str
    actor: str | None = None
    """The id of the API key that it came with; None where no merchant's key was used."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command answers: an HTTP status and body, and the new object's path."""

    status: int
    body: bytes
    location: str | None = None
    replayed: bool = False
    problem_headers: tuple[tuple[str, str], ...] = ()
    provisional: bool = False
    """More is to come of the request, in transactions of its own: the key keeps the body as how far it has come."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An idempotency key's stored answer; or, with the status UNFINISHED, how far its request has come."""

    fingerprint: bytes
    status: int
    body: bytes
    location: str | None
    lapses: bool = True


@dataclass(frozen=True, slots=True)
class Subscription:
    """A webhook endpoint as far as new events need to know it. `event_types` may end in `*`."""

    endpoint_id: str
    event_types: tuple[str, ...]
    enabled: bool

    def wants(self, event_type: str) -> bool:
        """Whether the endpoint subscribes to the type."""
        return any(
            event_type.startswith(pattern[:-1]) if pattern.endswith("*") else event_type == pattern
            for pattern in self.event_types
        )


@dataclass(frozen=True, slots=True)
class Event:
    """An event to be written; for a payout it is the timeline's row as well."""

    id: str
    type: str
    body: str
    payout_id: str | None
    change: int | None
    from_status: str | None
    to_status: str | None
    cause: str
    scenario: str | None
    step: int | None
    transfer_id: str | None
    request_id: str
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery to be written: due at once, or kept for a disabled endpoint."""

    id: str
    event_id: str
    endpoint_id: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class Needs:
    """What a command needs to see."""

    payout_ids: Sequence[str] = ()
    references: Sequence[str] = ()
    """Merchant references that it wants to take."""
    user_ids: Sequence[str] = ()
    """Users besides those of its payouts, which come with them."""
    weight: int = 1
    """How many payouts it may touch, for the bound of a batch."""


NO_NEEDS: Final = Needs()


class Command(Protocol):
    """Something that a merchant asks for; it is decided in a unit of work."""

    @property
    def context(self) -> RequestContext:
        """The request."""

    @property
    def needs(self) -> Needs:
        """What it needs to see."""

    def decide(self, unit: "UnitOfWork") -> CommandResult:
        """Do it in memory. Raises Problem, before anything is changed, to refuse."""


class Effect(Enum):
    """What a unit of work did that other parts of the process have to know."""

    CALLERS_CHANGED = auto()
    """What requests are checked against: the merchant's rate limit or faults."""
    WORLD_RESET = auto()
    WORLD_RESTORED = auto()
    BULK_CREDIT_WAITS = auto()
    WORK_DUE = auto()
    """Work that was there before may be due now: a delivery that is resent, a clock that runs again."""


@dataclass(slots=True)
class UnitOfWork:
    """All that one transaction has claimed, and all that it will write."""

    merchant_id: str
    now: datetime
    ids: IdSource
    default_scenario: str
    catalogue: Catalogue
    """The built-in scenarios."""
    balances: dict[str, Decimal] = field(default_factory=dict)
    clock: Clock = RUNNING
    approvals_expire_after: timedelta | None = None
    """How long a payout waits for approval; None for as long as it takes."""
    review_threshold: Decimal | None = None
    """The amount from which on payouts are reviewed; None for never."""
    balance_version: int = 0
    subscriptions: Sequence[Subscription] = ()
    payouts: dict[str, PayoutRow] = field(default_factory=dict)
    references: set[str] = field(default_factory=set)
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    users: dict[str, UserRow] = field(default_factory=dict)
    rules: Sequence[Scenario] = ()
    """The merchant's own scenarios, in their order."""

    due: Sequence[PayoutRow] = ()
    """Payouts whose step is due, the earliest first."""
    more_due: bool = False
    """Whether there may be more of them."""

    created: list[PayoutRow] = field(default_factory=list)
    changed: dict[str, PayoutRow] = field(default_factory=dict)
    impossible: dict[str, str] = field(default_factory=dict)
    """Payouts whose next step could not be taken, and why."""
    posted: list[Posted] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    new_keys: dict[str, KeyRecord] = field(default_factory=dict)
    changed_users: dict[str, UserRow] = field(default_factory=dict)
    user_transactions: list[UserTransaction] = field(default_factory=list)
    credited: dict[str, int] = field(default_factory=dict)
    """Versions of users who were credited many at once, and are written already."""
    effects: set[Effect] = field(default_factory=set)
    """What it did that other parts of the process have to know, beyond what it writes."""
    is_quiet: bool = False
    """Whether no worker is woken for what it leaves to do: an advance of the clock does that itself."""
    now_text: str = ""
    _wanted: dict[str, list[Subscription]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now_text = render(self.now)

    def move_to(self, now: datetime, clock: Clock) -> None:
        """Go on at another time of the merchant's, to which its clock was set. Nothing may have been decided before."""
        self.now, self.clock, self.now_text = now, clock, render(now)

    def transfer(
        self, movement: Movement, amount: Decimal, payout_id: str | None, description: str, user_id: str | None = None
    ) -> str:
        """Post a transfer and return its id; `user_id` says whose wallet it moves, if it moves one.

        Raises INSUFFICIENT_BALANCE, having changed nothing. A wallet has no lower bound here: whoever asks for money out of
        it looks first, and what is taken back may leave it below zero.
        """
        transfer = Transfer(self.ids.next(), movement, amount, payout_id, description, user_id)
        result = post(self.balances, transfer)
        if isinstance(result, Refused):
            raise Problem(
                "INSUFFICIENT_BALANCE",
                f"The amount is {amount}, but the merchant's {result.account.lower()} balance is {result.balance}; "
                "top it up, or send a smaller amount.",
            )
        self.posted.append(result)
        return transfer.id

    def open_payout(self, row: PayoutRow, status: str, cause: str, actor: str | None) -> None:
        """Create a payout in `status`, locking its funds. Raises INSUFFICIENT_BALANCE, having changed nothing."""
        change = TRANSITIONS[None, status]
        if change.movement is None:
            raise ValueError(f"a payout cannot begin in {status}")
        payout = row.payout
        self._check_wallet(payout, None, status)
        transfer_id = self.transfer(change.movement, payout.amount, payout.id, payout.merchant_reference)
        # From here on nothing may fail.
        payout.status = status
        self._move_wallet(payout, None, status)
        self.payouts[payout.id] = row
        self.references.add(payout.merchant_reference)
        self.created.append(row)
        self._record(row, change.event, None, cause, None, transfer_id, actor)

    def move(
        self,
        row: PayoutRow,
        status: str,
        cause: str,
        *,
        request: RequestContext | None = None,
        step: int | None = None,
        scenario: Scenario | None = None,
        failure_code: str | None = None,
        failure_reason: str | None = None,
        psp_reference: str | None = None,
    ) -> None:
        """Take a payout to `status` with all that belongs to it: money, timeline, event and deliveries.

        `request` is the one that asks for the change; without one, the change follows from the request before.
        `scenario` is what it follows from now on, if that changes.

        Raises INVALID_STATE if the table forbids it, INSUFFICIENT_BALANCE if funds must be locked anew and are not
        there; in both cases nothing has changed.
        """
        payout = row.payout
        source = payout.status
        change = TRANSITIONS.get((source, status))
        if change is None:
            legal = legal_from(source)
            raise Problem(
                "INVALID_STATE",
                f"A payout in {source} cannot go to {status}; legal from {source}: {', '.join(legal) or 'nothing'}.",
            )
        self._check_wallet(payout, source, status)
        transfer_id = None
        if change.movement is not None:
            transfer_id = self.transfer(change.movement, payout.amount, payout.id, payout.merchant_reference)
        # From here on nothing may fail.
        payout.status = status
        if scenario is not None:
            row.take(scenario)
        self._move_wallet(payout, source, status)
        payout.updated_at = self.now_text
        if status == PROCESSING and source in (PENDING, RETRY):
            payout.attempts += 1
        if status in (FAILED, RETURNED) or (status == REJECTED and failure_code is not None):
            payout.failure_code = failure_code or ("RETURNED_BY_BANK" if status == RETURNED else "BANK_REJECTED")
            payout.failure_reason = failure_reason or FAILURES.get(payout.failure_code)
        elif status in (PENDING, SUCCESS):
            payout.failure_code = payout.failure_reason = None
        if psp_reference is not None:
            payout.psp_reference = psp_reference
        elif status == SUCCESS and payout.psp_reference is None:
            payout.psp_reference = f"PSP{self.now:%Y%m%d}{self.ids.next()[-12:].upper()}"
        if change.movement is not None and status != PENDING:
            payout.processed_at = self.now_text
            row.processed_at = self.now
        elif status == PENDING:
            payout.processed_at = row.processed_at = None
        self.changed[payout.id] = row
        if request is not None:
            row.request_id = request.request_id
        self._record(row, change.event, source, cause, step, transfer_id, None if request is None else request.actor)

    def _check_wallet(self, payout: Payout, source: str | None, status: str) -> None:
        """Refuse a change that takes more out of the user's wallet, or holds more in it, than there is."""
        before, after = place_of(source), place_of(status)
        if payout.user_id is None or before == after or after is None:
            return
        user = self.users[payout.user_id]
        # What is approved was held by its own request; what is asked for, or tried again, must be free.
        free = user.balance if before == "requested" else user.available
        if before not in DEBITED and free < payout.amount:
            raise Problem(
                "INSUFFICIENT_BALANCE",
                f"The amount is {payout.amount}, but the user's wallet has {free} available; request less, or credit the user.",
            )

    def _move_wallet(self, payout: Payout, source: str | None, status: str) -> None:
        """Do in the user's wallet what a payout's change means there; `_check_wallet` has let it through."""
        before, after = place_of(source), place_of(status)
        if payout.user_id is None or before == after:
            return
        user = self.users[payout.user_id]
        if (before in DEBITED) != (after in DEBITED):
            movement = PAY_OUT if after in DEBITED else GIVE_BACK
            self.transfer(movement, payout.amount, payout.id, payout.merchant_reference, user.id)
        if before is not None:
            setattr(user, before, getattr(user, before) - payout.amount)
        if after is not None:
            setattr(user, after, getattr(user, after) + payout.amount)
        for kind, amount in feed_rows(before, after, payout.amount):
            self.user_transactions.append(
                UserTransaction(self.ids.next(), user.id, kind, amount, payout.merchant_reference, None, payout.id)
            )
        self.touch_user(user)

    def touch_user(self, user: UserRow) -> None:
        """Say that a user's sums were changed: they will be written, and what is cached of them dropped."""
        user.version += 1
        self.changed_users[user.id] = user

    def _record(
        self,
        row: PayoutRow,
        event_type: str,
        source: str | None,
        cause: str,
        step: int | None,
        transfer_id: str | None,
        actor: str | None,
    ) -> None:
        payout = row.payout
        payout.version += 1
        event_id = self.ids.next()
        event = Event(
            id=event_id,
            type=event_type,
            body=self.event_body(event_id, event_type, source, _encode(payout)),
            payout_id=payout.id,
            change=payout.version - 1,
            from_status=source,
            to_status=payout.status,
            cause=cause,
            scenario=payout.scenario,
            step=step,
            transfer_id=transfer_id,
            request_id=row.request_id,
            actor=actor,
        )
        self.emit(event)

    def emit(self, event: Event) -> None:
        """Write an event, and a delivery to every endpoint that subscribes to it."""
        self.events.append(event)
        wanted = self._wanted.get(event.type)
        if wanted is None:
            wanted = self._wanted[event.type] = [s for s in self.subscriptions if s.wants(event.type)]
        for subscription in wanted:
            self.deliveries.append(Delivery(self.ids.next(), event.id, subscription.endpoint_id, subscription.enabled))

    def event_body(self, event_id: str, event_type: str, previous_status: str | None, data: bytes) -> str:
        """The body of an event that happens now, as webhooks carry it; `data` is JSON."""
        previous = "null" if previous_status is None else f'"{previous_status}"'
        return (
            f'{{"id":"{event_id}","type":"{event_type}","timestamp":"{self.now_text}","livemode":false,'
            f'"previous_status":{previous},"data":{data.decode()}}}'
        )

    @property
    def approval_due(self) -> datetime | None:
        """When the approval expires of a payout that begins to wait for it now."""
        return None if self.approvals_expire_after is None else self.now + self.approvals_expire_after

    @property
    def next_due(self) -> datetime | None:
        """The earliest time, the merchant's, at which a payout of this unit has its next step."""
        times = [row.due_at for row in (*self.created, *self.changed.values()) if row.due_at is not None]
        return min(times, default=None)
