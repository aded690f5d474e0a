"""Compile operations into plain ASGI applications, and let Litestar route requests to them."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ASGIApp, Receive, Scope, Send

from sandbox.http.middleware import Handler, Middleware
from sandbox.http.operation import Operation, takes_body
from sandbox.http.request import Request
from sandbox.http.responses import ProblemHandler, response_of

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


class _Router(Litestar):
    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        # The default ones help Litestar to read requests, which it never does here. Importing them, and Pydantic, costs 100 ms.
        return [*plugins, MsgspecDIPlugin()]


def create_litestar(
    operations: Iterable[Operation],
    middleware: Sequence[Middleware],
    public_url: str,
    body_limit: int,
    lifespan: Lifespan | None = None,
) -> Litestar:
    """A Litestar application that serves the operations, each behind those checks that it needs.

    `public_url` is where problem types are explained; `body_limit` is the maximum size of a body in bytes, for operations that
    have none of their own.
    """
    return _Router(
        [_route(operation, compile_operation(operation, middleware, public_url, body_limit)) for operation in operations],
        lifespan=[] if lifespan is None else [lifespan],
        exception_handlers={Exception: ProblemHandler(public_url)},
        openapi_config=None,
        logging_config=None,
    )


def compile_operation(operation: Operation, middleware: Sequence[Middleware], public_url: str, body_limit: int) -> ASGIApp:
    """The ASGI application of an operation: its checks in the order of `middleware`, then its handler.

    It raises what they raise, and leaves the request in the scope's state, where the request log finds it.
    """
    handler = _invoke(operation)
    for check in reversed(middleware):
        handler = check(operation, handler)
    limit = body_limit if operation.body_limit is None else operation.body_limit
    status = operation.status

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(operation, scope, receive, public_url, limit)
        scope["state"]["request"] = request
        response = response_of(await handler(request), status)
        await response(scope, receive, send)

    return application


def _invoke(operation: Operation) -> Handler:
    handler = operation.handler

    async def without_body(request: Request) -> Any:
        return await handler(request, **request.path_parameters)

    async def with_body(request: Request) -> Any:
        return await handler(request, body=request.body, **request.path_parameters)

    return with_body if takes_body(operation) else without_body


def _route(operation: Operation, application: ASGIApp) -> HTTPRouteHandler:
    """A route of Litestar's that leads to the application.

    The application stands where Litestar has a handler's middleware, and answers before any of Litestar's own reading of the
    request. Litestar's handlers for bare ASGI applications would do, had they path parameters.
    """

    def instead_of(app: ASGIApp) -> ASGIApp:
        return application

    async def endpoint() -> None:
        raise AssertionError("the operation's application answers in place of this")

    path = operation.path.replace("}", ":str}")
    route = HTTPRouteHandler(path, http_method=operation.method, name=operation.id, middleware=[instead_of])  # type: ignore[arg-type]  # a plain text is one of its methods
    return route(endpoint)
