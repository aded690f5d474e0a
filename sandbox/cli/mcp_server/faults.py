"""Tools for faults, and for the journal of API calls."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from psp_sandbox.client.models import JournalEntry
from sandbox.cli.mcp_server.access import USER_AGENT
from sandbox.cli.mcp_server.results import Refusal, Result, cut
from sandbox.cli.mcp_server.tool import Calling, Limit, count, first, tool
from sandbox.domain.enumerations import FaultKind, FaultTarget, Method

_PAGE: Final = 100
"""How many calls to read together. Most may be this server's own."""


@tool("Inject a fault")
async def inject_fault(
    calling: Calling,
    kind: Annotated[
        FaultKind,
        Field(
            description="For API calls: latency (needs milliseconds), error (needs status), rate_limit (retry_after), "
            "slow_after_commit (milliseconds), connection_reset (after executing the request). For both: truncated_body. "
            "For webhooks: drop, duplicate, delay (milliseconds), reorder, stale_timestamp (seconds), wrong_key, tampered_body."
        ),
    ],
    target: Annotated[FaultTarget | None, Field(description="Needed only for truncated_body, which exists for both.")] = None,
    hits: Annotated[int | None, Field(ge=1, description="Stop after this many hits; null for no limit.")] = 1,
    method: Annotated[Method | None, Field(description="Only API calls with this method.")] = None,
    path: Annotated[str | None, Field(description="Only API calls to this path, such as /api/v1/payouts*.")] = None,
    reference: Annotated[str | None, Field(description="Only API calls with this merchant_reference, such as inv-*.")] = None,
    event_type: Annotated[str | None, Field(description="Only webhooks of this type, such as payout.*.")] = None,
    endpoint_id: Annotated[str | None, Field(description="Only webhooks to this endpoint.")] = None,
    status: Annotated[int | None, Field(ge=400, le=599, description="The status of kind error.")] = None,
    milliseconds: Annotated[float | None, Field(gt=0, description="For latency, slow_after_commit and delay.")] = None,
    seconds: Annotated[float | None, Field(description="The age of the timestamp, for stale_timestamp.")] = None,
    retry_after: Annotated[
        int | None, Field(ge=0, description="How many seconds the caller is told to wait, for rate_limit.")
    ] = None,
    probability: Annotated[float, Field(gt=0, le=1, description="How likely a matching call is hit.")] = 1.0,
    ttl_seconds: Annotated[float | None, Field(gt=0, description="Stop after this many seconds of the world's time.")] = None,
) -> Result:
    """Make the API or the webhooks misbehave, once by default, to test how code copes. The ledger stays correct.

    A fault of the API takes effect within a second, and hits this server's own calls to create and read payouts, balances and
    webhooks, too. It never hits the tools for faults, clocks, snapshots and worlds, so that delete_fault always works.
    get_status shows the hits.
    """
    match = _given(method=method, path=path, reference=reference, event_type=event_type, endpoint_id=endpoint_id)
    parameters = _given(status=status, milliseconds=milliseconds, seconds=seconds, retry_after=retry_after)
    where = target or _target(kind)
    fault = await calling.psp.faults.create(
        kind=kind,
        target=where,
        probability=probability,
        count=hits,
        ttl_seconds=ttl_seconds,
        match=match or None,  # type: ignore[arg-type] # the API checks that the names suit the target
        **parameters,
    )
    often = "until it is deleted" if hits is None else "once" if hits == 1 else f"{hits} times"
    return Result(f"Fault {fault.id}: {kind} on {where}, {often}.", {"fault": fault})


@tool("Delete a fault", destroys=True)
async def delete_fault(calling: Calling, fault_id: Annotated[str, Field(description="The fault's id.")]) -> Result:
    """Stop a fault and delete it."""
    await calling.psp.faults.delete(fault_id)
    return Result(f"Deleted {fault_id}.", {"deleted": fault_id})


@tool("List API calls", reads=True)
async def list_requests(
    calling: Calling,
    method: Annotated[Method | None, Field(description="Only calls with this method.")] = None,
    path: Annotated[str | None, Field(description="Only calls to this path; * matches anything.")] = None,
    status: Annotated[int | None, Field(ge=100, le=599, description="Only calls with this response status.")] = None,
    fault_id: Annotated[str | None, Field(description="Only calls that this fault hit.")] = None,
    search: Annotated[str | None, Field(description="Only calls whose path or bodies contain this text.")] = None,
    include_own: Annotated[bool, Field(description="Also list the calls that these tools made; `own` marks them.")] = False,
    limit: Limit = 10,
) -> Result:
    """List the API calls of your code in the journal, newest first, with status, bodies and faults.

    Use it to see what an integration really sent. The calls of these tools are left out. A call appears within a second. Keys
    and secrets read `[redacted]`.
    """
    found = await first(
        _calls(
            calling.psp.requests.list(method=method, path=path, status=status, fault_id=fault_id, q=search, limit=_PAGE),
            include_own=include_own,
        ),
        limit,
    )
    items = [
        item | {"own": _is_own(item["request_headers"])} | {name: cut(item[name]) for name in ("request_body", "response_body")}
        for item in found["items"]
    ]
    hint = "" if items else " A call appears within a second."
    return Result(count(found, "call") + hint, found | {"items": items})


async def _calls(entries: AsyncIterator[JournalEntry], *, include_own: bool) -> AsyncIterator[JournalEntry]:
    """Yield the entries of the journal that are to be listed."""
    async for entry in entries:
        if include_own or not _is_own(entry.request_headers):
            yield entry


def _is_own(headers: Mapping[str, str]) -> bool:
    return headers.get("user-agent") == USER_AGENT


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _target(kind: FaultKind) -> FaultTarget:
    if kind == "truncated_body":
        raise Refusal("INVALID_ARGUMENTS", "truncated_body needs a target.", "Give `target`: api or webhooks.")
    return "api" if kind in ("latency", "error", "rate_limit", "slow_after_commit", "connection_reset") else "webhooks"
