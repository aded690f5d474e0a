"""Write changes of endpoints' health that follow from recorded attempts.

Workers do this without the merchant's lock, so every decision is made on the locked row: an endpoint that was enabled again
after the attempt was claimed has no `failing_since`, and stays enabled.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.rows import as_json
from sandbox.infrastructure.db.statements import read_statements
from sandbox.webhooks.delivery.endpoint_health import DISABLE_AFTER, MAX_HISTORY, HealthChange

_CHANGE: Final = read_statements(__name__, days=str(DISABLE_AFTER.days), max_history=str(MAX_HISTORY))["change"]


async def change_health(conn: Connection, merchant_id: str, changes: Sequence[HealthChange], now: datetime) -> None:
    """Write since when endpoints have been failing, and disable those that are gone or have failed for DISABLE_AFTER."""
    await conn.execute(_CHANGE, merchant_id, as_json(changes), now, DISABLE_AFTER)
