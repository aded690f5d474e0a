"""The applications of one test, and the webhook endpoints that deliver to them."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final, Protocol

from psp_sandbox.client import Client
from psp_sandbox.testing.live_app import AppError, Door, Interface, LiveApp, bind, create, interface_of, serve
from psp_sandbox.testing.live_process import LiveProcess, free_port
from psp_sandbox.testing.one_clock.library import OneClockError, require_following
from psp_sandbox.testing.options import UsageError
from psp_sandbox.testing.receiver import Mailbox, listening_address
from psp_sandbox.testing.recording import Recording, Start
from psp_sandbox.testing.sandbox import Sandbox
from psp_sandbox.testing.webhooks import Inbox

_LIST_LIMIT: Final = 100


class Merchant(Protocol):
    """What applications need from a test's merchant."""

    url: str
    api_key: str
    webhook_secret: str
    merchant_id: str
    recording: Recording

    @property
    def env(self) -> dict[str, str]:
        """The variables that an application needs."""

    @property
    def client(self) -> Client:
        """A client with the merchant's key."""

    @property
    def sandbox(self) -> Sandbox:
        """The session's sandbox."""

    @property
    def received(self) -> Inbox:
        """Where everything that arrives is recorded."""

    @property
    def is_process_frozen(self) -> bool:
        """Whether the clock of this process is frozen along with the merchant's."""


