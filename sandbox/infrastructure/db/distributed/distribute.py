"""Distribute a database over the nodes of its Citus cluster: `psp distribute`."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from sandbox.infrastructure.db.distributed.cluster import DISTRIBUTE_LOCK, Node
from sandbox.infrastructure.db.distributed.distributed_tables import (
    ANCHOR,
    Connection,
    Content,
    DistributionError,
    distribute_tables,
    read_tables,
)
from sandbox.infrastructure.db.functions import MIGRATION_LOCK
from sandbox.infrastructure.db.migrate import MigrationError, completed_migrations, migrate, migration_ids
from sandbox.infrastructure.db.statements import read_statements

_OLDEST_POSTGRESQL: Final = 150_000
_OLDEST_CITUS, _FIRST_UNKNOWN_CITUS = (12, 1), (15, 0)
_CONNECT_SECONDS: Final = 10
_LOCK_SECONDS: Final = 5

_SQL: Final = read_statements(__name__)


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A table to distribute, with its present rows, and its size with indexes."""

    name: str
    by_merchant: bool
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The work to do. It exists only if all checks have passed."""

    coordinator: Node
    url_names_worker: bool
    """Whether DATABASE_URL names a worker node. The work is done on the coordinator."""
    nodes: Sequence[Node]
    """The nodes that can have shards."""
    citus: str
    shards: int
    is_distributed: bool
    """Whether the database is already distributed. Then only tables of later migrations can be missing."""
    pending_migrations: int
    """The number of migrations that run first. `tables` does not include the tables that they create."""
    connections: int
    """The number of connections of running sandboxes, which must be stopped first."""
    tables: Sequence[PlannedTable]


@dataclass(frozen=True, slots=True)
class Result:
    """The finished work. `seconds` is its whole duration, `paused_seconds` the part in which writers had to wait."""

    seconds: float
    paused_seconds: float


async def plan_distribution(database_url: str, shards: int, role: str) -> Plan:
    """Check the database and its cluster, and return what `distribute` would do. Changes nothing. Raises DistributionError."""
    async with _errors(), _open(database_url) as cluster:
        return await cluster.plan(shards, role)


async def distribute(
    database_url: str, shards: int, role: str, on_planned: Callable[[Plan], None], on_copied: Callable[[str, Content], None]
) -> Result:
    """Migrate the database, and distribute its tables. If it is distributed already, distribute only those that are missing.

    All tables are distributed in one transaction: if it fails or is interrupted, they stay as they were. Calls `on_planned`
    once, and `on_copied` with the name of each table when it is distributed and has the same rows. Raises DistributionError.
    """
    started = time.monotonic()
    async with _errors(), _open(database_url) as cluster:
        plan = await cluster.plan(shards, role)
        if not plan.is_distributed:
            await cluster.lock_out_sandboxes()
        if plan.pending_migrations:
            try:
                await migrate(database_url, cluster.coordinator)
            except MigrationError as error:
                raise DistributionError(str(error)) from error
            plan = await cluster.plan(shards, role)
        await cluster.check_role(role)
        on_planned(plan)
        paused = time.monotonic()
        if plan.tables:
            async with cluster.conn.transaction():
                await cluster.conn.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
                tables = [table for table in await read_tables(cluster.conn, role) if not table.is_distributed]
                await distribute_tables(cluster.conn, tables, shards, lambda table, content: on_copied(table.name, content))
        finished = time.monotonic()
        return Result(finished - started, finished - paused)


@contextlib.asynccontextmanager
async def _errors() -> AsyncIterator[None]:
    """Turn PostgreSQL's errors into a DistributionError."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        parts = (str(error), getattr(error, "detail", None), getattr(error, "hint", None))
        raise DistributionError(f"PostgreSQL: {'. '.join(part.rstrip('.') for part in parts if part)}.") from error


