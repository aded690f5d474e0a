"""The sessions of a browser, which are cookies: find the session of a request, add and delete sessions."""

import secrets
import time
import uuid
from typing import Final

from sandbox.domain.errors import Problem
from sandbox.http.request import ANONYMOUS, Request
from sandbox.http.responses import Response
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS
from sandbox.infrastructure.settings import Settings
from sandbox.server.console.calls import ApiCall, ApiCalls
from sandbox.server.console.ended_sessions import Visitor, visitor_of
from sandbox.server.console.security import cookie, cookies_of
from sandbox.server.console.session import (
    MAX_MERCHANTS,
    OPERATOR,
    Session,
    SessionCodec,
    holder_of,
    is_expired,
)

_ENDED: Final = "Your session has ended. Sign in again."


class Sessions:
    """The console's sessions in browsers."""

    def __init__(self, settings: Settings, calls: ApiCalls) -> None:
        self._codec = SessionCodec(settings.secret_key, settings.admin_key)
        self._is_secure = settings.public_url.startswith("https:")
        self._calls = calls

    async def visitor(self, request: Request, merchant_id: str) -> Visitor:
        """Return who visits a merchant's pages; with an empty id, the pages outside of merchants, as the operator.

        A session of the merchant's own key takes precedence over the operator's. Without either, the visitor is nobody.
        Raises NOT_FOUND if the merchant does not exist, CONNECTION_ERRORS.
        """
        own = self._read(request, merchant_id) if merchant_id else None
        if own is not None and own.merchant_id == merchant_id and (found := await visitor_of(own)):
            return found
        operator = self._read(request, OPERATOR)
        if operator is not None and operator.is_operator and (found := await visitor_of(operator.within(merchant_id))):
            return found
        return Visitor(self.nobody(request))

    def nobody(self, request: Request) -> Session:
        """Return the session that protects the browser's sign-in form: the one it has, or a new one."""
        found = self._read(request, "")
        return found if found is not None and not found.subject else _new_session()

    async def merchants(self, request: Request) -> list[Visitor]:
        """Return the browser's valid sessions, of merchants in the order of their names, then the operator's."""
        found = [visitor for session in self._of_merchants(request) if (visitor := await visitor_of(session))]
        found.sort(key=lambda visitor: (visitor.merchant_name.casefold(), visitor.session.merchant_id))
        operator = self._read(request, OPERATOR)
        visitor = await visitor_of(operator.within("")) if operator is not None and operator.is_operator else None
        return [*found, visitor] if visitor is not None else found

    async def open(self, key: str) -> Session | None:
        """Return a new session for a merchant's API key or the operator's key; None if the key is neither."""
        if not key:
            return None
        reply = await self._calls.send(ApiCall("get_clock", {}, {}), None, {"x-api-key": key})
        if reply.caller is not ANONYMOUS:
            caller = reply.caller
            return _new_session(subject=caller.key_id, merchant_id=caller.merchant_id, role=caller.role)
        reply = await self._calls.send(ApiCall("list_merchants", {}, {"limit": "1"}), None, {"x-admin-key": key})
        return _new_session(subject=OPERATOR) if reply.is_success else None

    async def is_valid(self, session: Session) -> bool:
        """Return whether a session has neither expired nor been ended."""
        try:
            return not is_expired(session, int(time.time())) and await visitor_of(session) is not None
        except (Problem, *CONNECTION_ERRORS) as error:
            # Without PostgreSQL no session can be ended, and nothing can change.
            return not (isinstance(error, Problem) and error.code == "NOT_FOUND")

    def notice_of_end(self, request: Request, merchant_id: str) -> str:
        """Return the message for a visitor who is not signed in: about an expired session, or an empty string."""
        now = int(time.time())
        known = cookies_of(request, self._codec.prefix)
        values = [known.get(self._codec.cookie(holder), "") for holder in (merchant_id, OPERATOR) if holder]
        return _ENDED if any(self._codec.read(value, now).is_expired for value in values) else ""

    def keep(self, response: Response, session: Session) -> Response:
        """Add the session to a response as a cookie."""
        kept = session.within("") if session.is_operator else session
        return self._set_cookie(response, holder_of(session), self._codec.write(kept))

    def keep_new(self, request: Request, response: Response, session: Session) -> Response:
        """Add a session that has just begun. If the browser has too many, it loses the one that was used least recently."""
        others = [known for known in self._of_merchants(request) if known.merchant_id != session.merchant_id]
        for oldest in sorted(others, key=lambda known: known.seen)[: len(others) - MAX_MERCHANTS + 1]:
            self.forget(response, oldest.merchant_id)
        return self.keep(response, session)

    def forget(self, response: Response, holder: str) -> Response:
        """Delete the cookie of a holder: a merchant's id, or OPERATOR."""
        return self._set_cookie(response, holder, "")

    def _set_cookie(self, response: Response, holder: str, value: str) -> Response:
        response.add_header("set-cookie", cookie(self._codec.cookie(holder), value, is_secure=self._is_secure))
        return response

    def _read(self, request: Request, holder: str) -> Session | None:
        value = cookies_of(request, self._codec.prefix).get(self._codec.cookie(holder), "")
        return self._codec.read(value, int(time.time())).session

    def _of_merchants(self, request: Request) -> list[Session]:
        """Return the unexpired sessions of merchants in the browser's cookies. They may have been ended."""
        now = int(time.time())
        known = cookies_of(request, self._codec.prefix)
        found = [(name, self._codec.read(value, now).session) for name, value in known.items()]
        return [
            session
            for name, session in found
            if session and session.merchant_id and name == self._codec.cookie(session.merchant_id)
        ]


def _new_session(subject: str = "", merchant_id: str = "", role: str = "") -> Session:
    now = time.time()
    return Session(
        id=str(uuid.uuid4()),
        csrf=secrets.token_urlsafe(24),
        started=now,
        seen=int(now),
        subject=subject,
        merchant_id=merchant_id,
        role=role,
    )
