"""Tools for payouts and the money behind them."""

import asyncio
import uuid
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from psp_sandbox.client.models import CatalogueEntry, EventWithDeliveries, ExplainedStep, TimelineEntry
from sandbox.cli.mcp_server.results import Result, plain
from sandbox.cli.mcp_server.tool import Calling, Limit, PayoutId, count, first, tool
from sandbox.domain.enumerations import Account, PayoutStatus

_MOST_EVENTS: Final = 12
_Amount = Annotated[str, Field(description='An amount in PKR with two decimals, such as "1500.00".')]


@tool("List the scenarios", reads=True)
async def list_scenarios(calling: Calling) -> Result:
    """List what a payout can be made to do: each scenario with its path of statuses and the test account that selects it.

    Call this before create_payout if you are not sure which outcome to ask for. Also lists the failure codes.
    """
    found = await calling.psp.scenarios.catalogue()
    scenarios = [_scenario(entry) for entry in found.scenarios]
    codes = {item.code: item.meaning for item in found.failure_codes}
    return Result(f"{len(scenarios)} scenarios, tried in this order.", {"scenarios": scenarios, "failure_codes": codes})


@tool("Create a payout")
async def create_payout(
    calling: Calling,
    amount: _Amount,
    scenario: Annotated[
        str | None,
        Field(
            pattern=r"^[ -~]{1,100}$",
            description="The scenario that decides the outcome, such as `success` or `returned`; see list_scenarios.",
        ),
    ] = None,
    account_suffix: Annotated[
        str, Field(pattern=r"^\d{4}$", description="The last four digits of the account number; they select a scenario, too.")
    ] = "0001",
    merchant_reference: Annotated[
        str | None, Field(description="Your own unique reference. Default: a new one.", max_length=64)
    ] = None,
    account_number: Annotated[
        str | None, Field(description="The whole account number or IBAN, instead of account_suffix.")
    ] = None,
    bank_code: Annotated[str, Field(description="The bank to pay to.")] = "HBL",
    wallet_code: Annotated[str | None, Field(description="The wallet provider to pay to, instead of a bank.")] = None,
    metadata: Annotated[dict[str, str] | None, Field(description="Your own data, returned with the payout.")] = None,
    requires_approval: Annotated[bool, Field(description="Wait in REQUESTED until an admin approves it.")] = False,
    idempotency_key: Annotated[
        str | None, Field(description="Repeat an earlier call with its key to get the same payout again. Default: a new key.")
    ] = None,
) -> Result:
    """Create a payout to a bank account or wallet, and return it. Its funds are locked immediately.

    The scenario or the account number decides what happens next: 0001 succeeds, 0003 is rejected by the bank; list_scenarios
    has all. Steps without a delay follow immediately. Wait for later ones with get_payout and `wait_for`; with a frozen clock,
    run them with advance_clock.
    """
    to: dict[str, Any] = {"dest_type": "BANK", "bank_code": bank_code}
    if wallet_code is not None:
        to = {"dest_type": "WALLET", "wallet_code": wallet_code}
    payout = await calling.psp.payouts.create(
        merchant_reference=merchant_reference or f"mcp-{uuid.uuid4()}",
        amount=amount,
        account_number=account_number or f"1234567890{account_suffix}",
        metadata=metadata,
        requires_approval=requires_approval,
        scenario=scenario,
        idempotency_key=idempotency_key,
        **to,
    )
    how = f" It follows the scenario {payout.scenario}." if payout.scenario else ""
    return Result(f"Payout {payout.id} over {payout.amount} {payout.currency} is {payout.status}.{how}", {"payout": payout})


