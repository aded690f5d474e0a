"""Write changes of endpoints' health that follow from recorded attempts.

Workers do this without the merchant's lock, so every decision is made on the locked row: an endpoint that was enabled again
after the attempt was claimed has no `failing_since`, and stays enabled.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sandbox.db.rows import as_json, update_by_key
from sandbox.domain.endpoint_health import DISABLE_AFTER, MAX_HISTORY, HealthChange

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_FAILING_SINCE: Final = "CASE WHEN n.succeeded THEN n.failed_at ELSE least(k.failing_since, n.failed_at) END"
_REASON: Final = f"""CASE WHEN k.status = 'ENABLED' THEN CASE
    WHEN n.gone THEN 'The endpoint responded with 410 Gone.'
    WHEN NOT n.succeeded AND k.failing_since <= n.last_failed_at - $4::interval
    THEN 'Every attempt since ' || to_char(k.failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
        || ' failed, for at least {DISABLE_AFTER.days} days.' END END"""

_CHANGE: Final = update_by_key(
    "webhook_endpoints",
    rows="""json_to_recordset($2::json) AS n (id uuid, succeeded boolean, failed_at timestamptz, last_failed_at timestamptz,
    gone boolean, at text)""",
    key=("id", "n.id"),
    changes={
        "failing_since": _FAILING_SINCE,
        "status": f"CASE WHEN {_REASON} IS NULL THEN k.status ELSE 'DISABLED' END",
        "disabled_reason": f"coalesce({_REASON}, k.disabled_reason)",
        "status_history": f"""CASE WHEN {_REASON} IS NULL THEN k.status_history ELSE (
            SELECT jsonb_agg(entry ORDER BY place) FROM (
                SELECT entry, place FROM jsonb_array_elements(coalesce(k.status_history, '[]') || jsonb_build_array(
                    jsonb_build_object('at', n.at, 'status', 'DISABLED', 'reason', {_REASON})
                )) WITH ORDINALITY AS h (entry, place) ORDER BY place DESC LIMIT {MAX_HISTORY}
            ) newest) END""",  # noqa: S608 -- constants
        "updated_at": f"CASE WHEN {_REASON} IS NULL THEN k.updated_at ELSE $3 END",
    },
    kept=("url", "event_types", "signing", "retry_profile", "ordered", "description", "secret", "created_at"),
    where=f"{_REASON} IS NOT NULL OR k.failing_since IS DISTINCT FROM {_FAILING_SINCE}",
    lock=True,
)


async def change_health(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, changes: Sequence[HealthChange], now: datetime
) -> None:
    """Write since when endpoints have been failing, and disable those that are gone or have failed for DISABLE_AFTER."""
    await conn.execute(_CHANGE, merchant_id, as_json(changes), now, DISABLE_AFTER)
