"""Payout commands: create, approve, reject, cancel or reinitiate a payout, or change its state as its bank would. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec

from sandbox.domain import payout_states as states
from sandbox.domain.errors import Problem
from sandbox.domain.failure_codes import default_failure_code
from sandbox.domain.idempotency import add_stored_notice
from sandbox.domain.payout import Payout, PayoutRow
from sandbox.domain.scenario_engine import resume_step
from sandbox.domain.scenario_selection import choose, choose_after_review, scenario_of, schedule_next_step
from sandbox.domain.unit import CommandResult, Needs, RequestContext, UnitOfWork

_encode: Final = msgspec.json.Encoder().encode


class NewPayout(msgspec.Struct, frozen=True):
    """A validated request for a payout. Codes are canonical directory codes, not aliases; the amount has two decimal places."""

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
    """The user who requested it; the amount comes out of this user's wallet."""
    scenario_header: str | None = None
    """The request's X-Sandbox-Scenario."""
    fails_unfunded: bool = False
    """Whether too little money makes a payout that is FAILED from the start, instead of a refusal. It moves no money."""


class CreatePayout(msgspec.Struct, frozen=True):
    """Create one payout. Result: 201 with the payout."""

    context: RequestContext
    new: NewPayout

    @property
    def needs(self) -> Needs:
        """Claim the new reference."""
        return Needs(references=(self.new.merchant_reference,))

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Create the payout. Raises DUPLICATE_REFERENCE, INSUFFICIENT_BALANCE, or VALIDATION_ERROR for an unknown scenario."""
        row = create(unit, self.new, self.context)
        return CommandResult(201, _encode(row.payout), f"/api/v1/payouts/{row.payout.id}")


@dataclass(frozen=True, slots=True)
class CreatePayouts:
    """Create many payouts under one key. Each succeeds or fails on its own. Result: 200 with one result per item, in order.

    An item is a validated payout, or the problem that validation found.
    """

    context: RequestContext
    items: Sequence[NewPayout | Problem]

    @property
    def needs(self) -> Needs:
        """Claim all new references."""
        references = [item.merchant_reference for item in self.items if isinstance(item, NewPayout)]
        return Needs(references=references, weight=len(self.items))

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Create every payout that can be created. Raises VALIDATION_ERROR if the shared scenario header is unknown."""
        for item in self.items:
            if isinstance(item, NewPayout):
                unit.catalogue.check_header(item.scenario_header, unit.custom_scenarios)
        results: list[dict[str, object]] = []
        for item in self.items:
            try:
                if isinstance(item, Problem):
                    raise item
                row = create(unit, item, self.context)
            except Problem as problem:
                add_stored_notice(problem, self.context.key)
                body = problem.body(self.context.public_url, self.context.path, self.context.request_id)
                results.append({"status": problem.status, "problem": msgspec.Raw(body)})
            else:
                results.append({"status": 201, "payout": row.payout})
        return CommandResult(200, _encode({"results": results}))


def create(unit: UnitOfWork, new: NewPayout, context: RequestContext) -> PayoutRow:
    """Create a payout in the unit.

    Raises DUPLICATE_REFERENCE, INSUFFICIENT_BALANCE unless `fails_unfunded`, or VALIDATION_ERROR for an unknown
    X-Sandbox-Scenario, having changed nothing.
    """
    unit.catalogue.check_header(new.scenario_header, unit.custom_scenarios)
    if new.merchant_reference in unit.references:
        raise Problem(
            "DUPLICATE_REFERENCE",
            f"A payout with merchant_reference {new.merchant_reference!r} already exists. Use another reference, or "
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
        due_at=unit.approval_expires_at if new.requires_approval else None,
        request_id=context.request_id,
        created_at=unit.now,
        processed_at=None,
        scenario_header=new.scenario_header,
        traceparent=context.traceparent,
    )
    scenario = choose(unit, row)
    row.assign_scenario(scenario)
    if status == states.PENDING:
        schedule_next_step(unit, row, scenario, 0)
    try:
        unit.create_payout(row, status, "api", context.actor)
    except Problem as problem:
        if problem.code != "INSUFFICIENT_BALANCE" or not new.fails_unfunded:
            raise
        row.due_at = None
        payout.failure_code, payout.failure_reason = problem.code, "The balance was too low."
        unit.create_payout(row, states.FAILED, "api", context.actor)
    return row


