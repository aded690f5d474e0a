"""The table of webhook endpoints."""

from piccolo.columns import JSONB, UUID, Array, Boolean, Bytea, Integer, Text, Timestamptz
from piccolo.table import Table

from sandbox.infrastructure.db.engine import ENGINE


class WebhookEndpoints(Table, db=ENGINE):
    """A webhook endpoint.

    `secret` is sealed, and so are `previous_secrets`, which still sign until they expire: an array of `[base64, expires_at]`,
    newest first. `public_key` belongs to `secret`, if that is an Ed25519 key. `rate_free_at`, in the host's time, is when the
    rate limit allows the next attempt. `failing_since` is the merchant's time of the first failure since the last success.
    `status_history` is an array of `{at, status, reason}`, oldest first. A `relayed` endpoint's deliveries are sent by a
    listener, not by workers. `wire` has the `dialect` through which the endpoint was created, and the members of that request
    that have no native field.
    """

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
    filters = JSONB(null=True, default=None)
    custom_signing = JSONB(null=True, default=None)
    max_in_flight = Integer(null=True, default=None)
    previous_secrets = JSONB(null=True, default=None)
    rate_free_at = Timestamptz(null=True, default=None)
    failing_since = Timestamptz(null=True, default=None)
    status_history = JSONB(null=True, default=None)
    relayed = Boolean(null=True, default=None)
    public_key = Text(null=True, default=None)
    wire = JSONB(null=True, default=None)
