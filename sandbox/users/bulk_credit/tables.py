"""The tables of bulk credits."""

from piccolo.columns import UUID, Integer, Text, Timestamptz
from piccolo.table import Table

from sandbox.infrastructure.db.engine import ENGINE


class BulkCredits(Table, db=ENGINE):
    """An uploaded file of credits. `traceparent` is the upload's, or null if it is derived from the request id."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    status = Text(default=None)
    total = Integer(default=None)
    invalid = Integer(default=None)
    duplicates = Integer(default=None)
    succeeded = Integer(default=None)
    failed = Integer(default=None)
    request_id = Text(default=None)
    created_at = Timestamptz(default=None)
    updated_at = Timestamptz(default=None)
    completed_at = Timestamptz(null=True, default=None)
    traceparent = Text(null=True, default=None)
