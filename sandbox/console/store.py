"""Whether a session is still valid: its key is not revoked, and it was not ended. PostgreSQL knows which ones were ended."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from asyncpg.pool import PoolConnectionProxy

from sandbox.console.session import MAX_SECONDS, Session
from sandbox.db.engine import connection, db_errors_as_503
from sandbox.http.request import Caller, SignedIn
from sandbox.unit_of_work.transaction import write_rows

_ENDED: Final = """EXISTS (
    SELECT 1 FROM console_sign_outs WHERE merchant_id = $1 AND subject = $2 AND session IN ('', $3) AND at >= $4
)"""
_IS_ENDED: Final = f"SELECT {_ENDED}"
_ROLE: Final = f"""
SELECT role FROM api_keys WHERE merchant_id = $1 AND id = $5 AND revoked_at IS NULL AND NOT {_ENDED}
"""  # noqa: S608 -- constants
_END: Final = """
INSERT INTO console_sign_outs (merchant_id, subject, session, at) VALUES ($1, $2, $3, $4)
ON CONFLICT (merchant_id, subject, session) DO UPDATE SET at = EXCLUDED.at
"""
_FORGET: Final = "DELETE FROM console_sign_outs WHERE merchant_id = $1 AND at < $2"
_OPERATORS: Final = str(UUID(int=0))
"""Stands for the merchant in sign-outs of the operator, who may enter any merchant in the same session."""


async def signed_in(session: Session) -> SignedIn | None:
    """Return the caller that a session stands for; None if it was ended or its key was revoked. Raises UNAVAILABLE.

    Neither the merchant's rate limit nor its API faults apply to the console: they are for the integrator's calls, and with
    them it could become impossible to delete a fault.
    """
    started = datetime.fromtimestamp(session.started, UTC)
    async with db_errors_as_503(), connection(_owner_of(session)) as conn:
        known = (_owner_of(session), session.subject, session.id, started)
        if session.is_operator:
            is_ended = await conn.fetchval(_IS_ENDED, *known)
            return None if is_ended else SignedIn(Caller(session.merchant_id, "", session.role), is_operator=True)
        role = await conn.fetchval(_ROLE, *known, session.subject)
    return None if role is None else SignedIn(Caller(session.merchant_id, session.subject, role))


async def end_session(session: Session, now: float, *, everywhere: bool) -> None:
    """End a session, or all sessions of its key that began until `now`, in seconds of host time. Raises UNAVAILABLE."""
    owner = _owner_of(session)

    async def write(conn: "PoolConnectionProxy[Any]") -> None:
        # Sessions do not live longer than this, so older rows have no effect any more.
        await conn.execute(_FORGET, owner, datetime.fromtimestamp(now - 2 * MAX_SECONDS, UTC))
        await conn.execute(_END, owner, session.subject, "" if everywhere else session.id, datetime.fromtimestamp(now, UTC))

    async with db_errors_as_503():
        await write_rows(owner, write)


def _owner_of(session: Session) -> str:
    return _OPERATORS if session.is_operator else session.merchant_id
