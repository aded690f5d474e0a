"""What the commands that talk to a running sandbox share: where it is, whose key, and how an answer is printed."""

import inspect
import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from sandbox.cli.failures import Failure, answered_with, unreachable
from sandbox.cli.options import CreatedPaging, Paging
from sandbox.infrastructure.settings import DEVELOPMENT_ADMIN_KEY, LOOPBACK_HOSTS

# A shell asks for completion at each touch of a key: what only a request needs (httpx, rich) is loaded with the first one.
if TYPE_CHECKING:
    import httpx

DEFAULT_URL: Final = "http://127.0.0.1:8000"
_DEMO_KEY: Final = "sk_sandbox_demo_admin"
"""The development key of an embedded sandbox, which is accepted on loopback only."""

_WIDEST: Final = 1000

Url = Annotated[str, typer.Option("--url", envvar="PSP_URL", help="Where the sandbox's API is.")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="PSP_API_KEY", help="The merchant's key; on loopback the demo merchant's by default."),
]
AdminKey = Annotated[
    str | None,
    typer.Option("--admin-key", envvar="PSP_ADMIN_KEY", help="The operator's key; on loopback the development key by default."),
]
ReadyFile = Annotated[
    Path | None, typer.Option("--ready-file", help="Read the URL and the key from the ready file of `psp up`.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the response as JSON and nothing else.")]


