"""The table of receiver tests."""

from piccolo.columns import JSONB, UUID, Boolean, Text, Timestamptz
from piccolo.table import Table

from sandbox.infrastructure.db.engine import ENGINE


class ReceiverTests(Table, db=ENGINE):
    """A receiver test and its findings so far. The secret is not stored. All times are the host's.

    `heartbeat_at` is renewed while the test runs, so that a test whose process died is not shown as running forever.
    """

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    url = Text(default=None)
    probe_url = Text(null=True, default=None)
    signing = Text(default=None)
    is_finished = Boolean(default=None)
    interrupted = Boolean(default=None)
    findings = JSONB(default=None)
    created_at = Timestamptz(default=None)
    heartbeat_at = Timestamptz(default=None)
