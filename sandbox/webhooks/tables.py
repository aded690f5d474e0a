"""The tables of webhooks."""

from piccolo.columns import JSONB, UUID, Array, BigInt, Boolean, Bytea, Integer, Text, Timestamptz
from piccolo.table import Table

from sandbox.db.engine import ENGINE


class WebhookEndpoints(Table, db=ENGINE):
    """A webhook endpoint. `secret` is sealed."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    url = Text(default=None)
    event_types = Array(base_column=Text(), default=None)
    signing = Text(default=None)
    retry_profile = Text(default=None)
    ordered = Boolean(default=None)
    rate_limit = Integer(null=True, default=None)
    description = Text(default=None)
    secret = Bytea(default=None)
    status = Text(default=None)
    disabled_reason = Text(null=True, default=None)
    created_at = Timestamptz(default=None)
    updated_at = Timestamptz(default=None)
    signing_time = Text(null=True, default=None)


class WebhookDeliveries(Table, db=ENGINE):
    """The delivery of an event to an endpoint. `leased_until`, in the host's time, is when its claim expires."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    event_id = UUID(default=None)
    endpoint_id = UUID(default=None)
    status = Text(default=None)
    attempts = Integer(default=None)
    scheduled = Integer(default=None)
    next_attempt_at = Timestamptz(null=True, default=None)
    leased_until = Timestamptz(null=True, default=None)
    created_at = Timestamptz(default=None)
    updated_at = Timestamptz(default=None)


class WebhookAttempts(Table, db=ENGINE):
    """One attempt at a delivery: an HTTP call, or a fault in its place."""

    merchant_id = UUID(primary_key=True, default=None)
    delivery_id = UUID(primary_key=True, default=None)
    attempt = Integer(primary_key=True, default=None)
    at = Timestamptz(default=None)
    url = Text(default=None)
    signature = Text(default=None)
    status = Integer(null=True, default=None)
    response_headers = JSONB(default=None)
    response_body = Text(default=None)
    error = Text(null=True, default=None)
    duration_ms = Integer(default=None)
    signed_at = BigInt(null=True, default=None)
    fault_id = UUID(null=True, default=None)
    fault_kind = Text(null=True, default=None)
