"""`python -m sandbox.server.serve`: one API process, on inherited sockets (SANDBOX_LISTEN_FD) or on host and port."""

import asyncio
import gc
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import uvicorn

from sandbox.http.hosts import host_check
from sandbox.infrastructure import tracing
from sandbox.infrastructure.logs import end_log_buffering
from sandbox.infrastructure.settings import Settings
from sandbox.server.protocol import BoundedProtocol, Limits
from sandbox.server.runtime.open_files import raise_open_file_limit
from sandbox.server.runtime.process_start import start_process

_RESERVED_FILES: Final = 256
"""File descriptors reserved for everything but client connections: stores, logs, a bulk credit's file."""
PRELOAD: Final = ("sandbox.server.app", "uvicorn.lifespan.on", "uvicorn.loops.uvloop", "anyio._backends._asyncio")
"""The modules that are imported once the server starts; a supervisor imports them before it forks."""


class Server(uvicorn.Server):
    """Checks its connections every second. Calls `on_shutdown` before it waits for pending requests."""

    on_shutdown: Callable[[], None] = staticmethod(lambda: None)

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in [found for found in self.server_state.connections if isinstance(found, BoundedProtocol)]:
                connection.check(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.on_shutdown()
        await super().shutdown(sockets)
        # uvicorn ends the process with the signal that it received, so no exit handler would flush the spans and the log.
        tracing.stop()
        end_log_buffering()


def uvicorn_config(app: Any, public_url: str, own_hosts: Iterable[str], limits: Limits, **options: Any) -> uvicorn.Config:
    """Return uvicorn's configuration for an ASGI application whose connections have these limits.

    `public_url` is the base URL of the problem pages, and `own_hosts` are the host names that it answers to, besides those of
    this machine; the options are uvicorn's.
    """
    protocol = partial(BoundedProtocol, limits=limits, public_url=public_url, check_host=host_check(own_hosts))
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=cast(type[asyncio.Protocol], protocol),
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


def serve(app: Any, port: int, settings: Settings, on_shutdown: Callable[[], None] = lambda: None) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT, then finish pending requests for up to 10 s.

    It listens on the port or, if SANDBOX_LISTEN_FD names inherited sockets, separated by commas, on all of these.
    A shutdown first calls `on_shutdown`, which must end long polls and streams.
    """
    limits = fit_to_open_files(Limits())
    config = uvicorn_config(app, settings.public_url, settings.own_hosts, limits, host=settings.host, port=port, lifespan="on")
    # Objects loaded so far live as long as the process. Exclude them from garbage collections, which pause all requests.
    gc.freeze()
    server = Server(config)
    server.on_shutdown = on_shutdown
    inherited = os.environ.get("SANDBOX_LISTEN_FD", "").split(",")
    server.run(sockets=[socket.socket(fileno=int(number)) for number in inherited if number.isdigit()] or None)
    if not server.started:
        sys.exit(1)


def fit_to_open_files(limits: Limits) -> Limits:
    """Return the limits with at most as many connections as the process may open files.

    Raises the soft limit of open files first, up to the hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limits.connections + _RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return replace(limits, connections=soft - _RESERVED_FILES)
    return limits


def main() -> None:
    """Serve the API. If a setting is not valid, print one line that names it and exit with code 1."""
    from sandbox.server.app import create_app

    settings = start_process("api")
    raise_open_file_limit()
    application = create_app(settings)
    serve(application.asgi, settings.port, settings, application.on_shutdown)


if __name__ == "__main__":
    main()
