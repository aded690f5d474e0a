"""The console's routes: pages, forms, sign-in, live updates and static files."""

import hashlib
import re
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from sandbox.console import submission
from sandbox.console.calls import ApiCall, ApiCalls, Refused
from sandbox.console.commands import Commands
from sandbox.console.data_table import value_at
from sandbox.console.forms import FormState, UnreadableField, body_of, failed, parameters_of
from sandbox.console.live import LivePages
from sandbox.console.pages import FRAGMENTS, PAGES
from sandbox.console.rendering import create_templates
from sandbox.console.routing import Fragment, Page
from sandbox.console.security import add, cookie, cookie_of, require_own_host, require_own_origin
from sandbox.console.session import OPERATOR, Flash, Session, SessionCodec, is_token_of, without_flash
from sandbox.console.store import end_session, signed_in
from sandbox.console.submission import Submission
from sandbox.console.view import Kit, View, query_of
from sandbox.db.engine import CONNECTION_ERRORS, database_unavailable
from sandbox.domain.errors import CODES, Problem, invalid
from sandbox.http.operation import Operation
from sandbox.http.request import ANONYMOUS, Request, SignedIn
from sandbox.http.responses import Response
from sandbox.infrastructure.settings import (
    DEVELOPMENT_ADMIN_KEY,
    DEVELOPMENT_API_KEY,
    DEVELOPMENT_MEMBER_KEY,
    DEVELOPMENT_USERS_KEY,
    LOOPBACK_HOSTS,
    Settings,
)
from sandbox.live.listener import LiveListener

HOME: Final = "/console"
SIGN_IN: Final = "/console/sign-in"
MERCHANTS: Final = "/console/merchants"
_STATIC: Final = Path(__file__).parent / "static"
_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_DEMO_KEYS: Final = {
    "admin": DEVELOPMENT_API_KEY,
    "member": DEVELOPMENT_MEMBER_KEY,
    "users": DEVELOPMENT_USERS_KEY,
    "operator": DEVELOPMENT_ADMIN_KEY,
}
_PLACEHOLDER: Final = re.compile(r"\{([a-z_.]+)\}")