@contextlib.asynccontextmanager
async def _open(database_url: str) -> AsyncIterator["_Cluster"]:
    """Connect to all nodes of the cluster to which the database belongs. Raises DistributionError if a check fails."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect(node: Node | None) -> Connection:
            name = "DATABASE_URL" if node is None else f"node {node} with the user, password and database of DATABASE_URL"
            try:
                conn = await _connect(database_url, node)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise DistributionError(f"Cannot connect to {name}: {type(error).__name__}: {error}") from error
            stack.push_async_callback(conn.close, timeout=_CONNECT_SECONDS)
            return conn

        entry = await connect(None)
        citus = await _check_versions(entry, "This server")
        nodes = [
            (record["groupid"], Node(record["nodename"], record["nodeport"]), record["isactive"], record["shouldhaveshards"])
            for record in await entry.fetch(_SQL["nodes"])
        ]
        if not nodes or nodes[0][0] != 0:
            raise DistributionError(
                "The cluster does not know its coordinator. On it, run SELECT citus_set_coordinator_host('HOST', PORT), then "
                "SELECT citus_add_node('HOST', PORT) for each worker. All nodes and the sandbox must reach these addresses."
            )
        for _, node, is_active, _ in nodes:
            if not is_active:
                raise DistributionError(
                    f"Node {node} is not active. Run SELECT citus_activate_node('{node.host}', {node.port})."
                )
        with_shards = [node for _, node, _, has_shards in nodes if has_shards]
        if not with_shards:
            raise DistributionError(
                "No node can have shards. Add a worker (SELECT citus_add_node('HOST', PORT)), or let the coordinator have "
                f"them (SELECT citus_set_node_property('{nodes[0][1].host}', {nodes[0][1].port}, 'shouldhaveshards', true))."
            )
        conns = {node: await connect(node) for _, node, _, _ in nodes}
        for node, conn in conns.items():
            version = await _check_versions(conn, f"Node {node}")
            if version != citus:
                raise DistributionError(
                    f"Node {node} has Citus {version}, but others have {citus}. Give all nodes the same version."
                )
        yield _Cluster(database_url, conns, with_shards, citus, url_names_worker=await entry.fetchval(_SQL["group"]) != 0)


async def _connect(database_url: str, node: Node | None, settings: dict[str, str] | None = None) -> Connection:
    address: dict[str, Any] = {} if node is None else {"host": node.host, "port": node.port}
    conn: Connection = await asyncpg.connect(database_url, **address, timeout=_CONNECT_SECONDS, server_settings=settings)
    return conn


async def _check_versions(conn: Connection, server: str) -> str:
    """Return the version of Citus. Raises DistributionError if it, or that of PostgreSQL, does not fit."""
    number = int(await conn.fetchval("SHOW server_version_num"))
    if number < _OLDEST_POSTGRESQL:
        raise DistributionError(f"{server} has PostgreSQL {number // 10_000}. PostgreSQL 15 or newer is needed.")
    version: str | None = await conn.fetchval(_SQL["citus"])
    if version is None:
        if not await conn.fetchval(_SQL["is_available"]):
            raise DistributionError(
                f"{server} does not have Citus. Install it on all nodes, and add citus to shared_preload_libraries."
            )
        raise DistributionError(
            f"{server} has Citus, but this database does not. Run CREATE EXTENSION citus in it, on all nodes. Then, on the "
            "coordinator, run SELECT citus_set_coordinator_host('HOST', PORT), and SELECT citus_add_node('HOST', PORT) for "
            "each worker node."
        )
    major, minor = map(int, version.partition("-")[0].split(".")[:2])
    if not _OLDEST_CITUS <= (major, minor) < _FIRST_UNKNOWN_CITUS:
        raise DistributionError(f"{server} has Citus {version}. Versions 12.1 to 14 are supported.")
    return version


class _Cluster:
    """Connections to all nodes of a cluster."""

    def __init__(
        self,
        database_url: str,
        conns: Mapping[Node, Connection],
        with_shards: Sequence[Node],
        citus: str,
        *,
        url_names_worker: bool,
    ) -> None:
        """`conns` begins with the coordinator."""
        self._database_url = database_url
        self.coordinator, self.conn = next(iter(conns.items()))
        self._conns = conns
        self._with_shards = with_shards
        self._citus = citus
        self._url_names_worker = url_names_worker

    async def plan(self, shards: int, role: str) -> Plan:
        """Check the tables, and return the plan. Raises DistributionError."""
        conn, completed = self.conn, set[str]()
        with contextlib.suppress(asyncpg.UndefinedTableError):  # nothing has run yet
            completed = await completed_migrations(conn)
        if completed - migration_ids():
            raise DistributionError("A newer release has migrated this database. Use the psp distribute of that release.")
        tables = await read_tables(conn, role)
        missing = [table for table in tables if not table.is_distributed]
        is_distributed = any(table.name == ANCHOR and table.is_distributed for table in tables)
        if not is_distributed:
            others = [record[0] for record in await conn.fetch(_SQL["other_tables"], [table.oid for table in tables])]
            if others:
                raise DistributionError(
                    f"The schema public has tables that are not the sandbox's: {', '.join(others)}. Move them to another "
                    "database or schema (ALTER TABLE … SET SCHEMA …)."
                )
        dependents = [record[0] for record in await conn.fetch(_SQL["dependents"], [table.oid for table in missing])]
        if dependents:
            raise DistributionError(
                f"These depend on the sandbox's tables: {', '.join(dependents)}. Drop them first, since Citus may refuse them."
            )
        planned = [
            PlannedTable(
                table.name,
                table.by_merchant,
                await conn.fetchval(f"SELECT count(*) FROM {table.name}"),  # noqa: S608 -- a name
                table.bytes,
            )
            for table in missing
        ]
        return Plan(
            coordinator=self.coordinator,
            url_names_worker=self._url_names_worker,
            nodes=self._with_shards,
            citus=self._citus,
            shards=await conn.fetchval(_SQL["shards"], ANCHOR) if is_distributed else shards,
            is_distributed=is_distributed,
            pending_migrations=len(migration_ids() - completed),
            connections=await self._count_connections(),
            tables=planned,
        )

    async def lock_out_sandboxes(self) -> None:
        """Keep processes of the sandbox from connecting, as long as these connections are open.

        Raises DistributionError if some are connected already.
        """
        try:
            for conn in self._conns.values():
                await conn.execute(f"SET lock_timeout = '{_LOCK_SECONDS}s'")
                await conn.execute("SELECT pg_advisory_lock($1)", DISTRIBUTE_LOCK)
                await conn.execute("RESET lock_timeout")
        except asyncpg.LockNotAvailableError:
            raise DistributionError("Another psp distribute is at work on this database. Wait until it has ended.") from None
        connections = await self._count_connections()
        if connections:
            raise DistributionError(
                f"A sandbox is running on this database (connections: {connections}). Stop its processes first."
            )

    async def check_role(self, role: str) -> None:
        """Raise DistributionError unless the sandbox can work in `role`, the application's, on all nodes."""
        for node, conn in self._conns.items():
            try:
                probe = await _connect(self._database_url, node, {"role": role})
            except (asyncpg.InvalidParameterValueError, asyncpg.InsufficientPrivilegeError) as error:
                user = await conn.fetchval("SELECT quote_ident(current_user)")
                raise DistributionError(
                    f"On node {node}, {error}. Run there, if needed: CREATE ROLE {role} NOLOGIN; GRANT {role} TO {user};"
                ) from error
            await probe.close(timeout=_CONNECT_SECONDS)

    async def _count_connections(self) -> int:
        return sum([await conn.fetchval(_SQL["sandbox_connections"]) for conn in self._conns.values()])
