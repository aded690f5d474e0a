"""Tools for a world's clock, and for its state at the moment."""

import asyncio
from typing import Annotated, Final

from pydantic import Field

from psp_sandbox.client.models import ClockRun
from sandbox.cli.mcp_server.results import Result, plain
from sandbox.cli.mcp_server.tool import Calling, first, tool

_MOST_RAN: Final = 50
_MOST_SHOWN: Final = 20


@tool("Show the state of the world", reads=True)
async def get_status(calling: Calling) -> Result:
    """Get the world's state: its clock, its balance, the work that is due next, the faults in force and the webhook endpoints.

    Start here if something is not as expected: a frozen clock or a fault explains most surprises.
    """
    psp = calling.psp
    clock, balance, due, faults, endpoints = await asyncio.gather(
        psp.clock.get(),
        psp.balance.get(),
        psp.clock.due(limit=_MOST_SHOWN),
        first(psp.faults.list(limit=_MOST_SHOWN + 1), _MOST_SHOWN),
        first(psp.webhook_endpoints.list(limit=_MOST_SHOWN + 1), _MOST_SHOWN),
    )
    data = {
        "clock": clock,
        "balance": balance,
        "due": due.data,
        "faults": faults["items"],
        "webhook_endpoints": endpoints["items"],
    }
    state = "frozen" if clock.frozen else "running"
    return Result(
        f"The clock is {state} at {plain(clock.now)}; {balance.available_balance} {balance.currency} available, "
        f"{balance.locked_balance} locked; due: {len(due.data)}; faults: {len(data['faults'])}.",
        data,
    )


@tool("Freeze the clock")
async def freeze_clock(
    calling: Calling,
    at: Annotated[str | None, Field(description="Advance to this time first, such as 2030-01-01T00:00:00Z.")] = None,
) -> Result:
    """Freeze the world's clock. What is due now still happens; everything later waits for advance_clock."""
    return _run(await calling.psp.clock.freeze(at=at), "Frozen")


@tool("Advance the clock")
async def advance_clock(
    calling: Calling,
    seconds: Annotated[float | None, Field(ge=0, description="How far, in seconds. 259200 is three days.")] = None,
    to: Annotated[
        str | None, Field(description="The time to advance to, such as 2030-01-01T00:00:00Z, instead of seconds.")
    ] = None,
) -> Result:
    """Advance the world's clock, and run all payout steps, payments of sales and webhook attempts due on the way, in order.

    Days pass in less than a second. `seconds` 0 runs what is due now. `ran` lists what happened. If `complete` is false,
    `stopped_because` says why work remains; call it again to continue.
    """
    return _run(await calling.psp.clock.advance(seconds=seconds, to=to), "Advanced")


@tool("Resume the clock")
async def resume_clock(calling: Calling) -> Result:
    """Let a frozen clock run again, from its current time."""
    clock = await calling.psp.clock.resume()
    return Result(f"The clock runs, now {plain(clock.now)}.", {"clock": clock})


@tool("Finish all due work")
async def drain(calling: Calling) -> Result:
    """Run all work that is due now, and wait until it is done. Does not move the clock; future steps stay scheduled."""
    drained = await calling.psp.drain()
    data = plain(drained) | {"ran": plain(drained.ran[:_MOST_RAN])}
    state = "No work is due." if drained.drained else f"Work is still due: {drained.stopped_because}."
    return Result(f"{state} Steps run: {drained.steps}.", data)


def _run(run: ClockRun, verb: str) -> Result:
    data = plain(run) | {"ran": plain(run.ran[:_MOST_RAN])}
    if len(run.ran) > _MOST_RAN:
        data["note"] = f"Cut: ran has {len(run.ran)} items."
    rest = "" if run.complete else f" Work remains: {run.stopped_because}. Call it again to continue."
    return Result(f"{verb}: the clock shows {plain(run.now)}. Steps run: {run.steps}.{rest}", data)