class Console:
    """Serves the console. `operations` are the API's; the console's own are in `routes`."""

    def __init__(self, operations: Sequence[Operation], settings: Settings, listener: LiveListener) -> None:
        self.calls = ApiCalls(operations)
        self._codec = SessionCodec(settings.secret_key, settings.admin_key)
        self._live = LivePages(listener)
        self._public_url = settings.public_url
        self._is_secure = settings.public_url.startswith("https:")
        files = {path.name: path.read_bytes() for path in sorted(_STATIC.iterdir()) if path.suffix in _MEDIA_TYPES}
        self._files = files
        version = hashlib.sha256(b"".join(files.values())).hexdigest()[:12]
        self._kit = Kit(
            self.calls,
            Commands(operations, settings.public_url),
            create_templates(version),
            settings.public_url,
            settings.host in LOOPBACK_HOSTS,
        )
        # /console/payouts/new is also a /console/payouts/{payout_id}.
        exact_first = sorted(PAGES, key=lambda page: page.path.count("{"))
        self._pages = [(re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", page.path) + r"\Z"), page) for page in exact_first]

    def routes(self) -> list[Operation]:
        """Return the console's own operations, which are not part of the API."""
        found = [self._page_route(page) for page in PAGES]
        for method, path, handler, limit in (
            ("POST", "/console/actions/{operation_id}", self._act, submission.MAX_SIZE),
            ("POST", SIGN_IN, self._sign_in, None),
            ("POST", "/console/sign-out", self._sign_out, None),
            ("POST", "/console/enter", self._enter, None),
            ("POST", "/console/fragments/{name}", self._fragment, None),
            ("GET", "/console/live", self._open_live, None),
            ("GET", "/console/static/{name}", self._static, None),
            ("GET", "/console/{page}", self._not_found, None),
            ("GET", "/console/{page}/{part}", self._not_found, None),
        ):
            name = "console_" + re.sub(r"\W+", "_", path.removeprefix("/console/")).strip("_")
            found.append(_route(method, path, name, handler, limit))
        return found

    def _page_route(self, page: Page) -> Operation:
        async def show(request: Request, **path_parameters: str) -> Response:
            return await self._show(page, request, path_parameters)

        name = "console_" + (re.sub(r"\W+", "_", page.path.removeprefix("/console")).strip("_") or "home")
        return _route("GET", page.path, name, show, None)

    # ------------------------------------------------------------------------------------------------ sessions

    async def _session(self, request: Request) -> tuple[Session, SignedIn | None]:
        """Return the request's session and its caller. Without a valid session, a new one of nobody."""
        now = int(time.time())
        found = self._codec.read(cookie_of(request, self._codec.cookie), now)
        if found.session is not None:
            caller = await signed_in(found.session) if found.session.subject else None
            if caller is not None or not found.session.subject:
                return found.session, caller
        flash = Flash("Your session has ended. Sign in again.") if found.is_expired else None
        return Session(id=str(uuid.uuid4()), csrf=secrets.token_urlsafe(24), started=time.time(), seen=now, flash=flash), None

    def _keep(self, response: Response, session: Session) -> Response:
        response.add_header("set-cookie", cookie(self._codec.cookie, self._codec.write(session), is_secure=self._is_secure))
        return response

    def _redirect(self, path: str, session: Session | None) -> Response:
        response = Response(303, headers=add([("location", path)]))
        return response if session is None else self._keep(response, session)

    async def _submitted(self, request: Request) -> tuple[Session, SignedIn | None, Submission]:
        """Return the session and the form of a POST. Raises FORBIDDEN unless the form is one of this session's pages."""
        require_own_host(request, self._public_url)
        require_own_origin(request)
        session, caller = await self._session(request)
        form = await submission.read(request)
        if not is_token_of(session, form.last("_csrf")):
            raise Problem("FORBIDDEN", "This page is out of date: you signed in or out since it was opened. Reload it.")
        return session, caller, form

    # ------------------------------------------------------------------------------------------------ pages

    async def _show(self, page: Page, request: Request, path_parameters: Mapping[str, str]) -> Response:
        try:
            require_own_host(request, self._public_url)
            session, caller = await self._session(request)
        except (Problem, *CONNECTION_ERRORS) as error:
            return await self._failure(request, error, None, None)
        redirect = _redirect_for(page, session, caller)
        if redirect is not None:
            return self._redirect(redirect, session)
        query = query_of(request.query_string.decode("latin-1"))
        view = View(self._kit, request, session, caller, request.path, path_parameters, query)
        response = await self._build(page, view)
        # A page that fetches itself again after a change is not activity of the person who left it open.
        if request.header("x-live") is None:
            self._keep(response, without_flash(session, int(time.time())))
        return response

    async def _build(self, page: Page | Fragment, view: View) -> Response:
        try:
            return await page.build(view)
        except UnreadableField as error:
            return await self._failure(view.request, invalid("form", str(error)), view.session, view.signed_in)
        except (Refused, Problem, *CONNECTION_ERRORS) as error:
            return await self._failure(view.request, error, view.session, view.signed_in)

    async def _failure(self, request: Request, error: Exception, session: Session | None, caller: SignedIn | None) -> Response:
        """Return a page that says what went wrong."""
        if isinstance(error, Refused):
            status, problem = error.status, error.problem
        else:
            found = error if isinstance(error, Problem) else database_unavailable(error)
            status = found.status
            problem = msgspec.json.decode(found.body(self._public_url, request.path, request.request_id))
        if session is None:
            session = Session(id="", csrf="", started=0, seen=0)
        view = View(self._kit, request, session, caller, request.path, {}, {}, status=status)
        kind = CODES.get(problem.get("code", ""))
        return await view.render("error.html", problem=problem, cure="" if kind is None else kind.resolution)

    async def _not_found(self, request: Request, **_: str) -> Response:
        try:
            session, caller = await self._session(request)
        except (Problem, *CONNECTION_ERRORS) as error:
            return await self._failure(request, error, None, None)
        return await self._failure(request, Problem("NOT_FOUND", "The console has no such page."), session, caller)

    # ------------------------------------------------------------------------------------------------ forms

    async def _act(self, request: Request, operation_id: str) -> Response:
        try:
            session, caller, form = await self._submitted(request)
            if caller is None:
                return self._redirect(SIGN_IN, session)
            operation = self.calls.operation(operation_id)
            if operation.method == "GET" or operation.access == "public":
                raise Problem("NOT_FOUND", "The console has no such action.")
        except (Problem, *CONNECTION_ERRORS) as error:
            return await self._failure(request, error, None, None)
        path, query = parameters_of(form.fields, "path."), parameters_of(form.fields, "query.")
        if set(operation.path_parameters) != set(path):
            problem = Problem("NOT_FOUND", "Enter the id first.")
            return await self._failure(request, problem, session, caller)
        state = FormState(form.last("_form") or operation_id, form.values())
        try:
            body = body_of(form.fields)
        except UnreadableField as error:
            return await self._return_to(form.last("_page"), request, session, caller, failed(state, error.problem), 400)
        call = ApiCall(operation_id, path, query, body, form.file, form.last("_key") or None)
        headers = {"x-sandbox-scenario": form.last("_scenario")} if form.last("_scenario") else None
        reply = await self.calls.send(call, caller, headers)
        if not reply.is_success:
            problem_body = (
                reply.data if isinstance(reply.data, dict) else {"title": "The request failed", "status": reply.status}
            )
            return await self._return_to(
                form.last("_page"), request, session, caller, failed(state, problem_body), reply.status
            )
        if form.last("_then") == "stay":
            state.result = reply.data if reply.data is not None else {}
            return await self._return_to(form.last("_page"), request, session, caller, state, 200)
        said = Flash(form.last("_said")[:200] or "Done.")
        done = _filled(form.last("_done") or form.last("_page"), reply.data)
        return self._redirect(done, msgspec.structs.replace(session, flash=said, seen=int(time.time())))

    async def _return_to(
        self, url: str, request: Request, session: Session, caller: SignedIn, state: FormState, status: int
    ) -> Response:
        """Return the page that a form was on, with the form as it was submitted."""
        parts = urlsplit(url)
        for pattern, page in self._pages:
            if found := pattern.match(parts.path):
                session = without_flash(session, int(time.time()))
                view = View(
                    self._kit, request, session, caller, parts.path, found.groupdict(), query_of(parts.query), state, status
                )
                return self._keep(await self._build(page, view), session)
        return await self._failure(request, Problem("NOT_FOUND", "The form does not name its page."), session, caller)

    async def _fragment(self, request: Request, name: str) -> Response:
        """Return a part of a page for a form that is being filled in."""
        try:
            session, caller, form = await self._submitted(request)
            fragment = next((found for found in FRAGMENTS if found.name == name), None)
            if fragment is None or caller is None:
                raise Problem("NOT_FOUND")
        except (Problem, *CONNECTION_ERRORS) as error:
            return await self._failure(request, error, None, None)
        view = View(self._kit, request, session, caller, request.path, {}, {}, FormState(name, form.values()))
        return await self._build(fragment, view)

    # ------------------------------------------------------------------------------------------------ sign-in

    async def _sign_in(self, request: Request) -> Response:
        try:
            session, _, form = await self._submitted(request)
            demo = _DEMO_KEYS.get(form.last("demo"), "") if self._kit.is_local else ""
            opened = await self._open_session(demo or form.last("api_key").strip())
        except (Problem, *CONNECTION_ERRORS) as error:
            return await self._failure(request, error, None, None)
        if opened is None:
            flash = Flash("This key is not valid. Check it: it may be mistyped or revoked, or belong to another sandbox.", True)
            return self._redirect(SIGN_IN, msgspec.structs.replace(session, flash=flash))
        return self._redirect(MERCHANTS if opened.is_operator else HOME, opened)

    async def _open_session(self, key: str) -> Session | None:
        """Return a new session for a merchant's API key or the operator's key; None if the key is neither."""
        now = int(time.time())
        session = Session(id=str(uuid.uuid4()), csrf=secrets.token_urlsafe(24), started=time.time(), seen=now)
        if not key:
            return None
        reply = await self.calls.send(ApiCall("get_clock", {}, {}), None, {"x-api-key": key})
        if reply.caller is not ANONYMOUS:
            caller = reply.caller
            return msgspec.structs.replace(session, subject=caller.key_id, merchant_id=caller.merchant_id, role=caller.role)
        reply = await self.calls.send(ApiCall("list_merchants", {}, {"limit": "1"}), None, {"x-admin-key": key})
        return msgspec.structs.replace(session, subject=OPERATOR) if reply.is_success else None

    async def _sign_out(self, request: Request) -> Response:
        try:
            session, caller, form = await self._submitted(request)
            if caller is not None:
                await end_session(session, time.time(), everywhere=form.last("everywhere") == "true")
        except (Problem, *CONNECTION_ERRORS) as error:
            return await self._failure(request, error, None, None)
        response = self._redirect(SIGN_IN, None)
        response.add_header("set-cookie", cookie(self._codec.cookie, "", is_secure=self._is_secure))
        return response

    async def _enter(self, request: Request) -> Response:
        """Let the operator enter a merchant or, with an empty id, leave it."""
        try:
            session, caller, form = await self._submitted(request)
            if caller is None or not caller.is_operator:
                raise Problem("FORBIDDEN", "Only the sandbox's operator can enter other merchants.")
            entered = session.entering(form.last("merchant_id"))
            if entered.merchant_id:
                inside = await signed_in(entered)
                reply = await self.calls.send(ApiCall("get_clock", {}, {}), inside)
                if not reply.is_success:
                    raise Problem("NOT_FOUND", "This merchant does not exist; it may have been deleted.")
        except (Problem, *CONNECTION_ERRORS) as error:
            return await self._failure(request, error, None, None)
        return self._redirect(HOME if entered.merchant_id else MERCHANTS, entered)

    # ------------------------------------------------------------------------------------------------ the rest

    async def _open_live(self, request: Request) -> Any:
        require_own_host(request, self._public_url)
        session, caller = await self._session(request)
        if caller is None or not caller.caller.merchant_id:
            raise Problem("FORBIDDEN", "Sign in first.")

        async def is_valid() -> bool:
            try:
                return self._codec.read(cookie_of(request, self._codec.cookie), int(time.time())).session is not None and (
                    await signed_in(session) is not None
                )
            except (Problem, *CONNECTION_ERRORS):
                return True  # without PostgreSQL no session can be ended, and nothing can change

        return self._live.open(caller.caller.merchant_id, is_valid)

    async def _static(self, request: Request, name: str) -> Response:
        content = self._files.get(name)
        if content is None:
            raise Problem("NOT_FOUND")
        headers = [("cache-control", "public, max-age=31536000, immutable"), ("x-content-type-options", "nosniff")]
        return Response(200, content, _MEDIA_TYPES[Path(name).suffix], headers)


def _route(method: str, path: str, name: str, handler: Any, limit: int | None) -> Operation:
    return Operation(
        method, path, "Console", {200: str}, access="public", is_documented=False, body_limit=limit, id=name, handler=handler
    )


def _redirect_for(page: Page, session: Session, caller: SignedIn | None) -> str | None:
    """Return where to go instead of a page that this session cannot open, or None."""
    if page.audience == "anyone":
        return None
    if caller is None:
        return SIGN_IN
    if page.audience == "operator":
        return None if caller.is_operator else HOME
    return None if session.merchant_id else MERCHANTS


def _filled(path: str, data: Any) -> str:
    """Return a path of the console with fields of the API's response in place of its placeholders."""
    found = _PLACEHOLDER.sub(lambda match: quote(str(value_at(data, match[1]) or ""), safe=""), path)
    return found if found == HOME or found.startswith(("/console/", "/console?")) else HOME
