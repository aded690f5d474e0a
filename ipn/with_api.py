"""`python -m ipn.with_api`: the API and the IPN receiver in one process, on a port each, as `psp up` runs them.

They share the connections, the queues and the memory of one process. If it dies, both are restarted; meanwhile their sockets
stay open, so requests wait. To keep one from affecting the other, run them as processes of their own, as in containers:
`python -m sandbox.server.serve` and `python -m ipn`.
"""

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from ipn.app import callback_application
from sandbox.server import serve
from sandbox.server.readiness import Readiness
from sandbox.server.runtime.open_files import raise_open_file_limit
from sandbox.server.runtime.process_start import start_process

PRELOAD = serve.PRELOAD


def by_port(api: ASGIApp, ipn: ASGIApp, ipn_port: int) -> ASGIApp:
    """Return an application that passes the requests that arrive on the IPN port to `ipn`, and all else to `api`."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        address = scope.get("server")
        is_callback = scope["type"] == ScopeType.HTTP and address is not None and address[1] == ipn_port
        await (ipn if is_callback else api)(scope, receive, send)

    return application


def main() -> None:
    """Serve both. If a setting is not valid, print one line that names it and exit with code 1."""
    from sandbox.server.app import create_app

    settings = start_process("api")
    raise_open_file_limit()
    api = create_app(settings)
    readiness = Readiness(api.redis, with_worker=False)  # callbacks need no worker
    ipn = callback_application(settings, api.work, api.journal, readiness)
    serve.serve(by_port(api.asgi, ipn, settings.ipn_port), settings.port, settings, api.on_shutdown)


if __name__ == "__main__":
    main()