class Apps:
    """Starts the applications of a test, and stops them when it ends.

    The first application takes over the endpoint of the plugin's own receiver, so that every event still has one delivery.
    """

    def __init__(self, world: Merchant, url: str, mailbox: Mailbox) -> None:
        self._world = world
        self._own_url = url
        self._mailbox = mailbox
        self._cleanups = ExitStack()
        self._apps: list[LiveApp] = []
        self.processes: list[LiveProcess] = []

    @property
    def first(self) -> LiveApp | LiveProcess | None:
        """The application that was started first."""
        every: list[LiveApp | LiveProcess] = [*self._apps, *self.processes]
        return every[0] if every else None

    @property
    def has_app(self) -> bool:
        """Whether the test ran an application, or passes its webhooks on to one."""
        return bool(self._apps or self.processes) or self._mailbox.forward_to is not None

    def run(
        self,
        target: Any,
        path: str,
        interface: Interface | None,
        endpoint: Mapping[str, Any],
        arguments: Mapping[str, Any],
    ) -> LiveApp:
        """Run an application in a thread of this process. See `World.live_app`."""
        _check_path(path)
        world = self._world
        address = listening_address(world.sandbox.webhook_host)
        server_socket = bind(address)
        try:
            port = server_socket.getsockname()[1]
            url, webhook_url = f"http://{address}:{port}", f"http://{world.sandbox.webhook_host}:{port}{path}"
            endpoint_id, secret = self._create_endpoint(webhook_url, endpoint)
            env = {**world.env, "PSP_WEBHOOK_SECRET": secret, "PORT": str(port)}
            self._set_environment(env)
            app = target
            if interface_of(target) is None and interface is None:
                offered = {
                    "psp": world, "psp_url": world.url, "api_key": world.api_key, "webhook_secret": secret, "port": port,
                    "url": url, "webhook_url": webhook_url,
                }  # fmt: skip
                app = create(target, offered, env, arguments)
            elif arguments:
                raise AppError(
                    f"{target!r} is an application, not a function that returns one, "
                    f"so it cannot be given {', '.join(arguments)}."
                )
            server = serve(app, interface, server_socket, Door(world.received, path, secret if _is_checked(endpoint) else None))
        except BaseException:
            server_socket.close()
            raise
        live = LiveApp(app, url, port, webhook_url, secret, endpoint_id, server, world.recording)
        options = {"path": path, **({"endpoint": endpoint} if endpoint else {}), **arguments}
        world.recording.starts.append(_start_of(target, options))
        self._cleanups.callback(live.stop)
        self._apps.append(live)
        return live

    def start(
        self,
        command: Sequence[str | os.PathLike[str]],
        path: str,
        ready: str | None,
        env: Mapping[str, str],
        cwd: str | os.PathLike[str] | None,
        timeout: float,
        endpoint: Mapping[str, Any],
        one_clock: bool,
    ) -> LiveProcess:
        """Run an application as a process. See `World.live_process`."""
        _check_path(path)
        if isinstance(command, str) or not command:
            raise UsageError(f'live_process takes a list, such as ["node", "app.js"], not {command!r}')
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        endpoint_id, secret = self._pass_on_to(f"{url}{path}", endpoint)
        clocks = self._one_clock(os.fspath(command[0])) if one_clock else {}
        given = {**os.environ, **self._world.env, "PSP_WEBHOOK_SECRET": secret, "PORT": str(port), **clocks, **env}
        words = tuple(os.fspath(word).replace("{port}", str(port)) for word in command)
        live = LiveProcess(
            words, url, port, f"{url}{path}", secret, endpoint_id, given, cwd, ready, timeout, self._world.recording
        )
        options = {
            "path": path,
            "ready": ready,
            "cwd": cwd and os.path.abspath(cwd),
            "env": dict(env),
            "endpoint": dict(endpoint),
        }
        shown = {name: _code(value) for name, value in options.items() if value}
        target = _code([os.fspath(word) for word in command])
        self._world.recording.starts.append(Start(fixture="live_process", target=target, options=shown))
        self._cleanups.callback(live.close)
        self.processes.append(live)
        live.start()
        return live

    def forward(self, url: str) -> None:
        """Pass the webhooks of the plugin's own endpoint on. See `World.forward_webhooks`."""
        if self._apps or self.processes:
            raise UsageError(
                "psp.forward_webhooks is for an application that the plugin does not run. "
                "Use either it or live_app and live_process."
            )
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url!r} is not a URL such as http://127.0.0.1:3000/webhooks")
        self._mailbox.forward_to = url

    def _create_endpoint(self, url: str, fields: Mapping[str, Any]) -> tuple[str, str]:
        """Make a webhook endpoint that sends to a URL, and return its id and secret."""
        world = self._world
        fields = {**({"signing_time": "merchant"} if world.is_process_frozen else {}), **fields}
        endpoints = world.client.webhook_endpoints
        own = self._take_over()
        if own and "signing" not in fields:
            endpoints.change(own[0], url=url, **fields)
            return own[0], world.webhook_secret
        for one in own:
            endpoints.delete(one)
        created = endpoints.create(url=url, **fields)
        return created.id, created.secret or ""

    def _pass_on_to(self, url: str, fields: Mapping[str, Any]) -> tuple[str, str]:
        """Pass the webhooks of an endpoint on to a URL, and return its id and secret.

        The application is another process, so they can only be recorded before it gets them.
        """
        world = self._world
        own = self._take_over()
        if own and "signing" not in fields:
            if fields:
                world.client.webhook_endpoints.change(own[0], **fields)
            self._mailbox.forward_to = url
            return own[0], world.webhook_secret
        for one in own:
            world.client.webhook_endpoints.delete(one)
        receiver_url, mailbox = world.sandbox.receiver.open(world.received)
        self._cleanups.callback(world.sandbox.receiver.close_path, receiver_url)
        mailbox.forward_to = url
        created = world.client.webhook_endpoints.create(url=receiver_url, **fields)
        mailbox.secret = created.secret if _is_checked(fields) else None
        return created.id, created.secret or ""

    def _one_clock(self, command: str) -> dict[str, str]:
        world = self._world
        try:
            require_following(command)
            clocks = world.sandbox.clocks
        except OneClockError as error:
            raise AppError(str(error)) from None
        clock = clocks.follow(world.merchant_id, world.api_key, world.client.clock.get().now)
        world.received.application_time = lambda: clock.now.timestamp()
        return clocks.environment(clock)

    def _take_over(self) -> list[str]:
        """Return the id of the plugin's own endpoint if no application has taken it over yet."""
        if self._apps or self.processes:
            return []
        endpoints = self._world.client.webhook_endpoints.list(limit=_LIST_LIMIT)
        return [one.id for one in endpoints if one.url == self._own_url]

    def _set_environment(self, env: Mapping[str, str]) -> None:
        before = {name: os.environ.get(name) for name in env}

        def restore() -> None:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

        self._cleanups.callback(restore)
        os.environ.update(env)

    def close(self) -> None:
        """Stop the applications."""
        self._cleanups.close()


def _start_of(target: Any, options: Mapping[str, Any]) -> Start:
    """Return how `live_app` was called, as code. A nested function or an object cannot be written as code."""
    name, module = getattr(target, "__qualname__", ""), getattr(target, "__module__", None)
    is_named = bool(module) and name.isidentifier()
    return Start(
        fixture="live_app",
        target=name if is_named else None,
        module=module if is_named else None,
        options={name: _code(value) for name, value in options.items()},
    )


def _code(value: Any) -> str:
    """Return a value as Python code."""
    is_text = isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))
    return json.dumps(value, ensure_ascii=False) if is_text else repr(value)


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise UsageError(f"path={path!r} must begin with /")


def _is_checked(endpoint: Mapping[str, Any]) -> bool:
    """Whether the plugin can verify the endpoint's signatures."""
    return bool(endpoint.get("signing", "v1") == "v1")
