"""The console's routes: pages, forms, sign-in, live updates and static files."""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from sandbox.domain.errors import CODES, Problem, invalid
from sandbox.domain.ids import is_uuid
from sandbox.http.operation import Operation
from sandbox.http.request import Request
from sandbox.http.responses import Response
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, database_unavailable
from sandbox.infrastructure.live_subscriber import LiveSubscriber
from sandbox.infrastructure.settings import (
    DEVELOPMENT_ADMIN_KEY,
    DEVELOPMENT_API_KEY,
    DEVELOPMENT_MEMBER_KEY,
    DEVELOPMENT_USERS_KEY,
    LOOPBACK_HOSTS,
    Settings,
)
from sandbox.server.console import submission
from sandbox.server.console.browser_sessions import Sessions
from sandbox.server.console.calls import ApiCall, ApiCalls, Refused
from sandbox.server.console.commands import Commands
from sandbox.server.console.data_table import value_at
from sandbox.server.console.ended_sessions import Visitor, end_session, visitor_of
from sandbox.server.console.forms import FormState, UnreadableField, body_of, failed, parameters_of
from sandbox.server.console.live import Build, LivePages
from sandbox.server.console.pages import FRAGMENTS, PAGES
from sandbox.server.console.paths import (
    HOME,
    MERCHANT,
    SIGN_IN,
    home_of,
    in_header,
    in_merchant,
    is_inside,
    landing,
    merchant_in,
    to_sign_in,
)
from sandbox.server.console.rendering import create_templates
from sandbox.server.console.routing import Fragment, Page, PagePaths
from sandbox.server.console.security import add, require_own_origin
from sandbox.server.console.session import Session, holder_of, is_token_of
from sandbox.server.console.submission import Submission
from sandbox.server.console.view import Kit, View, query_of
from sandbox.server.dialects.dialect import Dialect

_STATIC: Final = Path(__file__).parent / "static"
_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_DEMO_KEYS: Final = {
    "admin": DEVELOPMENT_API_KEY,
    "member": DEVELOPMENT_MEMBER_KEY,
    "users": DEVELOPMENT_USERS_KEY,
    "operator": DEVELOPMENT_ADMIN_KEY,
}
_PLACEHOLDER: Final = re.compile(r"\{([a-z_.]+)\}")
_RELOAD: Final = "This page is out of date: you signed in or out since it was opened. Reload it."
_FAILURES: Final = (Problem, *CONNECTION_ERRORS)
_OUT_OF_DATE: Final = {
    "title": "This page was out of date, so nothing was changed",
    "detail": "You signed in again since the page was opened. Check the form, and send it again.",
}


