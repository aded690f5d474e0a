"""Run the application under test in a thread, with its webhook endpoint and its secret."""

import asyncio
import functools
import inspect
import io
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from psp_sandbox.testing.receiver import LOOPBACK
from psp_sandbox.testing.recording import Recording
from psp_sandbox.testing.webhooks import GATE_SECONDS, Inbox, Received, host_seconds

if TYPE_CHECKING:
    import httpx

Interface = Literal["asgi", "wsgi"]
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_ASGI_NAMES: Final = ("scope", "receive", "send")
_MAPPINGS: Final = ("env", "environ", "config", "settings")


class AppError(Exception):
    """The application could not be created or started."""


class StartApp(Protocol):
    """The fixture `live_app`. See `World.live_app`."""

    def __call__(
        self,
        target: Any,
        /,
        *,
        path: str = "/webhooks",
        interface: Interface | None = None,
        endpoint: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> "LiveApp":
        """Run an application until the test ends."""


class Server(Protocol):
    """A running server."""

    def stop(self) -> None:
        """Stop it, and wait for requests in progress."""


@dataclass(slots=True)
class LiveApp:
    """An application that runs on its own port, with a webhook endpoint that sends to it."""

    app: Any
    """What the factory returned, or the application that was passed."""
    url: str
    port: int
    webhook_url: str
    webhook_secret: str
    endpoint_id: str
    _server: Server
    _recording: Recording
    _client: "httpx.Client | None" = None

    @property
    def client(self) -> "httpx.Client":
        """An httpx client for the application, with its URL as the base URL."""
        if self._client is None:
            self._client = self._recording.client(self.url)
        return self._client

    def stop(self) -> None:
        """Stop the application. Its webhook endpoint stays, so that deliveries fail as if the application were down."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self._server.stop()


@dataclass(frozen=True, slots=True)
class Door:
    """Records the requests that arrive at an application's webhook path, and its answers."""

    inbox: Inbox
    path: str
    secret: str | None

    def knock(self, headers: Iterable[tuple[str, str]], body: bytes) -> Received:
        """Record a request before the application sees it."""
        return self.inbox.add(self.secret, headers, body)

    async def knock_async(self, headers: Iterable[tuple[str, str]], body: bytes) -> Received:
        """Do the same in the application's event loop, which must not wait for the gate."""
        received = self.inbox.read(self.secret, headers, body)
        while (gate := self.inbox.gate) is not None and not await asyncio.to_thread(gate, received):  # noqa: ASYNC110 (other threads open it)
            await asyncio.sleep(GATE_SECONDS)
        return self.inbox.record(received)


def bind(address: str = LOOPBACK) -> socket.socket:
    """Return a socket that listens on a free port. Connections wait until a server accepts them."""
    server_socket = socket.socket()
    server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server_socket.bind((address, 0))
    server_socket.listen(128)
    return server_socket


def interface_of(target: Any) -> Interface | None:
    """Return which interface an application has, or None if it is a factory. Raises TypeError if it cannot be called."""
    if not callable(target):
        raise TypeError(f"live_app needs an ASGI or WSGI application, or a function that returns one, not {target!r}")
    if inspect.isclass(target):
        return None
    is_function = inspect.isroutine(target) or isinstance(target, functools.partial)
    call = target if is_function else type(target).__call__
    names = _positional(target)
    if inspect.iscoroutinefunction(call) and len(names) == 3:
        return "asgi"
    if tuple(names) == _ASGI_NAMES:
        return "asgi"
    if len(names) == 2 and (names[1] == "start_response" or not is_function):
        return "wsgi"
    return None


def _positional(target: Any) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in _parameters(target) if one.kind in kinds and one.default is one.empty]


def _parameters(target: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):  # a built-in callable has no signature
        return []


def create(factory: Callable[..., Any], offered: Mapping[str, Any], env: Mapping[str, str], given: Mapping[str, Any]) -> Any:
    """Call a factory with `given` and with what it asks for by name, and return its application.

    It can ask for any name of `offered`, and for all variables as a mapping named env, environ, config or settings. Raises
    AppError if it requires something else.
    """
    passed = dict(given)
    for parameter in _parameters(factory):
        name = parameter.name
        if name in passed or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if name in offered:
            passed[name] = offered[name]
        elif name in _MAPPINGS and parameter.default is parameter.empty:
            passed[name] = dict(env)
        elif parameter.default is parameter.empty:
            known = ", ".join([*sorted(offered), *_MAPPINGS])
            raise AppError(
                f"{_name(factory)} requires {name!r}. live_app passes {known}; pass anything else as a keyword: "
                f"live_app({_name(factory)}, {name}=...)."
            )
    if inspect.iscoroutinefunction(factory):
        return asyncio.run(factory(**passed))
    return factory(**passed)


def _name(target: Any) -> str:
    return str(getattr(target, "__name__", target))


