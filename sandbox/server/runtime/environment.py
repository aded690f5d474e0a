"""The environment variables of a run's processes."""

import os
import sys

from psp_sandbox import application
from sandbox.infrastructure.settings import DEVELOPMENT_ADMIN_KEY, Settings, SettingsError
from sandbox.server.runtime.listening_sockets import http_url
from sandbox.server.runtime.run_directories import RunDirectories, StartError, secret_key


def child_environment(
    directories: RunDirectories, database_url: str | None, redis_url: str | None, host: str, port: int, ipn_port: int
) -> dict[str, str]:
    """Return the environment of the sandbox's processes: the caller's environment, with missing settings added.

    If a URL is None, the caller's environment has it. Raises StartError if a setting is not valid, before anything starts.
    """
    env = dict(os.environ)
    if database_url is not None:
        # The caller's PGPORT, PGSSLMODE and so on would break the connection to the embedded PostgreSQL.
        env = {name: value for name, value in env.items() if not name.startswith("PG")}
        env["DATABASE_URL"] = database_url
        if not env.get("SANDBOX_WEBHOOK_ALLOW", "").strip():
            env["SANDBOX_WEBHOOK_ALLOW"] = "loopback"
    if redis_url is not None:
        env["REDIS_URL"] = redis_url
    env["SANDBOX_HOST"] = host
    env["SANDBOX_PORT"] = str(port)
    env["SANDBOX_IPN_PORT"] = str(ipn_port)
    if not env.get("SANDBOX_PUBLIC_URL", "").strip():
        env["SANDBOX_PUBLIC_URL"] = http_url(host, port)
    if not env.get("SANDBOX_IPN_URL", "").strip():
        env["SANDBOX_IPN_URL"] = http_url(host, ipn_port)
    if not env.get("SANDBOX_ADMIN_KEY", "").strip():
        env["SANDBOX_ADMIN_KEY"] = DEVELOPMENT_ADMIN_KEY
    if not env.get("SANDBOX_SECRET_KEY", "").strip():
        env["SANDBOX_SECRET_KEY"] = secret_key(directories.data)
    env["PROMETHEUS_MULTIPROC_DIR"] = str(directories.metrics)
    env["PYTHONUNBUFFERED"] = "1"
    # First, because the caller's folders may contain a `worker` or `seeds` package too. A user's command does not get this.
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (application.FOLDER, os.environ.get("PYTHONPATH"))))
    try:
        Settings.load(env)
    except SettingsError as error:
        raise StartError(str(error)) from error
    return env


def store_environment() -> dict[str, str]:
    """Return the environment of PostgreSQL and Redis: only what they need, without the caller's secrets."""
    inherited = ("PATH", "TMPDIR", "DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in inherited if name in os.environ}
    # On macOS, a system locale starts threads in PostgreSQL, which then refuses to start.
    return env | {"LC_ALL": "C", "TZ": "UTC"} | ({"LANG": "C"} if sys.platform == "darwin" else {})