class Console:
    """Serves the console. `operations` are those of the API; `routes` returns the console's own."""

    def __init__(
        self,
        operations: Sequence[Operation],
        settings: Settings,
        subscriber: LiveSubscriber,
        dialects: Mapping[str, Dialect],
        of_dialects: Sequence[Operation],
    ) -> None:
        """`of_dialects` are the operations of the dialects."""
        self.calls = ApiCalls([*operations, *(one for one in of_dialects if one.method == "GET")])
        self._sessions = Sessions(settings, self.calls)
        self._live = LivePages(subscriber)
        self._public_url = settings.public_url
        files = {path.name: path.read_bytes() for path in sorted(_STATIC.iterdir()) if path.suffix in _MEDIA_TYPES}
        self._files = files
        version = hashlib.sha256(b"".join(files.values())).hexdigest()[:12]
        self._kit = Kit(
            self.calls,
            Commands(operations, settings.public_url),
            create_templates(version),
            settings.public_url,
            settings.host in LOOPBACK_HOSTS,
            {name: dialect for name, dialect in dialects.items() if dialect.payment is not None},
        )
        self._pages = PagePaths(PAGES)

    def routes(self) -> list[Operation]:
        """Return the console's own operations, which are not part of the API."""
        found = [self._page_route(page) for page in PAGES]
        for method, path, handler, limit in (
            ("GET", HOME, self._home, None),
            ("POST", SIGN_IN, self._sign_in, None),
            ("POST", f"{HOME}/enter", self._enter, None),
            ("GET", f"{HOME}/static/{{name}}", self._static, None),
            ("GET", f"{HOME}/{{page:path}}", self._old_link, None),
            ("GET", f"{MERCHANT}/live", self._open_live, None),
            ("GET", f"{MERCHANT}/{{page:path}}", self._not_found, None),
            *(
                found
                for start in (HOME, MERCHANT)
                for found in (
                    ("POST", f"{start}/actions/{{operation_id}}", self._act, submission.MAX_SIZE),
                    ("POST", f"{start}/fragments/{{name}}", self._fragment, None),
                    ("POST", f"{start}/sign-out", self._sign_out, None),
                )
            ),
        ):
            found.append(_route(method, path, handler, limit))
        return found

    def _page_route(self, page: Page) -> Operation:
        async def show(request: Request, merchant_id: str = "", **path_parameters: str) -> Response:
            return await self._show(page, request, merchant_id, path_parameters)

        return _route("GET", page.route, show, None)

    # ------------------------------------------------------------------------------------------------ sessions

    async def _visitor(self, request: Request, merchant_id: str) -> Visitor:
        if merchant_id and not is_uuid(merchant_id):
            raise Problem("NOT_FOUND", "The console has no such merchant.")
        return await self._sessions.visitor(request, merchant_id)

    def _redirect(self, path: str, session: Session | None = None) -> Response:
        response = Response(303, headers=add([("location", in_header(path))]))
        return response if session is None else self._sessions.keep(response, session)

    def _to_sign_in(self, request: Request, wanted: str, notice: str = "") -> Response:
        """Redirect to the sign-in form, which leads back afterwards. The browser's sessions are unchanged."""
        if not notice:
            return self._redirect(to_sign_in(wanted))
        return self._redirect(
            to_sign_in(wanted), self._sessions.nobody(request).saying(notice, int(time.time()), is_error=True)
        )

    @staticmethod
    def _require_token(visitor: Visitor, form: Submission) -> None:
        if not is_token_of(visitor.session, form.last("_csrf")):
            raise Problem("FORBIDDEN", _RELOAD)

    async def _submitted(self, request: Request, merchant_id: str) -> tuple[Visitor, Submission]:
        """Return the visitor and the form of a POST. Raises FORBIDDEN for a form on another site's page."""
        require_own_origin(request)
        return await self._visitor(request, merchant_id), await submission.read(request)

    # ------------------------------------------------------------------------------------------------ pages

    async def _show(self, page: Page, request: Request, merchant_id: str, path_parameters: Mapping[str, str]) -> Response:
        try:
            visitor = await self._visitor(request, merchant_id)
            others = await self._sessions.merchants(request) if page.audience == "anyone" else []
        except _FAILURES as error:
            return await self._failure(request, error)
        if page.audience == "anyone":
            visitor = Visitor(self._sessions.nobody(request))
        elif visitor.signed_in is None:
            if page.audience == "operator":
                return await self._home(request)
            return self._to_sign_in(request, _url_of(request), self._sessions.notice_of_end(request, merchant_id))
        query = query_of(request.query_string.decode("latin-1"))
        view = View(self._kit, request, visitor, request.path, path_parameters, query, others=others)
        response = await self._build(page, view)
        # A page that fetches itself again after a change does not count as activity of a person.
        if request.header("x-live") is None:
            self._sessions.keep(response, visitor.session.after_page(int(time.time())))
        return response

    async def _build(self, page: Page | Fragment, view: View) -> Response:
        try:
            return await page.build(view)
        except UnreadableField as error:
            return await self._failure(view.request, invalid("form", str(error)), view.visitor)
        except (Refused, *_FAILURES) as error:
            return await self._failure(view.request, error, view.visitor)

    async def _failure(self, request: Request, error: Exception, visitor: Visitor | None = None) -> Response:
        """Return a page that describes a problem."""
        if isinstance(error, Refused):
            status, problem = error.status, error.problem
        else:
            found = error if isinstance(error, Problem) else database_unavailable(error)
            status = found.status
            problem = msgspec.json.decode(found.body(self._public_url, request.path, request.request_id))
        visitor = visitor or Visitor(Session(id="", csrf="", started=0, seen=0))
        view = View(self._kit, request, visitor, request.path, {}, {}, status=status)
        kind = CODES.get(problem.get("code", ""))
        return await view.render("error.html", problem=problem, cure="" if kind is None else kind.resolution)

    async def _not_found(self, request: Request, merchant_id: str = "", **_: str) -> Response:
        try:
            visitor = await self._visitor(request, merchant_id)
        except _FAILURES as error:
            return await self._failure(request, error)
        return await self._failure(request, Problem("NOT_FOUND", "The console has no such page."), visitor)

    async def _home(self, request: Request) -> Response:
        """Redirect to the merchant that the browser is signed in to. If there are several, the sign-in page offers them."""
        try:
            known = await self._sessions.merchants(request)
        except _FAILURES as error:
            return await self._failure(request, error)
        wanted = _url_of(request)
        return self._redirect(landing(known[0].session, wanted) if len(known) == 1 else to_sign_in(wanted))

    async def _old_link(self, request: Request, page: str) -> Response:
        """Redirect from a link that names no merchant, such as `/console/payouts`, to the page of a merchant."""
        path = MERCHANT.format(merchant_id="-") + f"/{page.strip('/')}"
        return await (self._not_found(request) if self._pages.find(path, "-") is None else self._home(request))

    # ------------------------------------------------------------------------------------------------ forms

    async def _act(self, request: Request, operation_id: str, merchant_id: str = "") -> Response:
        try:
            visitor, form = await self._submitted(request, merchant_id)
            operation = self.calls.operation(operation_id)
            if operation.method == "GET" or operation.access == "public":
                raise Problem("NOT_FOUND", "The console has no such action.")
        except _FAILURES as error:
            return await self._failure(request, error)
        caller = visitor.signed_in
        if caller is None:
            page = form.last("_page")
            notice = "You are not signed in here any more, so nothing was changed."
            return self._to_sign_in(request, page if is_inside(page, home_of(merchant_id)) else home_of(merchant_id), notice)
        state = FormState(form.last("_form") or operation_id, form.values())
        if not is_token_of(visitor.session, form.last("_csrf")):
            if not is_inside(form.last("_page"), home_of(merchant_id)):
                problem = Problem("FORBIDDEN", "This form is on the page of another merchant, so nothing was changed.")
                return await self._failure(request, problem, visitor)
            return await self._return_to(form.last("_page"), request, visitor, failed(state, _OUT_OF_DATE), 403)
        path, query = parameters_of(form.fields, "path."), parameters_of(form.fields, "query.")
        if set(operation.path_parameters) != set(path):
            return await self._failure(request, Problem("NOT_FOUND", "Enter the id first."), visitor)
        try:
            body = body_of(form.fields)
        except UnreadableField as error:
            return await self._return_to(form.last("_page"), request, visitor, failed(state, error.problem), 400)
        call = ApiCall(operation_id, path, query, body, form.file, form.last("_key") or None)
        headers = {"x-sandbox-scenario": form.last("_scenario")} if form.last("_scenario") else None
        reply = await self.calls.send(call, caller, headers)
        if not reply.is_success:
            problem_body = (
                reply.data if isinstance(reply.data, dict) else {"title": "The request failed", "status": reply.status}
            )
            return await self._return_to(form.last("_page"), request, visitor, failed(state, problem_body), reply.status)
        if form.last("_then") == "stay":
            state.result = reply.data if reply.data is not None else {}
            return await self._return_to(form.last("_page"), request, visitor, state, 200)
        done = _filled(form.last("_done") or form.last("_page"), reply.data, home_of(merchant_id))
        return self._redirect(done, visitor.session.saying(form.last("_said")[:200] or "Done.", int(time.time())))

    async def _return_to(self, url: str, request: Request, visitor: Visitor, state: FormState, status: int) -> Response:
        """Return the page that a form was on, with the form as it was submitted."""
        parts = urlsplit(url)
        found = self._pages.find(parts.path, visitor.session.merchant_id)
        if found is None:
            return await self._failure(request, Problem("NOT_FOUND", "The form does not name its page."), visitor)
        page, parameters = found
        view = View(self._kit, request, visitor, parts.path, parameters, query_of(parts.query), state, status)
        return self._sessions.keep(await self._build(page, view), visitor.session.after_page(int(time.time())))

    async def _fragment(self, request: Request, name: str, merchant_id: str = "") -> Response:
        """Return a part of a page for a form that is being filled in."""
        try:
            visitor, form = await self._submitted(request, merchant_id)
            fragment = next((found for found in FRAGMENTS if found.name == name), None)
            self._require_token(visitor, form)
            if visitor.signed_in is None:
                raise Problem("FORBIDDEN", _RELOAD)
            if fragment is None:
                raise Problem("NOT_FOUND")
        except _FAILURES as error:
            return await self._failure(request, error)
        view = View(self._kit, request, visitor, request.path, {}, {}, FormState(name, form.values()))
        return await self._build(fragment, view)

    # ------------------------------------------------------------------------------------------------ sign-in

    async def _sign_in(self, request: Request) -> Response:
        try:
            require_own_origin(request)
            form = await submission.read(request)
            nobody = self._sessions.nobody(request)
            if not is_token_of(nobody, form.last("_csrf")):
                raise Problem("FORBIDDEN", "This sign-in form is out of date, or the browser keeps no cookies. Open it again.")
            demo = _DEMO_KEYS.get(form.last("demo"), "") if self._kit.is_local else ""
            opened = await self._sessions.open(demo or form.last("api_key").strip())
        except _FAILURES as error:
            return await self._failure(request, error)
        wanted, now = form.last("_next") or HOME, int(time.time())
        if opened is None:
            text = "This key is not valid. Check it: it may be mistyped or revoked, or belong to another sandbox."
            return self._redirect(to_sign_in(wanted), nobody.saying(text, now, is_error=True))
        if not opened.is_operator and merchant_in(wanted) not in ("", opened.merchant_id):
            text = "This key opens this merchant. The link that you followed is to another one, which needs another key."
            opened = opened.saying(text, now, is_error=True)
        return self._sessions.keep_new(request, self._redirect(landing(opened, wanted)), opened)

    async def _sign_out(self, request: Request, merchant_id: str = "") -> Response:
        """End one session of the browser: the merchant's, or the operator's. The others stay."""
        try:
            visitor, form = await self._submitted(request, merchant_id)
            if visitor.signed_in is None:
                return self._redirect(SIGN_IN)
            self._require_token(visitor, form)
            await end_session(visitor.session, time.time(), everywhere=form.last("everywhere") == "true")
        except _FAILURES as error:
            return await self._failure(request, error)
        return self._sessions.forget(self._redirect(SIGN_IN), holder_of(visitor.session))

    async def _enter(self, request: Request) -> Response:
        """Let the operator enter a merchant. It replaces a session of the merchant's own key in the same browser."""
        try:
            visitor, form = await self._submitted(request, "")
            if visitor.signed_in is None:
                raise Problem("FORBIDDEN", "Only the sandbox's operator can enter other merchants.")
            self._require_token(visitor, form)
            merchant_id = form.last("merchant_id")
            if not is_uuid(merchant_id):
                raise Problem("NOT_FOUND", "The console has no such merchant.")
            await visitor_of(visitor.session.within(merchant_id))
        except _FAILURES as error:
            return await self._failure(request, error)
        return self._sessions.forget(self._redirect(in_merchant(form.last("_next") or HOME, merchant_id)), merchant_id)

    # ------------------------------------------------------------------------------------------------ the rest

    async def _open_live(self, request: Request, merchant_id: str) -> Any:
        """Open the live updates of pages: the query's `page` and `tail`. They end with the session."""
        visitor = await self._visitor(request, merchant_id)
        session = visitor.session
        given = query_of(request.query_string.decode("latin-1"))
        if visitor.signed_in is None or given.get("session") not in (None, session.id):
            raise Problem("FORBIDDEN", _RELOAD)
        urls = [given[name] for name in ("page", "tail") if name in given]
        pages = {f"{session.subject} {url}": self._shared(url, request, visitor) for url in urls}
        return self._live.open(merchant_id, pages, session.token, lambda: self._sessions.is_valid(session))

    def _shared(self, url: str, request: Request, visitor: Visitor) -> Build:
        """Return what builds a page for all consoles with the visitor's key. Raises NOT_FOUND."""
        parts = urlsplit(url)
        found = self._pages.find(parts.path, visitor.session.merchant_id)
        if found is None:
            raise Problem("NOT_FOUND", "The console has no such page.")
        page, parameters = found
        query = {name: value for name, value in query_of(parts.query).items() if name not in ("csv", "svg")}

        async def build() -> str | None:
            view = View(self._kit, request, visitor, parts.path, parameters, query, is_shared=True)
            await self._build(page, view)
            return view.html

        return build

    async def _static(self, request: Request, name: str) -> Response:
        content = self._files.get(name)
        if content is None:
            raise Problem("NOT_FOUND")
        headers = [("cache-control", "public, max-age=31536000, immutable"), ("x-content-type-options", "nosniff")]
        return Response(200, content, _MEDIA_TYPES[Path(name).suffix], headers)


def _route(method: str, path: str, handler: Any, limit: int | None) -> Operation:
    words = re.sub(r"\W+", "_", path.removeprefix("/")).strip("_")
    name = f"{words}_{method.lower()}" if method != "GET" else words
    return Operation(
        method, path, "Console", {200: str}, access="public", is_documented=False, body_limit=limit, id=name, handler=handler
    )


def _url_of(request: Request) -> str:
    query = request.query_string.decode("latin-1")
    return request.path + (f"?{query}" if query else "")


def _filled(path: str, data: Any, home: str) -> str:
    """Return a page's path with fields of the API's response in place of its placeholders; `home` for a path outside of it."""
    found = _PLACEHOLDER.sub(lambda match: quote(str(value_at(data, match[1]) or ""), safe=""), path)
    return found if is_inside(found, home) else home
