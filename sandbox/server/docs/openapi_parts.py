"""Parts of the OpenAPI document that do not depend on the routes: headers, security schemes and webhooks."""

from typing import Final

from sandbox.domain.enumerations import EventType
from sandbox.domain.idempotency_key import MAX_KEY_LENGTH
from sandbox.domain.payout_states import TRANSITIONS
from sandbox.server.docs.schemas import REF, Json, payload_example

_KEY_PATTERN: Final = r'^([!-~]|[!#-~][ -~]*[!-~]|"[ -~]+[!-~]|"[!#-~])$'
"""Printable ASCII without leading or trailing spaces (HTTP strips them), except an empty pair of quotes."""

HEADERS: Final[Json] = {
    "X-Request-Id": {
        "description": "The id of the request, as in the logs.",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    },
    "Location": {
        "description": "The path of the new object.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Idempotent-Replayed": {
        "description": "Present if this is the stored response to an earlier request with the same key.",
        "schema": {"type": "string", "const": "true"},
    },
    "Retry-After": {
        "description": "Seconds to wait.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
}
_KEY: Final[Json] = {
    "name": "X-IDEMPOTENCY-KEY",
    "in": "header",
    "description": "A new value for each operation, and the same value for each retry.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH, "pattern": _KEY_PATTERN},
    "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
}
PARAMETERS: Final[Json] = {
    "required-idempotency-key": {**_KEY, "required": True},
    "optional-idempotency-key": {**_KEY, "required": False},
}
SECURITY_SCHEMES: Final[Json] = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-KEY", "description": "A merchant's key."},
    "BearerKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "A merchant's key, instead of X-API-KEY.",
    },
    "OperatorKey": {"type": "apiKey", "in": "header", "name": "X-ADMIN-KEY", "description": "The operator's key."},
}
TAGS: Final = {
    "Payouts": "Create payouts, follow them, and approve, reject or cancel them. Also pays for sales.",
    "Aggregator": "Balances per user, calculated from a vendor's feed of transactions.",
    "Balance": "The merchant's balance and its ledger entries.",
    "Directory": "Banks and wallets that payouts can go to.",
    "Events": "The log of events, each with its webhook deliveries.",
    "Reconcile": "Approve or decline sales.",
    "Sales": "Users' sales and the payouts for them.",
    "Users": "A merchant's users and their wallets.",
    "Vendor feed": "The sandbox's own feed of users' transactions.",
    "Verify account": "Check an account before paying it.",
    "Wallet": "Credit many wallets from one CSV file.",
    "Webhook deliveries": "Deliveries of webhooks and their attempts.",
    "Webhook endpoints": "The URLs to which webhooks are delivered.",
    "Sandbox: audit": "Check the ledger.",
    "Sandbox: balance": "Add money.",
    "Sandbox: catalogue": "An example of each scenario, and the failure codes.",
    "Sandbox: clock": "Freeze, advance and resume the merchant's clock.",
    "Sandbox: drain": "Wait until all due work is done.",
    "Sandbox: faults": "Make the API or webhooks misbehave.",
    "Sandbox: keys": "The merchant's API keys.",
    "Sandbox: listeners": "Receive webhooks on a machine that the sandbox cannot reach. `psp listen` does it.",
    "Sandbox: merchants": "Create and delete merchants. Each has its own isolated data and clock.",
    "Sandbox: overview": "Statistics of the newest payouts, balance changes and webhook deliveries.",
    "Sandbox: payouts": "Set the status of payouts manually, and list what can be done with them.",
    "Sandbox: receiver tests": "Test your webhook receiver for classic mistakes.",
    "Sandbox: requests": "The journal of API calls.",
    "Sandbox: reset": "Return a merchant to its initial state.",
    "Sandbox: scenarios": "Built-in scenarios for payouts, and your own rules.",
    "Sandbox: settings": "A merchant's settings.",
    "Sandbox: snapshots": "Save a merchant's state and restore it.",
    "Sandbox: stream": "Changes as they happen, as server-sent events.",
    "Sandbox: world": "Move a merchant's entire state in one file.",
    "Service": "Health, metrics and this document.",
}
"""Tag → its description."""


_STANDARD_ONLY: Final = ("webhook-timestamp", "webhook-signature")
"""Headers that webhooks signed in another dialect than Standard Webhooks do not have."""


def webhook(event: EventType) -> Json:
    """Return the path item for one event type in the `webhooks` section."""
    of_payout = event.startswith("payout.")
    data: Json = {"$ref": REF.format(name="Payout" if of_payout else "Activity")}
    sources = [source for (source, _), change in TRANSITIONS.items() if change.event == event] or [None]
    statuses = [to for (_, to), change in TRANSITIONS.items() if change.event == event]
    if of_payout:
        data = {"allOf": [data], "properties": {"status": {"const": statuses[0]}}}
    headers = {
        "webhook-id": ("The event's id, the same on each retry.", {"type": "string", "minLength": 1}),
        "webhook-timestamp": (
            "The attempt's time in Unix seconds: the host's, or the merchant's with `signing_time: merchant`.",
            {"type": "string", "pattern": "^[0-9]+$"},
        ),
        "x-sandbox-now": ("The merchant's time. It is not signed.", {"type": "string", "format": "date-time"}),
        "traceparent": (
            "The W3C trace of the API call that created the payout: as that call sent it, or as the sandbox started it.",
            {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
        ),
        "webhook-signature": (
            "`v1,` HMAC-SHA256 or `v1a,` Ed25519 of `{webhook-id}.{webhook-timestamp}.{raw body}`, in base64. During "
            "a rotation there are several, separated by spaces. With another `signing` than these two, the headers of that "
            "dialect are sent instead of this one and `webhook-timestamp`.",
            {"type": "string", "pattern": "^v1a?,[A-Za-z0-9+/=]+( v1a?,[A-Za-z0-9+/=]+)*$"},
        ),
    }
    schema = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid", "description": "The event's id: the `webhook-id`."},
            "type": {"const": event},
            "timestamp": {"type": "string", "format": "date-time", "description": "The merchant's time of the event."},
            "livemode": {"const": False},
            "previous_status": {
                "description": "The payout's previous status; null if it was created." if of_payout else "Always null.",
                "enum": sources,
            },
            "data": data,
        },
        "required": ["id", "type", "timestamp", "livemode", "previous_status", "data"],
    }
    previous_status, example_data = payload_example(event)
    example = {
        "id": "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b78",
        "type": event,
        "timestamp": example_data["created_at"],
        "livemode": False,
        "previous_status": previous_status,
        "data": example_data,
    }
    return {
        "post": {
            "operationId": "on_" + event.replace(".", "_"),
            "summary": f"{event}: a delivery to your endpoint",
            "tags": ["Webhooks"],
            "security": [],
            "parameters": [
                {"name": name, "in": "header", "required": name not in _STANDARD_ONLY, "description": text, "schema": kind}
                for name, (text, kind) in headers.items()
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}},
            "responses": {
                "2XX": {"description": "Delivered, if sent within 15 s."},
                "410": {"description": "Disables the endpoint."},
                "default": {"description": "A failure; retried later. Redirects are not followed."},
            },
        }
    }
