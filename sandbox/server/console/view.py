"""A page being built: the session, the API calls that it makes, and the response."""

import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import jinja2

from sandbox.http.operation import Operation
from sandbox.http.request import Request, SignedIn
from sandbox.http.responses import Response
from sandbox.server.console.calls import ApiCall, ApiCalls, Refused
from sandbox.server.console.commands import Commands, ShellCommands
from sandbox.server.console.data_table import Column, Table
from sandbox.server.console.ended_sessions import Visitor
from sandbox.server.console.forms import FormFields, FormState, body_of, time_of
from sandbox.server.console.paths import home_of
from sandbox.server.console.security import add, compressed
from sandbox.server.console.session import Session
from sandbox.server.console.trace import Trace
from sandbox.server.dialects.dialect import Dialect

PAGE_SIZE: Final = 25
MAX_PARTS: Final = 20
"""Maximum number of parts of a search without a match that a page skips."""
MAX_CSV_ROWS: Final = 10_000
CSV_PAGE_SIZE: Final = 100
MAX_CSV_PARTS: Final = MAX_CSV_ROWS // CSV_PAGE_SIZE + MAX_PARTS
"""A CSV file reads at most so many pages of the API, some without a match."""
MAX_SHOWN_COMMANDS: Final = 12
TOKEN_MARK: Final = f"token-{secrets.token_hex(16)}"
"""Stands for the token of forms in a page that is built for several consoles."""
KEY_MARK: Final = f"key-{secrets.token_hex(16)}"
"""Stands for the beginning of idempotency keys in a page that is built for several consoles."""


@dataclass(frozen=True, slots=True)
class Kit:
    """The objects that all pages share."""

    calls: ApiCalls
    commands: Commands
    templates: jinja2.Environment
    public_url: str
    is_local: bool
    """Whether the API listens on loopback only, so that the development keys work."""
    dialects: Mapping[str, Dialect]
    """Those that can show a payout."""


@dataclass(frozen=True, slots=True)
class Access:
    """Whether the session may call an operation, and why not."""

    is_allowed: bool
    reason: str = ""


