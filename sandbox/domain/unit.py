"""A merchant's unit of work: the rows that one transaction has claimed, and the rows that it will write. Pure.

Commands run in order of arrival. Each one runs its checks first, then calls `transfer`, which may refuse. After that nothing
may fail, so a refused command leaves the unit unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Final, Protocol

import msgspec

from sandbox.domain import trace
from sandbox.domain.clock import RUNNING, Clock, render
from sandbox.domain.errors import Problem
from sandbox.domain.event_filters import matches
from sandbox.domain.events import NewDelivery, NewEvent, Subscription
from sandbox.domain.failure_codes import DEFAULT_FAILURE_CODES, FAILURES
from sandbox.domain.ids import IdSource
from sandbox.domain.ledger import PAY_OUT, PAYOUT_REVERSAL, Movement, Posted, Refused, Transfer, post
from sandbox.domain.payout import Payout, PayoutRow
from sandbox.domain.payout_states import PENDING, PROCESSING, REJECTED, RETRY, SUCCESS, TRANSITIONS, next_states
from sandbox.domain.scenario_engine import Catalogue, Scenario
from sandbox.domain.user import DEBITED_FIELDS, UserRow, UserTransaction, feed_rows, total_field_for

IDS_PER_PAYOUT: Final = 512
"""Ids reserved for a payout's changes. A change has one event, at most two transfers and one delivery for each of up to 16
endpoints, and all 20 steps of a merchant's own scenario can be due at the same time."""

_encode: Final = msgspec.json.Encoder().encode


class IdempotencyKey(msgspec.Struct, frozen=True):
    """The caller's key, and the SHA-256 of the request's method, path and body."""

    key: str
    fingerprint: bytes
    stores_refusals: bool = True
    """Whether a 404, 409 or 422 is stored too. False for bank callbacks, which may retry after a refusal."""
    expires: bool = True
    """Whether the key expires after a day of the merchant's time."""
    waits: bool = False
    """Whether a second request with this key waits for the first one's response instead of being rejected."""


class RequestContext(msgspec.Struct, frozen=True):
    """The merchant that sends the request, and the details that problems, logs and timelines show."""

    merchant_id: str
    """Empty for the operator's requests, which belong to no merchant."""
    key: IdempotencyKey | None
    request_id: str
    path: str
    public_url: str
    actor: str | None = None
    """The id of the merchant's API key; None if the request used none."""
    traceparent: str | None = None
    """As the caller sent it; None if the trace is derived from the request id."""
    body_bytes: int = 0
    """The size of the request's body. Large ones take longer to execute."""


class CommandResult(msgspec.Struct, frozen=True):
    """A command's response: HTTP status, body, and the path of the object it created."""

    status: int
    body: bytes
    location: str | None = None
    replayed: bool = False
    problem_headers: tuple[tuple[str, str], ...] = ()
    provisional: bool = False
    """The request continues in further transactions: store `body` under the key as a checkpoint."""


class KeyRecord(msgspec.Struct, frozen=True):
    """The record stored under an idempotency key: the response, or the checkpoint of a running request (status UNFINISHED)."""

    fingerprint: bytes
    status: int
    body: bytes
    location: str | None
    expires: bool = True


class Needs(msgspec.Struct, frozen=True):
    """The rows to claim for a command."""

    payout_ids: Sequence[str] = ()
    references: Sequence[str] = ()
    """Merchant references for new payouts."""
    psp_references: Sequence[str] = ()
    """References that a bank gives to payouts."""
    user_ids: Sequence[str] = ()
    """Users other than those of the payouts, which are claimed with them."""
    weight: int = 1
    """How many payouts it may touch; counts towards the batch limit."""


NO_NEEDS: Final = Needs()


class Command(Protocol):
    """A merchant's request that is executed inside a unit of work."""

    @property
    def context(self) -> RequestContext:
        """The request that the command comes from."""

    @property
    def needs(self) -> Needs:
        """The rows to claim before `decide`."""

    def decide(self, unit: "UnitOfWork") -> CommandResult:
        """Make the changes in memory. Raises Problem to refuse, before changing anything."""


class Effect(Enum):
    """A side effect of a unit of work that other parts of the process must react to."""

    REQUEST_POLICY_CHANGED = auto()
    """The merchant's rate limit or faults changed; every request is checked against them."""
    WORLD_RESET = auto()
    WORLD_RESTORED = auto()
    BULK_CREDIT_PENDING = auto()
    WORK_DUE = auto()
    """Existing work may have become due: a delivery was resent, or a clock was unfrozen."""


