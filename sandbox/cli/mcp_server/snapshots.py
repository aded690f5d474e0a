"""Tools for snapshots: take one of the world, list them, and restore one."""

from typing import Annotated

from pydantic import Field

from sandbox.cli.mcp_server.results import Result, plain
from sandbox.cli.mcp_server.tool import Calling, Limit, count, first, tool


@tool("Take a snapshot")
async def create_snapshot(
    calling: Calling, name: Annotated[str, Field(description="A name to recognize it by.", max_length=100)] = "agent"
) -> Result:
    """Save the world's state, to return to it with restore_snapshot: payouts, users, ledger, endpoints, clock."""
    snapshot = await calling.psp.snapshots.take(name=name)
    return Result(f"Snapshot {snapshot.id} has {snapshot.rows} rows.", {"snapshot": snapshot})


@tool("List the snapshots", reads=True)
async def list_snapshots(calling: Calling, limit: Limit = 20) -> Result:
    """List the world's snapshots, newest first."""
    found = await first(calling.psp.snapshots.list(limit=limit + 1), limit)
    return Result(count(found, "snapshot"), found)


@tool("Restore a snapshot", destroys=True)
async def restore_snapshot(
    calling: Calling,
    snapshot_id: Annotated[str, Field(description="The snapshot's id, from create_snapshot or list_snapshots.")],
) -> Result:
    """Return the world to a snapshot's state. What happened since is gone. It can be restored again."""
    restored = await calling.psp.snapshots.restore(snapshot_id)
    state = "frozen" if restored.frozen else "running"
    return Result(f"Restored {restored.name}. The clock is {state} at {plain(restored.now)}.", {"restored": restored})