def serve(app: Any, interface: Interface | None, server_socket: socket.socket, door: Door) -> Server:
    """Run an application in a thread until it is stopped.

    Raises AppError if it does not start, or if its interface is unknown.
    """
    found = interface or (interface_of(app) if callable(app) else None)
    if found is None:
        raise AppError(f"{app!r} is neither an ASGI nor a WSGI application. If it is one, pass interface='asgi' or 'wsgi'.")
    return _AsgiServer(app, server_socket, door) if found == "asgi" else _WsgiServer(app, server_socket, door)


Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def _ended(received: Received) -> None:
    """Note that an application has ended its work on a webhook by an exception, unless it had answered."""
    if received.answered_at is None:
        received.answered_at = host_seconds()


class _AsgiDoor:
    def __init__(self, app: Any, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != self._door.path:
            await self._app(scope, receive, send)
            return
        parts: list[bytes] = []
        is_complete = False
        while not is_complete:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            is_complete = not message.get("more_body", False)
        body = b"".join(parts)
        received = await self._door.knock_async(
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]], body
        )
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        async def watch(message: Message) -> None:
            # Record the answer before it is sent: the test may look as soon as the sandbox has it.
            if message["type"] == "http.response.start":
                message = {**message, "status": await self._answered(received, message["status"])}
            elif message["type"] == "http.response.body":
                received.answer += message.get("body", b"")
            await send(message)

        try:
            await self._app(scope, replay, watch)
        except BaseException:
            received.status = received.status or 500
            _ended(received)
            raise

    async def _answered(self, received: Received, status: int) -> int:
        if self._door.inbox.on_answer is None:
            return self._door.inbox.answered(received, status)
        # `on_answer` may restart the application by a request to it, so the application's event loop must not wait for it.
        return await asyncio.to_thread(self._door.inbox.answered, received, status)


class _AsgiServer:
    """uvicorn in a thread."""

    def __init__(self, app: Any, server_socket: socket.socket, door: Door) -> None:
        try:
            import uvicorn
        except ImportError:
            raise AppError("an ASGI application needs a server: pip install uvicorn") from None
        config = uvicorn.Config(
            _AsgiDoor(app, door), interface="asgi3", loop="asyncio", log_config=None, log_level="warning", access_log=False,
            timeout_graceful_shutdown=int(_STOP_SECONDS), ws="none",
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(server_socket,), name="psp-live-app", daemon=True)
        log = _ErrorLog()
        logger = logging.getLogger("uvicorn.error")
        logger.addHandler(log)
        try:
            self._thread.start()
            deadline = time.monotonic() + _START_SECONDS
            while not self._server.started:
                self._thread.join(0.002)
                if not self._thread.is_alive() or time.monotonic() > deadline:
                    self._server.should_exit = True
                    what = "did not start" if not self._thread.is_alive() else f"did not start within {_START_SECONDS:g} s"
                    raise AppError(f"the application {what}: {log.text or self._error or 'it gave no reason'}") from self._error
        finally:
            logger.removeHandler(log)

    def _run(self, server_socket: socket.socket) -> None:
        try:
            self._server.run(sockets=[server_socket])
        except BaseException as error:  # reported by __init__; uvicorn raises SystemExit if the lifespan failed
            self._error = error

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS * 2)


class _ErrorLog(logging.Handler):
    """Keeps what uvicorn says about a failed start."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{record.getMessage()}\n"


class _WsgiServer:
    """The standard library's server, with a thread for each request."""

    def __init__(self, app: Any, server_socket: socket.socket, door: Door) -> None:
        self._server = _ThreadingServer(server_socket)
        self._server.set_app(_wsgi_door(app, door))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="psp-live-app", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_STOP_SECONDS)


class _ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, server_socket: socket.socket) -> None:
        super().__init__(server_socket.getsockname(), _WsgiHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = server_socket
        host, port = server_socket.getsockname()
        # Set the same as `server_bind`, which would also look up the host's name.
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()


class _WsgiHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _wsgi_door(app: Any, door: Door) -> Callable[..., Iterable[bytes]]:
    def record(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST" or environ.get("PATH_INFO") != door.path:
            result: Iterable[bytes] = app(environ, start_response)
            return result
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        headers = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")]
        headers.append(("content-type", environ.get("CONTENT_TYPE", "")))
        received = door.knock(headers, body)
        environ["wsgi.input"] = io.BytesIO(body)

        def watch(status: str, *arguments: Any) -> Any:
            given = int(status.split()[0])
            sent = door.inbox.answered(received, given)
            return start_response(status if sent == given else f"{sent} {HTTPStatus(sent).phrase}", *arguments)

        try:
            answer = app(environ, watch)
            try:
                received.answer = b"".join(answer)
            finally:
                if hasattr(answer, "close"):
                    answer.close()
        except BaseException:
            received.status = 500
            _ended(received)
            raise
        return [received.answer]

    return record