@dataclass(frozen=True, slots=True)
class TransitionPayout:
    """Change one payout's state. Result: 200 with the payout.

    `action` is a key of TRANSITIONS_BY_ACTION, or `transition` (to `status`) for a bank's callback or a simulation. A
    `transition` to the current state changes nothing.
    """

    context: RequestContext
    payout_id: str
    action: str
    status: str = ""
    cause: str = "api"
    failure_code: str | None = None
    failure_reason: str | None = None
    psp_reference: str | None = None
    can_approve: bool = False
    """Whether a `transition` may approve or reject a payout that is waiting for a decision."""

    @property
    def needs(self) -> Needs:
        """Claim the payout, and the payouts that have its new PSP reference."""
        return Needs(payout_ids=(self.payout_id,), psp_references=() if self.psp_reference is None else (self.psp_reference,))

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Change the payout's state. Raises NOT_FOUND, FORBIDDEN, INVALID_STATE, DUPLICATE_REFERENCE, INSUFFICIENT_BALANCE."""
        row = unit.payouts.get(self.payout_id)
        if row is None:
            raise Problem("NOT_FOUND", f"There is no payout {self.payout_id}.")
        source = row.payout.status
        target = self._target(source)
        if self.action == "transition":
            if target == source:
                return CommandResult(200, _encode(row.payout))
            self._check_authority(source, target)
            self._check_psp_reference(unit)
        transition_by_request(
            unit,
            row,
            target,
            self.cause,
            self.context,
            failure_code=self.failure_code or default_failure_code(source, target),
            failure_reason=self.failure_reason,
            psp_reference=self.psp_reference,
        )
        return CommandResult(200, _encode(row.payout))

    def _check_authority(self, source: str, target: str) -> None:
        """Raise INVALID_STATE or FORBIDDEN if this caller must not approve, reject or reinitiate the payout."""
        if self.cause == "ipn" and source in TRANSITIONS_BY_ACTION["approve"]:
            raise Problem(
                "INVALID_STATE",
                f"A payout in {source} is waiting for the merchant's decision, which a bank's callback cannot make. With an "
                f"`admin` key, it can move to {states.either(states.legal_from(source))}.",
            )
        if self.cause == "ipn" and target in _MERCHANT_ONLY_STATES:
            possible = [status for status in states.legal_from(source) if status not in _MERCHANT_ONLY_STATES]
            raise Problem(
                "INVALID_STATE",
                f"A bank's callback cannot move a payout from {source} to {target}. "
                + (f"It can move it to {states.either(possible)}." if possible else f"It cannot change a payout in {source}."),
            )
        if is_decision(source, target) and not self.can_approve:
            raise Problem(
                "FORBIDDEN",
                f"Moving a payout from {source} to {target} approves or rejects it, which requires a key with the "
                "`admin` role. This key's role is `member`.",
            )

    def _check_psp_reference(self, unit: UnitOfWork) -> None:
        """Raise DUPLICATE_REFERENCE if another payout has the reference: a later callback that names it would be ambiguous."""
        for reference, holder in unit.psp_references:
            if reference == self.psp_reference and holder != self.payout_id:
                raise Problem(
                    "DUPLICATE_REFERENCE",
                    f"Payout {holder} already has the psp_reference {reference!r}. Send another one, or none to keep the "
                    "payout's own.",
                )

    def _target(self, status: str) -> str:
        if self.action == "transition":
            return self.status
        target = TRANSITIONS_BY_ACTION[self.action].get(status)
        if target is None:
            raise Problem(
                "INVALID_STATE",
                f"A payout in {status} cannot be {PAST_PARTICIPLES[self.action]}; only a payout in "
                f"{states.either(tuple(TRANSITIONS_BY_ACTION[self.action]))} can. {states.next_states(status)}",
            )
        return target


TRANSITIONS_BY_ACTION: Final[dict[str, dict[str, str]]] = {
    "approve": {states.REQUESTED: states.PENDING, states.IN_REVIEW: states.PROCESSING},
    "reject": {states.REQUESTED: states.REJECTED, states.IN_REVIEW: states.FAILED},
    "cancel": dict.fromkeys((states.REQUESTED, states.PENDING, states.ON_HOLD, states.IN_REVIEW), states.CANCELLED),
    "reinitiate": {states.FAILED: states.PENDING},
}
"""Action → the states that it applies to, each with the state that it leads to."""
DECISIONS: Final = ("approve", "reject")
"""The actions that need a key with the `admin` role."""
_MERCHANT_ONLY_STATES: Final = (states.REQUESTED, states.PENDING, states.REJECTED)
"""States that only the merchant's own requests lead to."""
PAST_PARTICIPLES: Final = {"approve": "approved", "reject": "rejected", "cancel": "cancelled", "reinitiate": "reinitiated"}


def is_decision(source: str, target: str) -> bool:
    """Return whether a change approves or rejects a payout that is waiting for a decision."""
    return any(TRANSITIONS_BY_ACTION[action].get(source) == target for action in DECISIONS)


def transition_by_request(
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
    """Change a payout's state because of a request, and schedule its scenario's next step.

    Raises INVALID_STATE or INSUFFICIENT_BALANCE, having changed nothing.
    """
    source = row.payout.status
    scenario, step = None, row.step
    if target == states.PENDING:
        # An approved payout keeps the scenario that was chosen when it was created. For a reinitiated one, choose again.
        scenario, step = choose(unit, row) if source == states.FAILED else scenario_of(unit, row), 0
    elif target == states.PROCESSING:
        scenario = scenario_of(unit, row)
        if source == states.IN_REVIEW and step >= len(scenario.steps):
            # The scenario ends with the review, so the account number's suffix chooses how the payout continues.
            scenario, step = choose_after_review(unit, row), 0
        step = resume_step(scenario, step)
    unit.transition(
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
        schedule_next_step(unit, row, scenario, step)
    else:
        # The request decided the outcome, so the scenario has no more steps to run.
        row.due_at = None
