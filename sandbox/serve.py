"""`python -m sandbox.serve`: one API process, on a socket that it inherits (SANDBOX_LISTEN_FD) or on host and port."""

import gc
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from sandbox.logs import configure_logs
from sandbox.runtime.lifeline import follow_lifeline
from sandbox.settings import Settings, SettingsError


class _Server(uvicorn.Server):
    """Says when it is about to end, before it waits for requests under way."""

    leave: Callable[[], None]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.leave()
        await super().shutdown(sockets)


def serve(app: Any, port: int, host: str, leave: Callable[[], None] = lambda: None) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT; requests under way are finished, for 10 s at most.

    `leave` is called first, to tell those that wait or stream that their time has come.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        date_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=75,
        backlog=2048,
    )
    # What is loaded by now stays for good. Left out of collections, each of which would have every request wait for it.
    gc.freeze()
    server = _Server(config)
    server.leave = leave
    inherited = os.environ.get("SANDBOX_LISTEN_FD", "")
    sockets = [socket.socket(fileno=int(inherited))] if inherited.isdigit() else None
    server.run(sockets=sockets)
    if not server.started:
        sys.exit(1)


def main() -> None:
    """Serve the API, or say in one line which setting is wrong and exit 1."""
    from sandbox.app import create_app

    follow_lifeline()
    try:
        settings = Settings.load()
    except SettingsError as error:
        sys.exit(f"settings: {error}")
    configure_logs(settings.log_level, settings.log_format, "api")
    application = create_app(settings)
    serve(application.asgi, settings.port, settings.host, application.leave)


if __name__ == "__main__":
    main()
