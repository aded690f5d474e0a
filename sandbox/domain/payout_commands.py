"""What can be asked of payouts: create, approve, reject, cancel, reinitiate, or move one as its bank would. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec

from sandbox.domain import payout_states as states
from sandbox.domain.errors import Problem
from sandbox.domain.idempotency import say_stored
from sandbox.domain.payout import Payout, PayoutRow
from sandbox.domain.scenario_engine import resume_step
from sandbox.domain.scenario_selection import choose, choose_after_review, follow, scenario_of
from sandbox.domain.unit import CommandResult, Needs, RequestContext, UnitOfWork

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class NewPayout:
    """A validated request for a payout: codes are the directory's own, the amount has two places."""

    merchant_reference: str
    amount: Decimal
    dest_type: str
    bank_code: str | None
    wallet_code: str | None
    account_number: str
    account_title: str | None
    metadata: dict[str, str]
    requires_approval: bool
    user_id: str | None = None
    """The user who asked for it, whose wallet then pays it."""
    scenario_header: str | None = None
    """The request's X-Sandbox-Scenario."""


@dataclass(frozen=True, slots=True)
class CreatePayout:
    """Create one payout: 201 with the payout."""

    context: RequestContext
    new: NewPayout

    @property
    def needs(self) -> Needs:
        """The one reference that it takes."""
        return Needs(references=(self.new.merchant_reference,))

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Create it, or raise DUPLICATE_REFERENCE or INSUFFICIENT_BALANCE."""
        row = create(unit, self.new, self.context)
        return CommandResult(201, _encode(row.payout), f"/api/v1/payouts/{row.payout.id}")


@dataclass(frozen=True, slots=True)
class CreatePayouts:
    """Create many under one key, each standing or falling alone: 200 with a result for each, in order.

    An item is a validated payout, or the problem that it already has.
    """

    context: RequestContext
    items: Sequence[NewPayout | Problem]

    @property
    def needs(self) -> Needs:
        """All the references that they take."""
        references = [item.merchant_reference for item in self.items if isinstance(item, NewPayout)]
        return Needs(references=references, weight=len(self.items))

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Create what can be created. Raises VALIDATION_ERROR for an unknown X-Sandbox-Scenario: it is meant for all."""
        for item in self.items:
            if isinstance(item, NewPayout):
                unit.catalogue.check_header(item.scenario_header, unit.rules)
        results: list[dict[str, object]] = []
        for item in self.items:
            try:
                if isinstance(item, Problem):
                    raise item
                row = create(unit, item, self.context)
            except Problem as problem:
                say_stored(problem, self.context.key)
                body = problem.body(self.context.public_url, self.context.path, self.context.request_id)
                results.append({"status": problem.status, "problem": msgspec.Raw(body)})
            else:
                results.append({"status": 201, "payout": row.payout})
        return CommandResult(200, _encode({"results": results}))


def create(unit: UnitOfWork, new: NewPayout, context: RequestContext) -> PayoutRow:
    """Create a payout in the unit.

    Raises DUPLICATE_REFERENCE, INSUFFICIENT_BALANCE, or VALIDATION_ERROR for an unknown X-Sandbox-Scenario, having
    changed nothing.
    """
    unit.catalogue.check_header(new.scenario_header, unit.rules)
    if new.merchant_reference in unit.references:
        raise Problem(
            "DUPLICATE_REFERENCE",
            f"A payout with merchant_reference {new.merchant_reference!r} already exists; use another reference, or "
            "retry the first request with its own idempotency key.",
        )
    status = states.REQUESTED if new.requires_approval else states.PENDING
    payout = Payout(
        id=unit.ids.next(),
        merchant_reference=new.merchant_reference,
        amount=new.amount,
        currency="PKR",
        dest_type=new.dest_type,
        bank_code=new.bank_code,
        wallet_code=new.wallet_code,
        account_number=new.account_number,
        account_title=new.account_title,
        status=status,
        scenario="",
        failure_code=None,
        failure_reason=None,
        psp_reference=None,
        attempts=0,
        version=0,
        metadata=new.metadata,
        user_id=new.user_id,
        created_at=unit.now_text,
        updated_at=unit.now_text,
        processed_at=None,
    )
    row = PayoutRow(
        payout=payout,
        step=0,
        due_at=unit.approval_due if new.requires_approval else None,
        request_id=context.request_id,
        created_at=unit.now,
        processed_at=None,
        scenario_header=new.scenario_header,
    )
    scenario = choose(unit, row)
    row.take(scenario)
    if status == states.PENDING:
        follow(unit, row, scenario, 0)
    unit.open_payout(row, status, "api", context.actor)
    return row


