"""The environment that the processes of a run are given."""

import os
import sys

from sandbox.infrastructure.settings import DEVELOPMENT_ADMIN_KEY, Settings, SettingsError
from sandbox.runtime.listening import http_url
from sandbox.runtime.run_directories import RunDirectories, StartError, secret_key


def child_environment(
    directories: RunDirectories, database_url: str | None, redis_url: str | None, host: str, port: int, ipn_port: int
) -> dict[str, str]:
    """The environment of our own processes: the caller's, completed. A URL that is None is taken from the caller's.

    Raises StartError when the settings that come of it are wrong, before anything has been started.
    """
    env = dict(os.environ)
    if database_url is not None:
        # A caller's PGPORT, PGSSLMODE and the like would bend the connection to the embedded PostgreSQL.
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
    if not env.get("SANDBOX_ADMIN_KEY", "").strip():
        env["SANDBOX_ADMIN_KEY"] = DEVELOPMENT_ADMIN_KEY
    if not env.get("SANDBOX_SECRET_KEY", "").strip():
        env["SANDBOX_SECRET_KEY"] = secret_key(directories.data)
    env["PROMETHEUS_MULTIPROC_DIR"] = str(directories.metrics)
    env["PYTHONUNBUFFERED"] = "1"
    try:
        Settings.load(env)
    except SettingsError as error:
        raise StartError(str(error)) from error
    return env


def store_environment() -> dict[str, str]:
    """The environment of PostgreSQL and Redis: next to nothing, and none of the caller's secrets."""
    kept = ("PATH", "TMPDIR", "DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    # macOS: a locale from the system would make PostgreSQL multithreaded during its start, which it refuses.
    return env | {"LC_ALL": "C", "TZ": "UTC"} | ({"LANG": "C"} if sys.platform == "darwin" else {})
