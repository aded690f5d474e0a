"""Compile operations into plain ASGI applications, and have Litestar route requests to them."""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import chain
from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ASGIApp, Receive, Scope, Send

from sandbox.http.middleware import Handler, Middleware
from sandbox.http.operation import PARTS, Operation, request_parameters
from sandbox.http.request import Request
from sandbox.http.responses import ProblemHandler, response_of

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


class _App(Litestar):
    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        # The default plugins parse requests, which Litestar never does here. Importing them, with Pydantic, takes 100 ms.
        return [*plugins, MsgspecDIPlugin()]


def create_litestar(
    operations: Iterable[Operation],
    middleware: Sequence[Middleware],
    public_url: str,
    body_limit: int,
    lifespan: Lifespan | None = None,
) -> Litestar:
    """Return a Litestar application that serves the operations, each behind the middleware that applies to it.

    `public_url` is the base URL of the problem pages. `body_limit` is the maximum body size in bytes, for operations that set
    no limit themselves.
    """
    routes: dict[str, list[HTTPRouteHandler]] = {}
    for operation in operations:
        application = compile_operation(operation, middleware, public_url, body_limit)
        of_path = routes.setdefault(operation.path, [])
        of_path.append(_route(operation, application, is_first=not of_path))
    return _App(
        list(chain.from_iterable(routes.values())),
        lifespan=[] if lifespan is None else [lifespan],
        exception_handlers={Exception: ProblemHandler(public_url)},
        openapi_config=None,
        logging_config=None,
    )


def compile_operation(operation: Operation, middleware: Sequence[Middleware], public_url: str, body_limit: int) -> ASGIApp:
    """Return the ASGI application of an operation: its checks in the order of `middleware`, then its handler.

    The application does not catch their exceptions. It stores the request in the scope's state for the request log.
    """
    handler = _handler_of(operation)
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


def _handler_of(operation: Operation) -> Handler:
    handler = operation.handler
    parts = [(name, PARTS[name]) for name in request_parameters(operation)]

    async def handle(request: Request) -> Any:
        return await handler(**{name: part(request) for name, part in parts}, **request.path_parameters)

    return handle


def _route(operation: Operation, application: ASGIApp, *, is_first: bool) -> HTTPRouteHandler:
    """Return a Litestar route to the application. `is_first` is whether its path has no other route yet.

    The application is installed as the handler's middleware, so it responds before Litestar parses the request. Litestar's
    handlers for plain ASGI applications do not support path parameters.
    """
    # Litestar adds a handler for OPTIONS to each path that has none, which is half of the time to build the application.
    # `RequestLog` never routes OPTIONS to a handler.
    methods = [operation.method, "OPTIONS"] if is_first else [operation.method]

    def replace_endpoint(app: ASGIApp) -> ASGIApp:
        return application

    async def endpoint() -> None:
        raise AssertionError("the operation's application runs in place of this endpoint")

    path = re.sub(r"{(\w+)}", r"{\1:str}", operation.path)
    route = HTTPRouteHandler(path, http_method=methods, name=operation.id, middleware=[replace_endpoint])  # type: ignore[arg-type]  # strings, not its Method literals
    return route(endpoint)