@dataclass(slots=True)
class UnitOfWork:
    """Everything that one transaction has claimed, and everything that it will write."""

    merchant_id: str
    now: datetime
    ids: IdSource
    default_scenario: str
    catalogue: Catalogue
    """The built-in scenarios."""

    # Claimed: the merchant's state when the transaction locked it.
    balances: dict[str, Decimal] = field(default_factory=dict)
    clock: Clock = RUNNING
    approvals_expire_after: timedelta | None = None
    """How long a payout waits for approval; None means without limit."""
    review_threshold: Decimal | None = None
    """Payouts of this amount or more are reviewed; None means no reviews."""
    balance_version: int = 0
    subscriptions: Sequence[Subscription] = ()
    payouts: dict[str, PayoutRow] = field(default_factory=dict)
    references: set[str] = field(default_factory=set)
    psp_references: set[tuple[str, str]] = field(default_factory=set)
    """Of the claimed PSP references, those that payouts have: (reference, the payout's id)."""
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    users: dict[str, UserRow] = field(default_factory=dict)
    custom_scenarios: Sequence[Scenario] = ()
    """The merchant's own scenarios, in order."""
    due: Sequence[PayoutRow] = ()
    """Payouts with a step that is due, earliest first."""
    more_due: bool = False
    """Whether more payouts may be due than `due` holds."""

    # Decided: the rows that the transaction will write.
    created: list[PayoutRow] = field(default_factory=list)
    changed: dict[str, PayoutRow] = field(default_factory=dict)
    stuck: dict[str, str] = field(default_factory=dict)
    """Payouts whose next step failed: id → error."""
    posted: list[Posted] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)
    deliveries: list[NewDelivery] = field(default_factory=list)
    new_keys: dict[str, KeyRecord] = field(default_factory=dict)
    changed_users: dict[str, UserRow] = field(default_factory=dict)
    user_transactions: list[UserTransaction] = field(default_factory=list)
    credited: dict[str, int] = field(default_factory=dict)
    """Users that a bulk credit has already written: id → new version."""
    effects: set[Effect] = field(default_factory=set)
    suppress_wakeups: bool = False
    """Do not wake workers for work that is due after this unit: a clock advance does that work itself."""

    now_text: str = ""
    _subscribers: dict[str, list[Subscription]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now_text = render(self.now)

    def set_time(self, now: datetime, clock: Clock) -> None:
        """Continue at another time, after the merchant's clock was set. Call it before anything is decided."""
        self.now, self.clock, self.now_text = now, clock, render(now)

    @property
    def approval_expires_at(self) -> datetime | None:
        """When a payout that starts waiting for approval now will expire; None means never."""
        return None if self.approvals_expire_after is None else self.now + self.approvals_expire_after

    @property
    def next_due(self) -> datetime | None:
        """The earliest time, in the merchant's time, at which a payout of this unit has a step due."""
        times = [row.due_at for row in (*self.created, *self.changed.values()) if row.due_at is not None]
        return min(times, default=None)

    def create_payout(self, row: PayoutRow, status: str, cause: str, actor: str | None) -> None:
        """Create a payout in `status` and lock its funds, unless it is FAILED. Raises INSUFFICIENT_BALANCE, having changed
        nothing.
        """
        change = TRANSITIONS[None, status]
        payout = row.payout
        self._check_wallet(payout, None, status)
        transfer_id = None
        if change.movement is not None:
            transfer_id = self.transfer(change.movement, payout.amount, payout.id, payout.merchant_reference)
        else:
            payout.processed_at, row.processed_at = self.now_text, self.now
        # Nothing may fail from here on.
        payout.status = status
        self._update_wallet(payout, None, status)
        self.payouts[payout.id] = row
        self.references.add(payout.merchant_reference)
        self.created.append(row)
        self._record(row, change.event, None, cause, None, transfer_id, actor)

    def transition(
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
        """Change a payout's state to `status`: post the transfers, and add the timeline entry, event and deliveries.

        `request` is the request that asks for the change; None if the change follows from an earlier request.
        `scenario` replaces the payout's scenario.

        Raises INVALID_STATE if TRANSITIONS forbids the change, INSUFFICIENT_BALANCE if it locks funds again and there are
        not enough. In both cases, nothing has changed.
        """
        payout = row.payout
        source = payout.status
        change = TRANSITIONS.get((source, status))
        if change is None:
            raise Problem("INVALID_STATE", f"A payout in {source} cannot move to {status}. {next_states(source)}")
        self._check_wallet(payout, source, status)
        transfer_id = None
        if change.movement is not None:
            transfer_id = self.transfer(change.movement, payout.amount, payout.id, payout.merchant_reference)
        # Nothing may fail from here on.
        payout.status = status
        if scenario is not None:
            row.assign_scenario(scenario)
        self._update_wallet(payout, source, status)
        self._update_details(payout, source, failure_code, failure_reason, psp_reference)
        if status == PENDING:
            payout.processed_at = row.processed_at = None
        elif change.movement is not None:
            payout.processed_at, row.processed_at = self.now_text, self.now
        self.changed[payout.id] = row
        if request is not None:
            # A payout stays in the trace of the request that created it.
            row.traceparent = row.traceparent or trace.derive(row.request_id)
            row.request_id = request.request_id
        self._record(row, change.event, source, cause, step, transfer_id, None if request is None else request.actor)

    def transfer(
        self, movement: Movement, amount: Decimal, payout_id: str | None, description: str, user_id: str | None = None
    ) -> str:
        """Post a transfer and return its id. `user_id` is the wallet's owner, if the movement has a wallet.

        Raises INSUFFICIENT_BALANCE, having changed nothing. A wallet has no lower limit here: callers check it before they
        debit it, and a clawback may leave it negative.
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

    def touch_user(self, user: UserRow) -> None:
        """Mark a user's totals as changed, so that they are written and their cached copy is dropped."""
        user.version += 1
        self.changed_users[user.id] = user

    def emit(self, event: NewEvent) -> None:
        """Add an event, and a delivery for every endpoint whose event types and filters match."""
        self.events.append(event)
        subscribers = self._subscribers.get(event.type)
        if subscribers is None:
            subscribers = self._subscribers[event.type] = [s for s in self.subscriptions if s.includes(event.type)]
        for subscriber in subscribers:
            if subscriber.filters is None or matches(subscriber.filters, event.body):
                self.deliveries.append(NewDelivery(self.ids.next(), event.id, subscriber.endpoint_id, subscriber.enabled))

    def event_body(self, event_id: str, event_type: str, previous_status: str | None, data: bytes) -> str:
        """Return the webhook body of an event that happens now. `data` is JSON."""
        previous = "null" if previous_status is None else f'"{previous_status}"'
        return (
            f'{{"id":"{event_id}","type":"{event_type}","timestamp":"{self.now_text}","livemode":false,'
            f'"previous_status":{previous},"data":{data.decode()}}}'
        )

    def _check_wallet(self, payout: Payout, source: str | None, status: str) -> None:
        """Raise INSUFFICIENT_BALANCE if the user's wallet cannot cover the change."""
        before, after = total_field_for(source), total_field_for(status)
        if payout.user_id is None or before == after or after is None:
            return
        user = self.users[payout.user_id]
        # A requested payout already holds its amount. A new or reinitiated one needs it to be available.
        free = user.balance if before == "requested" else user.available
        if before not in DEBITED_FIELDS and free < payout.amount:
            raise Problem(
                "INSUFFICIENT_BALANCE",
                f"The amount is {payout.amount}, but the user's wallet has {free} available; request less, or credit the user.",
            )

    def _update_wallet(self, payout: Payout, source: str | None, status: str) -> None:
        """Apply a payout's change to the user's wallet. `_check_wallet` has passed, so this cannot fail."""
        before, after = total_field_for(source), total_field_for(status)
        if payout.user_id is None or before == after:
            return
        user = self.users[payout.user_id]
        if (before in DEBITED_FIELDS) != (after in DEBITED_FIELDS):
            movement = PAY_OUT if after in DEBITED_FIELDS else PAYOUT_REVERSAL
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

    def _update_details(
        self,
        payout: Payout,
        source: str,
        failure_code: str | None,
        failure_reason: str | None,
        psp_reference: str | None,
    ) -> None:
        """Set attempts, failure and PSP reference of a payout whose state has changed from `source`."""
        status = payout.status
        payout.updated_at = self.now_text
        if status == PROCESSING and source in (PENDING, RETRY):
            payout.attempts += 1
        if status in DEFAULT_FAILURE_CODES or (status == REJECTED and failure_code is not None):
            payout.failure_code = failure_code or DEFAULT_FAILURE_CODES[status]
            payout.failure_reason = failure_reason or FAILURES.get(payout.failure_code)
        elif status in (PENDING, SUCCESS):
            payout.failure_code = payout.failure_reason = None
        if psp_reference is not None:
            payout.psp_reference = psp_reference
            self.psp_references.add((psp_reference, payout.id))
        elif status == SUCCESS and payout.psp_reference is None:
            payout.psp_reference = f"PSP{self.now:%Y%m%d}{self.ids.next()[-12:].upper()}"

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
        """Increment the payout's version, and emit the event of the change."""
        payout = row.payout
        payout.version += 1
        event_id = self.ids.next()
        self.emit(
            NewEvent(
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
                traceparent=row.traceparent,
            )
        )
