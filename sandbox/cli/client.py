"""Shared by the commands that call a running sandbox: its URL and key, the calls, and printing the responses."""

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

from sandbox.cli.dates import readable
from sandbox.cli.failures import Failure, failed_response, unreachable
from sandbox.cli.references import Reference
from sandbox.domain.idempotency import NEEDS_NEW_KEY
from sandbox.infrastructure.settings import DEVELOPMENT_ADMIN_KEY, LOOPBACK_HOSTS

# A shell starts psp for each completion, so load what only requests need (httpx, rich) with the first request.
if TYPE_CHECKING:
    import httpx

DEFAULT_URL: Final = "http://127.0.0.1:8000"
_DEMO_KEY: Final = "sk_sandbox_demo_admin"
"""The demo merchant's development key, which works only on loopback."""

_MAX_WIDTH: Final = 1000

Url = Annotated[str, typer.Option("--url", envvar="PSP_URL", help="The URL of the sandbox's API.")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="PSP_API_KEY", help="The merchant's API key. Default on loopback: the demo merchant's."),
]
AdminKey = Annotated[
    str | None,
    typer.Option("--admin-key", envvar="PSP_ADMIN_KEY", help="The operator's key. Default on loopback: the development key."),
]
ReadyFile = Annotated[
    Path | None, typer.Option("--ready-file", help="Read the URL and the key from the ready file of `psp up`.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the response as JSON and nothing else.")]


class Client:
    """A client of a running sandbox with one caller's key. A call that fails raises Failure, which ends the command.

    `is_watched` says whether to show progress on a terminal; `may_prompt` says whether the command may ask for confirmation.
    """

    is_watched = False
    may_prompt = False

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self._headers = dict(headers)

    @property
    def key(self) -> str:
        """The caller's key."""
        return next(iter(self._headers.values()))

    def _open(self) -> "httpx.Client":
        import httpx

        # Use one client per request: a command makes few, and no connection stays open after it ends. Loading the certificate
        # authorities takes 30 ms, and plain HTTP does not need them.
        verify = self.url.lower().startswith("https:")
        return httpx.Client(base_url=self.url, headers=self._headers, timeout=httpx.Timeout(60, connect=5), verify=verify)

    def open_async(self) -> "httpx.AsyncClient":
        """Return a client for many requests, with a timeout that suits long polls. The caller closes it."""
        import httpx

        verify = self.url.lower().startswith("https:")
        return httpx.AsyncClient(base_url=self.url, headers=self._headers, timeout=httpx.Timeout(60, connect=5), verify=verify)

    def get(self, path: str, /, **params: Any) -> Any:
        """Send GET, and return the JSON. Omits parameters that are None or empty; joins lists with commas."""
        filled = {name: value for name, value in params.items() if value not in (None, [])}
        joined = {name: ",".join(value) if isinstance(value, list) else value for name, value in filled.items()}
        return self.request_json("GET", path, params=joined)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """Send POST, and return the JSON. Accepts the options of `write`."""
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
        """Send JSON, or a form if `files` is given, with an idempotency key: `key`, or a new one. Return the JSON."""
        if "files" not in options:
            options["json"] = {} if body is None else body
        try:
            return self.request_json(
                method, path, headers={"X-IDEMPOTENCY-KEY": key or str(uuid.uuid4()), **(headers or {})}, **options
            )
        except Failure as failure:
            raise failure if key else failure.without(NEEDS_NEW_KEY) from None

    def request_json(self, method: str, path: str, **options: Any) -> Any:
        """Send a request, and return the JSON of the response; None if it has no body."""
        response = self.send(method, path, **options)
        if not response.is_success:
            raise failed_response(response)
        try:
            return response.json() if response.content else None
        except ValueError:
            raise failed_response(response) from None

    @contextmanager
    def stream(self, path: str, /, **params: Any) -> Iterator[Iterator[str]]:
        """Open a stream, and yield its lines as they arrive, without a timeout between them."""
        import httpx

        timeout = httpx.Timeout(5, read=None)
        headers = {"Accept": "text/event-stream"}
        filled = {name: value for name, value in params.items() if value is not None}
        try:
            with self._open() as http, http.stream("GET", path, headers=headers, timeout=timeout, params=filled) as response:
                if not response.is_success:
                    response.read()
                    raise failed_response(response)
                yield response.iter_lines()
        except httpx.ConnectError as error:
            raise self._unreachable(error) from None
        except httpx.TransportError as error:
            raise unreachable(f"The stream was interrupted: {error or type(error).__name__}.") from None

    def send(self, method: str, path: str, **options: Any) -> "httpx.Response":
        """Send a request, and return the response, whatever its status."""
        import httpx

        try:
            with self._open() as http:
                return http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show a spinner with this text on a terminal."""
        if not self.is_watched:
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(what):
            yield

    def _unreachable(self, error: Exception) -> Failure:
        return unreachable(f"{self.url} cannot be reached: {error or type(error).__name__}. Is `psp up` running?")


def connect(url: Url = DEFAULT_URL, api_key: ApiKey = None, ready_file: ReadyFile = None) -> Client:
    """Return a merchant's client. Raises BadParameter if the URL or the key is missing or wrong."""
    url, key = merchant_key(url, api_key, ready_file)
    return Client(url, {"X-API-KEY": key})