@tool("Inspect a payout", reads=True)
async def get_payout(
    calling: Calling,
    payout_id: PayoutId,
    wait_for: Annotated[
        list[PayoutStatus] | None,
        Field(description="Wait until it is in one of these statuses or has ended. Useless with a frozen clock."),
    ] = None,
    timeout_seconds: Annotated[float, Field(ge=0, le=30, description="How long to wait, in real time.")] = 10,
) -> Result:
    """Get everything about one payout: its status, why it failed, its timeline, its ledger entries, its events with their
    webhook deliveries, what happens next, and the statuses that simulate_payout could move it to.
    """
    psp = calling.psp
    payout = await psp.payouts.get(payout_id, wait_for=wait_for, timeout=timeout_seconds if wait_for else None)
    timeline, actions, due, entries, events = await asyncio.gather(
        psp.payouts.timeline(payout.id),
        psp.payouts.actions(payout.id),
        psp.clock.due(payout_id=payout.id),
        first(psp.balance.history(payout_id=payout.id, limit=_MOST_EVENTS + 1), _MOST_EVENTS),
        first(psp.events.list(payout_id=payout.id, limit=_MOST_EVENTS + 1), _MOST_EVENTS),
    )
    details = await asyncio.gather(*(psp.events.get(event["id"]) for event in events["items"]))
    path = " → ".join(entry.to for entry in timeline)
    next_statuses = [plain(action) for action in actions.actions if action.operation == "simulate_payout"]
    data = {
        "payout": payout,
        "timeline": [_without(entry, "traceparent") for entry in timeline],
        "ledger_entries": [_without(entry, "transfer_id", "payout_id", "description") for entry in entries["items"]],
        "events": [_event(detail) for detail in details],
        "due": due.data,
        "can_be_moved_to": [{name: item[name] for name in ("to", "failure_codes")} for item in next_statuses],
    }
    why = f" ({payout.failure_code})" if payout.failure_code else ""
    return Result(f"Payout {payout.id} is {payout.status}{why}: {path}.", data)


@tool("Explain a payout", reads=True)
async def explain_payout(calling: Calling, payout_id: PayoutId) -> Result:
    """Explain in sentences how a payout got its status: what caused each change, what happens next, and the result of each of
    its webhooks. get_payout has the data behind it.
    """
    psp = calling.psp
    payout = await psp.payouts.get(payout_id)  # first, so that a wrong id has one error: that there is no such payout
    timeline, due, events = await asyncio.gather(
        psp.payouts.timeline(payout_id),
        psp.clock.due(payout_id=payout_id),
        first(psp.events.list(payout_id=payout_id, limit=_MOST_EVENTS + 1), _MOST_EVENTS),
    )
    details = await asyncio.gather(*(psp.events.get(event["id"]) for event in reversed(events["items"])))
    ids = [delivery.id for event in details for delivery in event.deliveries][-_MOST_EVENTS:]
    explained = await asyncio.gather(*(psp.deliveries.explain(delivery_id) for delivery_id in ids))
    next_ = [f"{plain(item.due_at)}: {item.description}" for item in due.data]
    why = f" because of {payout.failure_code}: {payout.failure_reason}" if payout.failure_code else ""
    return Result(
        f"Payout {payout.id} is {payout.status}{why}.",
        {
            "changes": [_change(entry) for entry in timeline],
            "next": next_ or ["Nothing is scheduled."],
            "webhooks": [
                {"delivery_id": item.delivery_id, "status": item.status, "explanation": item.summary} for item in explained
            ],
        },
    )


@tool("List payouts", reads=True)
async def list_payouts(
    calling: Calling,
    status: Annotated[list[PayoutStatus] | None, Field(description="Only payouts with one of these statuses.")] = None,
    search: Annotated[str | None, Field(description="Only payouts whose reference, account or id contains this text.")] = None,
    merchant_reference: Annotated[str | None, Field(description="Only the payout with this reference.")] = None,
    created_from: Annotated[
        str | None, Field(description="Only payouts created at or after this time, such as 2030-01-01T00:00:00Z.")
    ] = None,
    created_to: Annotated[str | None, Field(description="Only payouts created before this time.")] = None,
    limit: Limit = 20,
) -> Result:
    """List payouts, newest first. get_payout has the details of one."""
    found = await first(
        calling.psp.payouts.list(
            status=status,
            q=search,
            merchant_reference=merchant_reference,
            created_from=created_from,
            created_to=created_to,
            limit=limit + 1,
        ),
        limit,
    )
    return Result(count(found, "payout"), found)