class Client:
    """One caller's view of a running sandbox. Whatever is no success raises Failure, which ends the command.

    `is_watched` says whether a person waits, for whom progress is drawn; `asks` whether there is one who can be asked.
    """

    is_watched = False
    asks = False

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self._headers = dict(headers)

    def _open(self) -> "httpx.Client":
        import httpx

        # One a request: a command makes few, and leaves no connection behind however it ends.
        # Reading the machine's certificate authorities takes 30 ms, which plain HTTP has no use for.
        verify = self.url.lower().startswith("https:")
        return httpx.Client(base_url=self.url, headers=self._headers, timeout=httpx.Timeout(60, connect=5), verify=verify)

    def get(self, path: str, /, **params: Any) -> Any:
        """GET; parameters that are None or empty are left out, the items of lists are comma-separated."""
        filled = {name: value for name, value in params.items() if value not in (None, [])}
        joined = {name: ",".join(value) if isinstance(value, list) else value for name, value in filled.items()}
        return self.ask("GET", path, params=joined)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """POST JSON; options as of `write`."""
        return self.write("POST", path, body, **options)

    def write(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Any:
        """Send JSON, or with `files` a form, under an idempotency key, a new one unless given."""
        if "files" not in options:
            options["json"] = {} if body is None else body
        return self.ask(method, path, headers={"X-IDEMPOTENCY-KEY": key or str(uuid.uuid4()), **(headers or {})}, **options)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """The answer's JSON, None if it has no body."""
        response = self.send(method, path, **options)
        if not response.is_success:
            raise answered_with(response)
        try:
            return response.json() if response.content else None
        except ValueError:
            raise answered_with(response) from None

    @contextmanager
    def stream(self, path: str, /, **params: Any) -> Iterator[Iterator[str]]:
        """The lines of a stream, as they come; however long nothing does."""
        import httpx

        timeout = httpx.Timeout(5, read=None)
        headers = {"Accept": "text/event-stream"}
        filled = {name: value for name, value in params.items() if value is not None}
        try:
            with self._open() as http, http.stream("GET", path, headers=headers, timeout=timeout, params=filled) as response:
                if not response.is_success:
                    response.read()
                    raise answered_with(response)
                yield response.iter_lines()
        except httpx.ConnectError as error:
            raise self._unreachable(error) from None
        except httpx.TransportError as error:
            raise unreachable(f"The stream was interrupted: {error or type(error).__name__}.") from None

    def send(self, method: str, path: str, **options: Any) -> "httpx.Response":
        """The response, whatever its status."""
        import httpx

        try:
            with self._open() as http:
                return http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show a person that something takes its time."""
        if not self.is_watched:
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(what):
            yield

    def _unreachable(self, error: Exception) -> Failure:
        return unreachable(f"{self.url} cannot be reached: {error or type(error).__name__}. Is `psp up` running?")


def connect(url: Url = DEFAULT_URL, api_key: ApiKey = None, ready_file: ReadyFile = None) -> Client:
    """A merchant's client. Raises BadParameter if the options do not say where the sandbox is and whose key to use."""
    url, api_key = from_ready_file(ready_file, url, "api_url", api_key, "api_key")
    wanted = "Give the merchant's key with --api-key or PSP_API_KEY."
    return Client(url, {"X-API-KEY": _key(url, api_key, _DEMO_KEY, wanted)})


def connect_operator(url: Url = DEFAULT_URL, admin_key: AdminKey = None, ready_file: ReadyFile = None) -> Client:
    """The operator's client. Raises BadParameter if the options do not say where the sandbox is and what the key is."""
    url, admin_key = from_ready_file(ready_file, url, "api_url", admin_key, "admin_key")
    wanted = "Give the operator's key with --admin-key or PSP_ADMIN_KEY."
    return Client(url, {"X-ADMIN-KEY": _key(url, admin_key, DEVELOPMENT_ADMIN_KEY, wanted)})


def from_ready_file(path: Path | None, url: str, url_name: str, key: str | None, key_name: str) -> tuple[str, str | None]:
    """URL and key: those given, or those of these names in a ready file. Raises BadParameter."""
    if path is None:
        return url, key
    try:
        ready = json.loads(path.read_text("utf-8"))
        return ready[url_name], key or ready[key_name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise typer.BadParameter(f"{path} is not a ready file of `psp up`: {error}") from error


def _key(url: str, key: str | None, on_loopback: str, wanted: str) -> str:
    host = host_of(url)
    if key is None and host not in LOOPBACK_HOSTS:
        raise typer.BadParameter(wanted)
    key = on_loopback if key is None else key
    if not key or not key.isascii() or not key.isprintable():
        raise typer.BadParameter("A key must consist of printable ASCII characters.")
    return key


def host_of(url: str) -> str:
    """The host of an HTTP URL. Raises BadParameter for any other text."""
    try:
        parsed = urlsplit(url)
        host, _port = parsed.hostname, parsed.port
    except ValueError as error:
        raise typer.BadParameter(f"{url} is not a URL: {error}.") from error
    if parsed.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise typer.BadParameter(f"{url!r} is not a URL; it must begin with http:// or https://.")
    return host


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command found: the answer for a script, words for a person, and how the command fails if it does."""

    answer: Any
    text: str
    failure: Failure | None = None


def _commands(connector: Callable[..., Client]) -> Callable[[Callable[..., Shown]], Callable[..., None]]:
    """Make commands of functions from a Client and their own arguments to what they found.

    A command takes the connector's options too, those of its Paging and --json; it prints, and ends.
    """
    shared = [*inspect.signature(connector).parameters.values()]
    as_json_option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)

    def decorate(function: Callable[..., Shown]) -> Callable[..., None]:
        def command(*, as_json: bool, **arguments: Any) -> None:
            client = connector(**{parameter.name: arguments.pop(parameter.name) for parameter in shared})
            for parameter in paging:
                names = parameter.annotation.options
                arguments[parameter.name] = parameter.annotation({name: arguments.pop(name) for name in names})
            client.is_watched = is_watched(as_json)
            client.asks = not as_json and sys.stdin.isatty()
            shown = function(client, **arguments)
            show(shown.answer, as_json=as_json, text=shown.text)
            if shown.failure is not None:
                raise shown.failure

        # Typer reads a command's options from its signature and annotations.
        _client, *own = inspect.signature(function).parameters.values()
        paging = [parameter for parameter in own if parameter.annotation in (Paging, CreatedPaging)]
        paging_options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for parameter in paging
            for name, (annotation, default) in parameter.annotation.options.items()
        ]
        own = [parameter for parameter in own if parameter not in paging]
        every = (*own, *paging_options, *shared, as_json_option)
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in every]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # a function takes any attribute
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        return command

    return decorate


with_client = _commands(connect)
"""Makes a command of a function that is given a merchant's client."""
with_operator = _commands(connect_operator)
"""Makes a command of a function that is given the operator's client."""


def listed(page: dict[str, Any], *members: str) -> Shown:
    """A page of a list, as a table of these members of its items."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*members, box=SIMPLE_HEAD, pad_edge=False)
    for item in page["data"]:
        table.add_row(*(escape("" if item[member] is None else _plain(item[member])) for member in members))
    # A script that cuts columns from it wants whole ids, however narrow a terminal there would be.
    console = Console(width=None if sys.stdout.isatty() else _WIDEST)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines() if line.strip()] if page["data"] else ["No results."]
    if page.get("has_more"):
        lines.append(f"More results: --cursor {page['next_cursor']}")
    return Shown(page, "\n".join(lines))


def members_of(found: dict[str, Any]) -> Shown:
    """An object, a member a line."""
    width = max(map(len, found)) + 2
    lines = [f"{name:<{width}}{_plain(value)}" for name, value in found.items()]
    return Shown(found, "\n".join(lines))


def _plain(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def show(value: Any, *, as_json: bool, text: str) -> None:
    """Print an answer for a script or for a person."""
    typer.echo(json.dumps(value) if as_json else text)


def is_watched(as_json: bool) -> bool:
    """Whether a person waits, for whom a progress bar is drawn."""
    return not as_json and sys.stderr.isatty()