def merchant_key(url: str, api_key: str | None, ready_file: Path | None) -> tuple[str, str]:
    """Return the URL and the merchant's key that the options name. Raises BadParameter if one is missing or wrong."""
    url, api_key = from_ready_file(ready_file, url, "api_url", api_key, "api_key")
    advice = "Give the merchant's key with --api-key or PSP_API_KEY."
    return url, _key(url, api_key, _DEMO_KEY, advice)


def connect_operator(url: Url = DEFAULT_URL, admin_key: AdminKey = None, ready_file: ReadyFile = None) -> Client:
    """Return the operator's client. Raises BadParameter if the URL or the key is missing or wrong."""
    url, admin_key = from_ready_file(ready_file, url, "api_url", admin_key, "admin_key")
    advice = "Give the operator's key with --admin-key or PSP_ADMIN_KEY."
    return Client(url, {"X-ADMIN-KEY": _key(url, admin_key, DEVELOPMENT_ADMIN_KEY, advice)})


def from_ready_file(path: Path | None, url: str, url_name: str, key: str | None, key_name: str) -> tuple[str, str | None]:
    """Return the URL and the key: the given ones or, with a ready file, those in the file. A given key takes precedence.

    Raises BadParameter if the file is not a ready file.
    """
    if path is None:
        return url, key
    try:
        ready = json.loads(path.read_text("utf-8"))
        return ready[url_name], key or ready[key_name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise typer.BadParameter(f"{path} is not a ready file of `psp up`: {error}") from error


def _key(url: str, key: str | None, loopback_default: str, advice: str) -> str:
    host = host_of(url)
    if key is None and host not in LOOPBACK_HOSTS:
        raise typer.BadParameter(advice)
    key = loopback_default if key is None else key
    if not key or not key.isascii() or not key.isprintable():
        raise typer.BadParameter("A key must consist of printable ASCII characters.")
    return key


def host_of(url: str) -> str:
    """Return the host of an HTTP URL. Raises BadParameter if the text is not one."""
    try:
        parsed = urlsplit(url)
        host, _port = parsed.hostname, parsed.port
    except ValueError as error:
        raise typer.BadParameter(f"{url} is not a URL: {error}.") from error
    if parsed.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise typer.BadParameter(f"{url!r} is not a URL; it must begin with http:// or https://.")
    return host


@dataclass(frozen=True, slots=True)
class Output:
    """The result of a command: the JSON response, the text for people, and the failure if the command failed."""

    response: Any
    text: str
    failure: Failure | None = None


def _commands(connector: Callable[..., Client]) -> Callable[[Callable[..., Output]], Callable[..., None]]:
    """Return a decorator that turns a function of a Client and further arguments into a command.

    The command has the function's options, the connector's, and --json. It prints the Output that the function returns, and
    raises its failure. The function gets the ids of parameters that are references.
    """
    shared = [*inspect.signature(connector).parameters.values()]
    as_json_option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)

    def decorate(function: Callable[..., Output]) -> Callable[..., None]:
        def command(*, as_json: bool, **arguments: Any) -> None:
            client = connector(**{parameter.name: arguments.pop(parameter.name) for parameter in shared})
            client.is_watched = is_watched(as_json)
            client.may_prompt = not as_json and sys.stdin.isatty()
            for name, reference in references.items():
                arguments[name] = reference.id_of(client, arguments[name])
            shown = function(client, **arguments)
            show(shown.response, as_json=as_json, text=shown.text)
            if shown.failure is not None:
                raise shown.failure

        # Typer derives the options from the signature and the annotations, so set both.
        _client, *own = inspect.signature(function).parameters.values()
        references = {
            parameter.name: extra
            for parameter in own
            for extra in getattr(parameter.annotation, "__metadata__", ())
            if isinstance(extra, Reference)
        }
        every = (*own, *shared, as_json_option)
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in every]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions accept any attribute
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        return command

    return decorate


with_client = _commands(connect)
"""Decorator for a command that takes a merchant's client."""
with_operator = _commands(connect_operator)
"""Decorator for a command that takes the operator's client."""


def as_table(page: dict[str, Any], *fields: str) -> Output:
    """Format a page of a list as a table with these fields of its items."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*fields, box=SIMPLE_HEAD, pad_edge=False)
    for item in page["data"]:
        table.add_row(*(escape(_cell(field, item[field])) for field in fields))
    # Without a terminal, do not truncate: a script that cuts out columns needs whole ids.
    console = Console(width=None if sys.stdout.isatty() else _MAX_WIDTH)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines() if line.strip()] if page["data"] else ["No results."]
    if page.get("has_more"):
        lines.append(f"More results: --cursor {page['next_cursor']}")
    return Output(page, "\n".join(lines))


def as_fields(found: dict[str, Any]) -> Output:
    """Format an object with one line per field."""
    width = max(map(len, found)) + 2
    lines = [f"{name:<{width}}{_plain(value)}" for name, value in found.items()]
    return Output(found, "\n".join(lines))


def _cell(field: str, value: Any) -> str:
    if value is None:
        return ""
    return readable(value) if field == "at" or field.endswith("_at") else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def show(value: Any, *, as_json: bool, text: str) -> None:
    """Print a response as JSON or as text."""
    typer.echo(json.dumps(value) if as_json else text)


def is_watched(as_json: bool) -> bool:
    """Return whether to show progress: standard error is a terminal, and the output is not JSON."""
    return not as_json and sys.stderr.isatty()
