"""`psp distribute`: distribute a database over the nodes of its Citus cluster."""

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli.failures import refused, usage_error

if TYPE_CHECKING:
    from sandbox.infrastructure.db.distributed.distribute import Plan
    from sandbox.infrastructure.db.distributed.distributed_tables import Content


def distribute(
    shards: Annotated[
        int,
        typer.Option("--shards", min=1, max=128, help="How many shards to make. Nodes can only share the rows shard by shard."),
    ] = 16,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, and change nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Distribute the database at DATABASE_URL over the nodes of its Citus cluster, each merchant as a whole.

    Stop the sandbox first. An empty database is migrated, then distributed. If the database is distributed already, only
    missing tables are. The rows of each table are counted and compared. If this fails or is interrupted, the tables stay as
    they were.
    """
    import asyncio

    from sandbox.infrastructure.db.distributed.distribute import distribute as run
    from sandbox.infrastructure.db.distributed.distribute import plan_distribution
    from sandbox.infrastructure.db.distributed.distributed_tables import DistributionError
    from sandbox.infrastructure.db.engine import APPLICATION_ROLE

    url = os.environ.get("DATABASE_URL", "").strip()
    if not url.startswith(("postgresql://", "postgres://")):
        raise usage_error("Set DATABASE_URL to the URL of the database: postgresql://…")
    report = _Report(as_json=as_json)
    try:
        if is_dry_run:
            report.show_plan(asyncio.run(plan_distribution(url, shards, APPLICATION_ROLE)), is_dry_run=True)
        else:
            result = asyncio.run(run(url, shards, APPLICATION_ROLE, report.show_plan, report.show_copied))
            report.show_result(result.seconds, result.paused_seconds)
    except DistributionError as error:
        raise refused(f"psp distribute: {error}") from None


class _Report:
    """Prints each fact as soon as it is known, or all as JSON at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._plan: Plan | None = None
        self._json: dict[str, Any] = {}
        self._copied: list[dict[str, Any]] = []

    def show_plan(self, plan: "Plan", *, is_dry_run: bool = False) -> None:
        self._plan = plan
        fields = asdict(plan) | {"coordinator": str(plan.coordinator), "nodes": list(map(str, plan.nodes))}
        self._json = {"dry_run": is_dry_run, **fields}
        if is_dry_run and self._as_json:
            typer.echo(json.dumps(self._json))
        if self._as_json:
            return
        through = ", which the worker node in DATABASE_URL named" if plan.url_names_worker else ""
        nodes = ", ".join(map(str, plan.nodes))
        typer.echo(f"coordinator {plan.coordinator}{through}; Citus {plan.citus}; {plan.shards} shards on {nodes}")
        if plan.is_distributed:
            missing = f"missing: {len(plan.tables)} tables" if plan.tables else "nothing to do"
            typer.echo(f"The database is distributed already; {missing}.")
        if not is_dry_run:
            return
        for table in plan.tables:
            kind = "by merchant" if table.by_merchant else "on each node"
            typer.echo(f"{table.name:<22}{kind:<14}{table.rows:>13,} rows {table.bytes / 2**20:>10,.1f} MiB")
        if plan.pending_migrations:
            typer.echo(f"{plan.pending_migrations} migrations will run first, and may add tables.")
        if plan.connections:
            typer.echo(f"Stop the sandbox first (connections: {plan.connections}).")
        typer.echo("Nothing was changed.")

    def show_copied(self, name: str, content: "Content") -> None:
        self._copied.append({"name": name, "rows": content.rows, "checksum": str(content.checksum)})
        if not self._as_json:
            typer.echo(f"{name:<22}{content.rows:>13,} rows, same checksum")

    def show_result(self, seconds: float, paused_seconds: float) -> None:
        if self._as_json:
            figures = {"seconds": round(seconds, 3), "paused_seconds": round(paused_seconds, 3)}
            typer.echo(json.dumps(self._json | {"tables": self._copied} | figures))
        elif self._copied and self._plan is not None:
            nodes = len(self._plan.nodes)
            typer.echo(
                f"Distributed {len(self._copied)} tables over {nodes} node{'s' if nodes > 1 else ''} in {seconds:.1f} seconds. "
                f"Writes were paused for {paused_seconds:.1f} seconds."
            )
