"""Whether a session is still valid: its key is not revoked, and it was not ended. PostgreSQL knows which ones were ended."""

from datetime import UTC, datetime
from typing import Any, Final

from asyncpg.pool import PoolConnectionProxy

from sandbox.console.session import MAX_SECONDS, Session
from sandbox.db.engine import connection, db_errors_as_503
from sandbox.http.request import Caller, SignedIn
from sandbox.unit_of_work.transaction import write_rows

_ENDED: Final = "EXISTS (SELECT 1 FROM console_sign_outs WHERE subject = $1 AND session IN ('', $2) AND at >= $3)"
_IS_ENDED: Final = f"SELECT {_ENDED}"
_ROLE: Final = f"""
SELECT role FROM api_keys WHERE merchant_id = $4 AND id = $5 AND revoked_at IS NULL AND NOT {_ENDED}
"""  # noqa: S608 -- constants
_END: Final = """
INSERT INTO console_sign_outs (subject, session, at) VALUES ($1, $2, $3)
ON CONFLICT (subject, session) DO UPDATE SET at = EXCLUDED.at
"""
_FORGET: Final = "DELETE FROM console_sign_outs WHERE at < $1"


async def signed_in(session: Session) -> SignedIn | None:
    """Return the caller that a session stands for; None if it was ended or its key was revoked. Raises UNAVAILABLE.

    Neither the merchant's rate limit nor its API faults apply to the console: they are for the integrator's calls, and with
    them it could become impossible to delete a fault.
    """
    started = datetime.fromtimestamp(session.started, UTC)
    async with db_errors_as_503(), connection(session.merchant_id) as conn:
        known = (session.subject, session.id, started)
        if session.is_operator:
            is_ended = await conn.fetchval(_IS_ENDED, *known)
            return None if is_ended else SignedIn(Caller(session.merchant_id, "", session.role), is_operator=True)
        role = await conn.fetchval(_ROLE, *known, session.merchant_id, session.subject)
    return None if role is None else SignedIn(Caller(session.merchant_id, session.subject, role))


async def end_session(session: Session, now: float, *, everywhere: bool) -> None:
    """End a session, or all sessions of its key that began until `now`, in seconds of host time. Raises UNAVAILABLE."""

    async def write(conn: "PoolConnectionProxy[Any]") -> None:
        # Sessions do not live longer than this, so older rows have no effect any more.
        await conn.execute(_FORGET, datetime.fromtimestamp(now - 2 * MAX_SECONDS, UTC))
        await conn.execute(_END, session.subject, "" if everywhere else session.id, datetime.fromtimestamp(now, UTC))

    async with db_errors_as_503():
        await write_rows(session.merchant_id, write)