@dataclass(frozen=True, slots=True)
class MovePayout:
    """Take one payout to another state, as `verb` says: 200 with the payout.

    `approve`, `reject`, `cancel` and `reinitiate` are the API's; `move` is a bank's callback or a simulation and goes to
    `status`. A `move` to the state that the payout is in already changes nothing.
    """

    context: RequestContext
    payout_id: str
    verb: str
    status: str = ""
    cause: str = "api"
    failure_code: str | None = None
    failure_reason: str | None = None
    psp_reference: str | None = None
    may_decide: bool = False
    """Whether a `move` may approve or reject what waits for that."""

    @property
    def needs(self) -> Needs:
        """The payout."""
        return Needs(payout_ids=(self.payout_id,))

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Move it, or raise NOT_FOUND, FORBIDDEN, INVALID_STATE or INSUFFICIENT_BALANCE."""
        row = unit.payouts.get(self.payout_id)
        if row is None:
            raise Problem("NOT_FOUND", f"There is no payout {self.payout_id}.")
        source = row.payout.status
        target = self._target(source)
        if self.verb == "move":
            if target == source:
                return CommandResult(200, _encode(row.payout))
            self._check_authority(source, target)
        # Who fails a payout that is in review has turned it down, whichever way that was said.
        turned_down = source == states.IN_REVIEW and target == states.FAILED
        move_by_hand(
            unit,
            row,
            target,
            self.cause,
            self.context,
            failure_code=self.failure_code or ("REVIEW_REJECTED" if turned_down else None),
            failure_reason=self.failure_reason,
            psp_reference=self.psp_reference,
        )
        return CommandResult(200, _encode(row.payout))

    def _check_authority(self, source: str, target: str) -> None:
        """Refuse a move by somebody who may not decide about a payout that waits for approval or review."""
        legal = states.legal_from(source)
        if self.cause == "ipn" and source in VERBS["approve"]:
            raise Problem(
                "INVALID_STATE",
                f"A payout in {source} is waiting for the merchant's decision, which a bank's callback cannot make; legal from "
                f"{source}, with an admin's key: {', '.join(legal)}.",
            )
        if self.cause == "ipn" and target in _NOT_BY_BANKS:
            possible = ", ".join(status for status in legal if status not in _NOT_BY_BANKS)
            raise Problem(
                "INVALID_STATE",
                f"A bank's callback cannot move a payout from {source} to {target}; legal from {source}: "
                f"{possible or 'nothing'}.",
            )
        if target in (VERBS["approve"].get(source), VERBS["reject"].get(source)) and not self.may_decide:
            raise Problem(
                "FORBIDDEN",
                f"Moving a payout from {source} to {target} approves or rejects it, which needs a key with the "
                "`admin` role; this key's role is `member`.",
            )

    def _target(self, status: str) -> str:
        if self.verb == "move":
            return self.status
        target = VERBS[self.verb].get(status)
        if target is None:
            raise Problem(
                "INVALID_STATE",
                f"A payout in {status} cannot be {PAST[self.verb]}: only {' or '.join(VERBS[self.verb])} can; legal from "
                f"{status}: {', '.join(states.legal_from(status)) or 'nothing'}.",
            )
        return target


VERBS: Final = {
    "approve": {states.REQUESTED: states.PENDING, states.IN_REVIEW: states.PROCESSING},
    "reject": {states.REQUESTED: states.REJECTED, states.IN_REVIEW: states.FAILED},
    "cancel": dict.fromkeys((states.REQUESTED, states.PENDING, states.ON_HOLD, states.IN_REVIEW), states.CANCELLED),
    "reinitiate": {states.FAILED: states.PENDING},
}
_NOT_BY_BANKS: Final = (states.REQUESTED, states.PENDING, states.REJECTED)
"""States to which the merchant's own requests lead alone."""
PAST: Final = {"approve": "approved", "reject": "rejected", "cancel": "cancelled", "reinitiate": "reinitiated"}


def move_by_hand(
    unit: UnitOfWork,
    row: PayoutRow,
    target: str,
    cause: str,
    context: RequestContext,
    *,
    failure_code: str | None = None,
    failure_reason: str | None = None,
    psp_reference: str | None = None,
) -> None:
    """Move a payout because somebody decided so, and set what its scenario does next.

    Raises INVALID_STATE or INSUFFICIENT_BALANCE, having changed nothing.
    """
    source = row.payout.status
    scenario, step = None, row.step
    if target == states.PENDING:
        # What was approved follows what was chosen when it was asked for; a new try is chosen for anew.
        scenario, step = choose(unit, row) if source == states.FAILED else scenario_of(unit, row), 0
    elif target == states.PROCESSING:
        scenario = scenario_of(unit, row)
        if source == states.IN_REVIEW and step >= len(scenario.steps):
            # Nothing was laid out for a payout whose review is passed: its suffix says how it goes on.
            scenario, step = choose_after_review(unit, row), 0
        step = resume_step(scenario, step)
    unit.move(
        row,
        target,
        cause,
        request=context,
        scenario=scenario,
        failure_code=failure_code,
        failure_reason=failure_reason,
        psp_reference=psp_reference,
    )
    if scenario is not None:
        follow(unit, row, scenario, step)
    else:
        # Any other state was decided from outside, and the path that the scenario had laid ends there.
        row.due_at = None