@tool("Move a payout to another status")
async def simulate_payout(
    calling: Calling,
    payout_id: PayoutId,
    status: Annotated[PayoutStatus, Field(description="The status to move it to; get_payout lists the possible ones.")],
    failure_code: Annotated[
        str | None, Field(description="Why it failed, for FAILED, RETURNED and REJECTED: such as BANK_REJECTED.")
    ] = None,
) -> Result:
    """Move a payout to another status now, as its bank would, with ledger entries, timeline, event and webhooks.

    Use it for an outcome that no scenario has, such as returning a payout that succeeded. Approving a payout in REQUESTED
    (to PENDING or REJECTED) or in IN_REVIEW needs an API key with the role `admin`.
    """
    payout = await calling.psp.payouts.simulate(payout_id, status, failure_code=failure_code)
    return Result(f"Payout {payout.id} is {payout.status}.", {"payout": payout})


@tool("Show the balance and the ledger", reads=True)
async def list_ledger_entries(
    calling: Calling,
    payout_id: Annotated[str | None, Field(description="Only entries of this payout.")] = None,
    account: Annotated[Account | None, Field(description="Only entries of this account.")] = None,
    limit: Limit = 20,
) -> Result:
    """Get the merchant's balance, and the ledger entries behind it, newest first."""
    balance, found = await asyncio.gather(
        calling.psp.balance.get(),
        first(calling.psp.balance.history(payout_id=payout_id, account=account, limit=limit + 1), limit),
    )
    text = f"{balance.available_balance} {balance.currency} available, {balance.locked_balance} locked."
    return Result(f"{text} {count(found, 'entry').replace('entrys', 'entries')}", {"balance": balance, **found})


@tool("Top up the balance")
async def top_up_balance(calling: Calling, amount: _Amount) -> Result:
    """Add money to the merchant's available balance, for example after INSUFFICIENT_BALANCE."""
    balance = await calling.psp.balance.top_up(amount)
    return Result(f"{balance.available_balance} {balance.currency} available.", {"balance": balance})


def _scenario(entry: CatalogueEntry) -> dict[str, Any]:
    """Return a scenario in few words, because the whole catalogue has 20 KB."""
    destination = entry.example.wallet_code or entry.example.bank_code
    example: dict[Literal["account_number", "to", "amount", "needs"], Any] = {
        "account_number": entry.example.account_number,
        "to": destination,
        "amount": entry.example.amount,
    }
    if entry.example.needs:
        example["needs"] = entry.example.needs
    rule = entry.scenario
    return {"name": rule.name, "id": rule.id, "path": " → ".join(_step(step) for step in entry.steps), "example": example}


def _step(step: ExplainedStep) -> str:
    parts = [
        f"after {step.after_seconds:g} s" if step.after_seconds else "",
        f"{step.probability:.0%} likely" if step.probability < 1 else "",
        step.failure_code or "",
        "waits for simulate_payout" if step.wait else "",
    ]
    notes = ", ".join(filter(None, parts))
    return f"{step.to} ({notes})" if notes else step.to


_CAUSES: Final = {
    "api": "an API call",
    "worker": "the sandbox, as the bank",
    "ipn": "a callback of the bank",
    "simulation": "a simulation",
}


def _change(entry: TimelineEntry) -> str:
    """Return what changed a payout's status."""
    path = f"{entry.from_} → {entry.to}" if entry.from_ else entry.to
    step = f", step {entry.step + 1}" if entry.step is not None else ""
    scenario = f" (scenario {entry.scenario}{step})" if entry.scenario else ""
    return f"{plain(entry.at)}: {path}, by {_CAUSES[entry.cause]}{scenario}; request {entry.request_id}"


def _event(event: EventWithDeliveries) -> dict[str, Any]:
    """Return an event without its copy of the payout, and its deliveries without what the event says."""
    deliveries = [_without(delivery, "event_id", "event_type", "created_at") for delivery in event.deliveries]
    return {"id": event.id, "type": event.type, "created_at": event.created_at, "deliveries": deliveries}


def _without(item: Any, *names: str) -> dict[str, Any]:
    """Return an item as JSON without these fields, which would distract an agent."""
    found: dict[str, Any] = plain(item)
    return {name: value for name, value in found.items() if name not in names}
