"""Whether a session is still valid: its key is not revoked, and it was not ended. PostgreSQL knows which ones were ended."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from asyncpg.pool import PoolConnectionProxy

from sandbox.console.session import MAX_SECONDS, Session
from sandbox.db.engine import connection
from sandbox.domain.errors import Problem
from sandbox.http.request import Caller, SignedIn
from sandbox.infrastructure.settings import DEVELOPMENT_API_KEY
from sandbox.unit_of_work.transaction import write_rows

_ENDED: Final = """EXISTS (
    SELECT 1 FROM console_sign_outs WHERE merchant_id = $1 AND subject = $2 AND session IN ('', $3) AND at >= $4
)"""
_IS_ENDED: Final = f"SELECT {_ENDED}"
_IS_DEMO: Final = """EXISTS (
    SELECT 1 FROM api_keys d WHERE d.merchant_id = $1 AND d.key_hash = sha256('$KEY') AND d.revoked_at IS NULL
)""".replace("$KEY", DEVELOPMENT_API_KEY)
_KEY: Final = f"""
SELECT k.role, m.name, {_IS_DEMO} AS is_demo FROM api_keys k JOIN merchants m ON m.merchant_id = k.merchant_id
WHERE m.merchant_id = $1 AND k.merchant_id = $1 AND k.id = $5 AND k.revoked_at IS NULL AND NOT {_ENDED}
"""  # noqa: S608 -- constants
_MERCHANT: Final = f"SELECT m.name, {_IS_DEMO} AS is_demo FROM merchants m WHERE m.merchant_id = $1"  # noqa: S608 -- constants
_END: Final = """
INSERT INTO console_sign_outs (merchant_id, subject, session, at) VALUES ($1, $2, $3, $4)
ON CONFLICT (merchant_id, subject, session) DO UPDATE SET at = EXCLUDED.at
"""
_FORGET: Final = "DELETE FROM console_sign_outs WHERE merchant_id = $1 AND at < $2"
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
