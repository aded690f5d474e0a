"""`psp doctor`: what would keep `psp up` from starting here, found without starting it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from sandbox.cli.failures import check_failed


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `detail` says what was found, or what to do about it."""

    check: str
    ok: bool
    detail: str


def doctor(
    data: Annotated[Path, typer.Option("--data", help="The data directory to check.")] = Path(".psp"),
    host: Annotated[str, typer.Option("--host", help="The address psp up would listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The API's port.")] = 8000,
    ipn_port: Annotated[int, typer.Option("--ipn-port", min=0, max=65535, help="The IPN receiver's port.")] = 8001,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check this machine and the settings. The exit code is 1 if something would keep `psp up` from starting."""
    findings = examine(data, host, port, ipn_port)
    healthy = all(finding.ok for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": healthy, "checks": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:<12} {finding.detail}")
    if not healthy:
        raise check_failed(f"These checks failed: {', '.join(finding.check for finding in findings if not finding.ok)}.")


def examine(data: Path, host: str, port: int, ipn_port: int) -> list[Finding]:
    """Every check in turn; one that breaks is a finding and stops none of the others."""
    import asyncio  # here, as other commands need none

    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("settings", lambda: _settings(host, port, ipn_port)),
        ("data", lambda: _data(data)),
        ("port", lambda: _port(host, port, "--port")),
        ("ipn port", lambda: _port(host, ipn_port, "--ipn-port")),
    ]
    database_url, redis_url = (os.environ.get(name, "").strip() for name in ("DATABASE_URL", "REDIS_URL"))
    if database_url:
        checks.append(("database", lambda: asyncio.run(_database(database_url))))
    else:
        checks.append(("postgres", _postgres))
    checks.append(("redis", (lambda: asyncio.run(_redis(redis_url))) if redis_url else _embedded_redis))
    return [_look(name, check) for name, check in checks]


def _look(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except Exception as error:
        # Any failure is this check's finding, and the next one still has to be made.
        return Finding(name, False, str(error) or type(error).__name__)


def _python() -> str:
    if sys.version_info < (3, 11):  # noqa: UP036 (an interpreter that was installed into by force)
        raise RuntimeError(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")
    return sys.version.split()[0]


def _settings(host: str, port: int, ipn_port: int) -> str:
    from sandbox.infrastructure.settings import Settings

    # What psp up would supply itself is filled in, so that only what the caller has set is judged.
    supplied = {
        "DATABASE_URL": "postgresql:///sandbox",
        "REDIS_URL": "unix:///redis.sock",
        "SANDBOX_SECRET_KEY": "A" * 43 + "=",
    }
    given = {name: value for name, value in os.environ.items() if value.strip()}
    Settings.load(supplied | given | {"SANDBOX_HOST": host, "SANDBOX_PORT": str(port), "SANDBOX_IPN_PORT": str(ipn_port)})
    return "all settings are valid"


def _data(data: Path) -> str:
    place = data.expanduser().resolve()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise RuntimeError(f"{place} is not a directory; give another one with --data.")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise RuntimeError(f"{place} cannot be written ({error.strerror}); give another one with --data.") from error
    return f"{place} can be written"


def _port(host: str, port: int, option: str) -> str:
    from sandbox.runtime.listening import listen_all

    for listener in listen_all(host, {option: port}):
        listener.close()
    return f"{port} on {host} is free" if port else "a free one will be picked"


def _postgres() -> str:
    from sandbox.runtime.postgres import postgres_binaries

    return _answer(postgres_binaries() / "postgres")


def _embedded_redis() -> str:
    from sandbox.runtime.redis_server import redis_binary

    return _answer(redis_binary())


def _answer(program: Path) -> str:
    try:
        asked = subprocess.run(  # noqa: S603 (one of the two programs that we ship)
            [str(program), "--version"], check=True, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{program} cannot be run here ({error}).") from error
    return asked.stdout.strip().splitlines()[0]


async def _database(url: str) -> str:
    import asyncpg

    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # The URL may carry a password, so the sentence names only the host.
        raise RuntimeError(f"DATABASE_URL ({urlsplit(url).hostname or 'local'}) does not answer: {error}") from error
    try:
        number = int(await connection.fetchval("SHOW server_version_num"))
    finally:
        await connection.close()
    if number < 150_000:
        raise RuntimeError(f"PostgreSQL 15 or newer is needed; DATABASE_URL has version {number // 10_000}.")
    return f"PostgreSQL {number // 10_000} answers"


async def _redis(url: str) -> str:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    client = Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
    try:
        await client.ping()
    except (TimeoutError, OSError, RedisError) as error:
        raise RuntimeError(f"REDIS_URL ({urlsplit(url).hostname or 'local'}) does not answer: {error}") from error
    finally:
        await client.aclose()
    return "Redis answers"