@dataclass(slots=True)
class View:
    """One request for a page."""

    kit: Kit
    request: Request
    visitor: Visitor
    path: str
    """The path of the page. A form that fails shows its page again, so this can differ from the request's path."""
    path_parameters: Mapping[str, str]
    query: dict[str, str]
    form: FormState | None = None
    status: int = 200
    commands: list[ShellCommands] = field(default_factory=list)
    """The commands that show what the page shows."""
    others: Sequence[Visitor] = ()
    """On the sign-in page: the sessions that the browser has."""
    _clock: Any = None
    is_shared: bool = False
    """Whether the page is built for several consoles. It then has marks in place of tokens and idempotency keys."""
    html: str | None = None
    """The page, once it is rendered."""
    _keys: Iterator[int] = field(default_factory=count)

    @property
    def session(self) -> Session:
        """The session, in the merchant whose world the page shows."""
        return self.visitor.session

    @property
    def signed_in(self) -> SignedIn | None:
        """The caller of the page's API calls; None if nobody is signed in."""
        return self.visitor.signed_in

    @property
    def operator(self) -> bool:
        """Whether the operator is signed in."""
        return self.signed_in is not None and self.signed_in.is_operator

    @property
    def merchant_id(self) -> str:
        """The id of the merchant whose world the page shows; empty outside of merchants."""
        return "" if self.signed_in is None else self.signed_in.caller.merchant_id

    @property
    def merchant_of_commands(self) -> str:
        """The id of the merchant whose key the commands need; empty if they need none, because it is the demo merchant."""
        return "" if self.visitor.is_demo and self.kit.is_local else self.merchant_id

    @property
    def home(self) -> str:
        """The path of the merchant's first page, with which the paths of all its pages begin."""
        return home_of(self.merchant_id)

    @property
    def url(self) -> str:
        """The page's path and query."""
        return self.path + (f"?{urlencode(self.query)}" if self.query else "")

    def given(self, *names: str) -> dict[str, str]:
        """Return the page's query parameters with these names, without empty ones."""
        return {name: self.query[name] for name in names if self.query.get(name)}

    def period(self) -> dict[str, str]:
        """Return the page's filters by time, as the API takes them. Raises UnreadableField."""
        return {name: time_of(text) for name, text in self.given("created_from", "created_to").items()}

    async def call(
        self,
        operation_id: str,
        /,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        shown: bool = True,
        preview: bool = False,
    ) -> Any:
        """Call an API operation as the session's caller, and return the JSON. Raises Refused.

        If `shown`, the page lists the call among its commands. `preview`: see ApiCall.
        """
        sent = ApiCall(operation_id, path or {}, query or {}, body, is_preview=preview)
        reply = await self.kit.calls.send(sent, self.signed_in)
        if not reply.is_success:
            raise Refused(reply)
        if shown:
            self._show(sent)
        return reply.data

    async def clock(self) -> Any:
        """Return the merchant's clock, read once for a page. None without a merchant, or if it was deleted."""
        if self._clock is None and self.merchant_id:
            self._clock = await self.call_if_found("get_clock", shown=False)
        return self._clock

    async def call_if_found(self, operation_id: str, /, **options: Any) -> Any:
        """Call an operation, and return the JSON, or None if the API refuses the call."""
        try:
            return await self.call(operation_id, **options)
        except Refused:
            return None

    async def table(
        self,
        name: str,
        caption: str,
        columns: Sequence[Column],
        operation_id: str,
        /,
        *,
        empty: str = "Nothing here yet.",
        path: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        limit: int = PAGE_SIZE,
        prepare: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> Table:
        """List an operation's items as a table: one page, from the query parameter `NAME.cursor` on.

        If the page's CSV is requested, the table has up to MAX_CSV_ROWS rows. `prepare` adds what the columns need to a row.
        """
        operation = self.kit.calls.operation(operation_id)
        names = {parameter.name for parameter in operation.query}
        asked = {**(query or {})}
        if "limit" in names:
            asked["limit"] = str(limit)
        if cursor := self.query.get(f"{name}.cursor"):
            asked["cursor"] = cursor
        is_csv = self.query.get("csv") == name and "cursor" in names
        if is_csv:
            asked.pop("cursor", None)
            asked["limit"] = str(CSV_PAGE_SIZE)
        found = await self.call(operation_id, path=path, query=asked)
        rows: list[Any] = list(found["data"])
        max_parts, enough_rows = (MAX_CSV_PARTS, MAX_CSV_ROWS) if is_csv else (MAX_PARTS, 1)
        # A search reads a bounded number of rows at a time, so continue after a part without a match.
        for _ in range(max_parts - 1):
            if len(rows) >= enough_rows or not found.get("next_cursor"):
                break
            found = await self.call(operation_id, path=path, query={**asked, "cursor": found["next_cursor"]}, shown=False)
            rows += found["data"]
        following = found.get("next_cursor")
        return Table(name, caption, columns, [prepare(row) for row in rows], empty, following, is_csv and bool(following))

    def _show(self, sent: ApiCall) -> None:
        command = self.kit.commands.of(
            sent.operation_id, sent.path, sent.query, sent.body, merchant_id=self.merchant_of_commands
        )
        if command not in self.commands and len(self.commands) < MAX_SHOWN_COMMANDS:
            self.commands.append(command)

    def command(
        self, operation_id: str, path: Mapping[str, str] | None = None, body: Any = None, scenario: str = ""
    ) -> ShellCommands:
        """Return the commands that do the same as a form; without a body, with the operation's example.

        `scenario` is the value of the X-Sandbox-Scenario header.
        """
        operation = self.kit.calls.operation(operation_id)
        body = operation.example if body is None else body
        return self.kit.commands.of(operation_id, path or {}, {}, body, scenario, self.merchant_of_commands)

    def example(self, fixed: Mapping[str, str]) -> Any:
        """Return the body of a form that has fixed fields only."""
        return body_of(fixed.items())

    def access(self, operation_id: str) -> Access:
        """Return whether the session's caller may call an operation. The API decides; this only predicts its decision."""
        needed = self.kit.calls.operation(operation_id).access
        if needed == "operator" and not self.operator:
            return Access(False, "Only the sandbox's operator may do this: sign in with the operator's key.")
        if needed == "admin" and self.session.role != "admin":
            return Access(False, "This needs a key with the admin role. You signed in with a member key.")
        return Access(True)

    def operation(self, operation_id: str) -> Operation:
        """Return an API operation."""
        return self.kit.calls.operation(operation_id)

    def fields(self, form_id: str) -> FormFields:
        """Return the fields of the form with this id, as they were submitted with this request, or empty."""
        return FormFields(form_id, self.form if self.form is not None and self.form.id == form_id else None)

    def new_key(self) -> str:
        """Return an idempotency key for a form. Submitting the same form twice then has its effect once."""
        return f"{KEY_MARK}-{next(self._keys)}" if self.is_shared else str(uuid.uuid4())

    @property
    def token(self) -> str:
        """The token of the page's forms."""
        return TOKEN_MARK if self.is_shared else self.session.token

    def with_query(self, **changes: str | None) -> str:
        """Return the page's URL with changed query parameters; None removes one."""
        query = {name: value for name, value in {**self.query, **changes}.items() if value is not None}
        return self.path + (f"?{urlencode(query)}" if query else "")

    async def render(self, template: str, /, *, tables: Sequence[Table] = (), **context: Any) -> Response:
        """Return the page as HTML; or one of its tables as CSV, or a drawing of `context` as SVG, if the query says `csv=NAME`
        or `svg=NAME`.
        """
        wanted = next((table for table in tables if table.name == self.query.get("csv")), None)
        if wanted is not None:
            # With a byte order mark, spreadsheets read it as UTF-8.
            return _download(f"{wanted.name}.csv", wanted.csv().encode("utf-8-sig"), "text/csv")
        drawing = context.get(self.query.get("svg", ""))
        if isinstance(drawing, Trace):
            name = self.path.removeprefix(self.home).strip("/").replace("/", "-")
            svg = self.kit.templates.get_template("drawing.svg").render(view=self, trace=drawing, title=name)
            return _download(f"{name}.svg", svg.encode(), "image/svg+xml")
        html = self.html = self.kit.templates.get_template(template).render(
            view=self,
            session=self.session,
            merchant_name=self.visitor.merchant_name,
            clock=await self.clock(),
            tables={table.name: table for table in tables},
            **context,
        )
        # Only parts of a shared page are sent.
        sent, headers = (b"", add()) if self.is_shared else compressed(self.request, html.encode("utf-8", "replace"))
        return Response(self.status, sent, "text/html", headers)


def _download(name: str, content: bytes, media_type: str) -> Response:
    return Response(200, content, media_type, add([("content-disposition", f'attachment; filename="{name}"')]))


def query_of(query_string: str) -> dict[str, str]:
    """Return the query's parameters, without empty ones. Several values of one name are joined with commas, as in the API."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query_string, max_num_fields=100):
        found[name] = f"{found[name]},{value}" if name in found else value
    return found
