"""`python -m sandbox.server.serve`: one API process, on a socket that it inherits (SANDBOX_LISTEN_FD) or on host and port."""

import asyncio
import gc
import os
import resource
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import uvicorn

from sandbox.infrastructure.logs import end_log_buffering
from sandbox.runtime.open_files import raise_limit_of_open_files
from sandbox.runtime.process_start import start_process
from sandbox.server.protocol import BoundedProtocol, Limits

_OTHER_FILES: Final = 256
"""Files that a process opens beside its connections, and more: stores, logs, a bulk credit's file."""


PRELOAD: Final = ("sandbox.server.app",)
"""The modules that `main` imports, for a supervisor that imports them before it forks."""


class Server(uvicorn.Server):
    """Checks its connections each second, and says when it is about to end, before it waits for requests under way."""

    leave: Callable[[], None] = staticmethod(lambda: None)

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in [found for found in self.server_state.connections if isinstance(found, BoundedProtocol)]:
                connection.check(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.leave()
        await super().shutdown(sockets)
        # uvicorn ends the process by the signal that it got, so nothing that runs at exit would write the last lines.
        end_log_buffering()


def bounded(app: Any, public_url: str, limits: Limits, **options: Any) -> uvicorn.Config:
    """uvicorn's configuration for an ASGI application, with connections within the limits.

    `public_url` is where problem types are explained; the options are uvicorn's own.
    """
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=cast(type[asyncio.Protocol], partial(BoundedProtocol, limits=limits, public_url=public_url)),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        date_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=75,
        backlog=2048,
        **options,
    )


def serve(app: Any, port: int, host: str, public_url: str, leave: Callable[[], None] = lambda: None) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT; requests under way are finished, for 10 s at most.

    `leave` is called first, to tell those that wait or stream that their time has come.
    """
    config = bounded(app, public_url, affordable(Limits()), host=host, port=port, lifespan="on")
    # What is loaded by now stays for good. Left out of collections, each of which would have every request wait for it.
    gc.freeze()
    server = Server(config)
    server.leave = leave
    inherited = os.environ.get("SANDBOX_LISTEN_FD", "")
    sockets = [socket.socket(fileno=int(inherited))] if inherited.isdigit() else None
    server.run(sockets=sockets)
    if not server.started:
        sys.exit(1)


def affordable(limits: Limits) -> Limits:
    """The limits with as many connections as the process may open files, which is raised as far as that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return replace(limits, connections=soft - _OTHER_FILES)
    return limits


def main() -> None:
    """Serve the API, or say in one line which setting is wrong and exit 1."""
    from sandbox.server.app import create_app

    settings = start_process("api")
    raise_limit_of_open_files()
    application = create_app(settings)
    serve(application.asgi, settings.port, settings.host, settings.public_url, application.leave)


if __name__ == "__main__":
    main()
