"""The webhook endpoints' table, for ordinary reads."""

from piccolo.columns import UUID, Array, Text, Timestamptz
from piccolo.table import Table

from sandbox.db.engine import ENGINE


class WebhookEndpoint(Table, tablename="webhook_endpoints", db=ENGINE):
    """`id` is unique within its merchant only, so every read names the merchant too. The sealed secret is left out, so
    that no read carries it by accident.
    """

    id = UUID(primary_key=True)
    merchant_id = UUID()
    url = Text()
    event_types = Array(base_column=Text())
    signing = Text()
    signing_time = Text(null=True)
    retry_profile = Text()
    description = Text()
    status = Text()
    disabled_reason = Text(null=True)
    created_at = Timestamptz()
    updated_at = Timestamptz()
