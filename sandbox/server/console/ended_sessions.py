"""Whether a session is still valid: its key is not revoked, and it was not ended. PostgreSQL knows which ones were ended."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from asyncpg.pool import PoolConnectionProxy

from sandbox.domain.errors import Problem
from sandbox.http.request import Caller, SignedIn
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.settings import DEVELOPMENT_API_KEY
from sandbox.server.console.session import MAX_SECONDS, Session
from sandbox.unit_of_work.transaction import write_rows

_SQL: Final = read_statements(__name__, demo_key=DEVELOPMENT_API_KEY)
_IS_ENDED: Final = _SQL["is_ended"]
_KEY: Final = _SQL["key"]
_MERCHANT: Final = _SQL["merchant"]
_END: Final = _SQL["end"]
_FORGET: Final = _SQL["forget"]
_OPERATORS: Final = str(UUID(int=0))
"""Stands for the merchant in sign-outs of the operator, who may enter any merchant in the same session."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """The visitor who makes a request: the session, and its caller; None if nobody is signed in."""

    session: Session
    signed_in: SignedIn | None = None
    merchant_name: str = ""
    """The name of the session's merchant."""
    is_demo: bool = False
    """Whether it is the demo merchant, whose key `psp` uses by default."""


async def visitor_of(session: Session) -> Visitor | None:
    """Return the visitor that a session stands for; None if it was ended or its key was revoked.

    Raises NOT_FOUND if the operator's session is in a merchant that does not exist, CONNECTION_ERRORS.
    Neither the merchant's rate limit nor its API faults apply to the console: they are for the integrator's calls, and with
    them it could become impossible to delete a fault.
    """
    started = datetime.fromtimestamp(session.started, UTC)
    known = (_owner_of(session), session.subject, session.id, started)
    async with connection(_owner_of(session)) as conn:
        if not session.is_operator:
            key = await conn.fetchrow(_KEY, *known, session.subject)
            if key is None:
                return None
            return Visitor(
                session, SignedIn(Caller(session.merchant_id, session.subject, key["role"])), key["name"], key["is_demo"]
            )
        if await conn.fetchval(_IS_ENDED, *known):
            return None
    found = SignedIn(Caller(session.merchant_id, "", session.role), is_operator=True)
    if not session.merchant_id:
        return Visitor(session, found)
    async with connection(session.merchant_id) as conn:
        merchant = await conn.fetchrow(_MERCHANT, session.merchant_id)
    if merchant is None:
        raise Problem("NOT_FOUND", "This merchant does not exist; it may have been deleted.")
    return Visitor(session, found, merchant["name"], merchant["is_demo"])


async def end_session(session: Session, now: float, *, everywhere: bool) -> None:
    """End a session, or all sessions of its key that began until `now`, in seconds of host time. Raises CONNECTION_ERRORS."""
    owner = _owner_of(session)

    async def write(conn: "PoolConnectionProxy[Any]") -> None:
        # Sessions do not live longer than this, so older rows have no effect any more.
        await conn.execute(_FORGET, owner, datetime.fromtimestamp(now - 2 * MAX_SECONDS, UTC))
        await conn.execute(_END, owner, session.subject, "" if everywhere else session.id, datetime.fromtimestamp(now, UTC))

    await write_rows(owner, write)


def _owner_of(session: Session) -> str:
    return _OPERATORS if session.is_operator else session.merchant_id
