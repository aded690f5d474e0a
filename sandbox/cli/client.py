"""What the commands that talk to a running sandbox share: where it is, whose key, and how an answer is told."""

import inspect
import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import httpx
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sandbox.settings import LOOPBACK_HOSTS

DEFAULT_URL: Final = "http://127.0.0.1:8000"
_DEMO_KEY: Final = "sk_sandbox_demo_admin"
"""The development key of an embedded sandbox, which is accepted on loopback only."""

_WIDEST: Final = 1000

Url = Annotated[str, typer.Option("--url", envvar="PSP_URL", help="Where the sandbox's API is.")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="PSP_API_KEY", help="The merchant's key; on loopback the demo merchant's by default."),
]
ReadyFile = Annotated[Path | None, typer.Option("--ready-file", help="Take URL and key from the file that `psp up` wrote.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100, help="How many at most.")]
Cursor = Annotated[str | None, typer.Option("--cursor", help="The next_cursor of the page before.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, and nothing else.")]


class Client:
    """One merchant's view of a running sandbox. Every failure ends the command with one sentence and exit code 1."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url
        self._headers = {"X-API-KEY": api_key}

    def _open(self) -> httpx.Client:
        # One a request: a command makes few, and leaves no connection behind however it ends.
        # Reading the machine's certificate authorities takes 30 ms, which plain HTTP has no use for.
        verify = self.url.lower().startswith("https:")
        return httpx.Client(base_url=self.url, headers=self._headers, timeout=httpx.Timeout(60, connect=5), verify=verify)

    def get(self, path: str, **params: Any) -> Any:
        """GET; parameters that are None are left out."""
        return self.ask("GET", path, params={name: value for name, value in params.items() if value is not None})

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
            fail(_explain(response))
        return response.json() if response.content else None

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[str]]:
        """The lines of a stream, as they come; however long nothing does. Raises httpx.TransportError if it breaks off."""
        timeout = httpx.Timeout(5, read=None)
        headers = {"Accept": "text/event-stream"}
        with self._open() as http, http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                response.read()
                fail(_explain(response))
            yield response.iter_lines()

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The response, whatever its status."""
        try:
            with self._open() as http:
                return http.request(method, path, **options)
        except httpx.TransportError as error:
            fail(f"{self.url} cannot be reached: {error or type(error).__name__}. Is `psp up` running?")


def connect(url: str, api_key: str | None, ready_file: Path | None) -> Client:
    """A client for what the options say. Ends the command with exit code 2 if they do not say whose key to use."""
    if ready_file is not None:
        try:
            ready = json.loads(ready_file.read_text("utf-8"))
            url, api_key = ready["api_url"], api_key or ready["api_key"]
        except (OSError, ValueError, KeyError) as error:
            raise typer.BadParameter(f"{ready_file} is not a ready file of `psp up`: {error}") from error
    if api_key is None:
        try:
            host = httpx.URL(url).host
        except httpx.InvalidURL as error:
            raise typer.BadParameter(f"{url} is not a URL: {error}") from error
        if host not in LOOPBACK_HOSTS:
            raise typer.BadParameter("Give the merchant's key with --api-key or PSP_API_KEY.")
        api_key = _DEMO_KEY
    return Client(url, api_key)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command found: the answer for a script, words for a person, and the exit code."""

    answer: Any
    text: str
    exit_code: int = 0


def with_client(function: Callable[..., Shown]) -> Callable[..., None]:
    """Make a command of a function from a Client and its own arguments to what it found.

    The command takes the options that say where the sandbox is and whose key to use, and --json; it prints, and exits.
    """

    def command(
        url: Url = DEFAULT_URL,
        api_key: ApiKey = None,
        ready_file: ReadyFile = None,
        as_json: AsJson = False,
        **arguments: Any,
    ) -> None:
        shown = function(connect(url, api_key, ready_file), **arguments)
        show(shown.answer, as_json=as_json, text=shown.text)
        if shown.exit_code:
            raise typer.Exit(shown.exit_code)

    # Typer reads a command's options from its signature and annotations.
    _client, *own = inspect.signature(function).parameters.values()
    *shared, _arguments = inspect.signature(command).parameters.values()
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *shared)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # a function takes any attribute
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    return command


def listed(page: dict[str, Any], *members: str) -> Shown:
    """A page of a list, as a table of these members of its items."""
    table = Table(*members, box=SIMPLE_HEAD, pad_edge=False)
    for item in page["data"]:
        table.add_row(*(escape("" if item[member] is None else str(item[member])) for member in members))
    # A script that cuts columns from it wants whole ids, however narrow a terminal there would be.
    console = Console(width=None if sys.stdout.isatty() else _WIDEST)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines() if line.strip()] if page["data"] else ["There are none."]
    if page.get("has_more"):
        lines.append(f"There are more: --cursor {page['next_cursor']}")
    return Shown(page, "\n".join(lines))


def show(value: Any, *, as_json: bool, text: str) -> None:
    """Print an answer for a script or for a person."""
    typer.echo(json.dumps(value) if as_json else text)


def fail(message: str) -> NoReturn:
    """End the command with a sentence on stderr and exit code 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


def is_watched(as_json: bool) -> bool:
    """Whether a person waits, for whom a progress bar is drawn."""
    return not as_json and sys.stderr.isatty()


def _explain(response: httpx.Response) -> str:
    try:
        problem = response.json()
        return f"{response.status_code} {problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} from {response.request.url}, without an explanation."
