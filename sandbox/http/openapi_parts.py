"""Parts of the OpenAPI document that are the same whatever the routes: headers, keys, and the webhooks' deliveries."""

from typing import Final

from sandbox.http.schemas import REF, Json

_KEY_PATTERN: Final = r'^([!-~]|[!#-~][ -~]*[!-~]|"[ -~]+[!-~]|"[!#-~])$'
"""Printable ASCII that neither begins nor ends with a space (HTTP cuts those off), and not just two quotes."""

HEADERS: Final[Json] = {
    "X-Request-Id": {
        "description": "The request's name in the logs.",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    },
    "Location": {
        "description": "Where the new object is.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Idempotent-Replayed": {
        "description": "There if this is the stored answer to an earlier request with the same key.",
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
    "description": "A value of your own for each operation; the same value when you repeat it.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": _KEY_PATTERN},
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
        "description": "A merchant's key, in place of X-API-KEY.",
    },
    "OperatorKey": {"type": "apiKey", "in": "header", "name": "X-ADMIN-KEY", "description": "The operator's."},
    "IpnSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "webhook-signature",
        "description": "Standard Webhooks, beside `webhook-id` and `webhook-timestamp`.",
    },
}


def webhook(event: str) -> Json:
    """A path item of the `webhooks` section: what an endpoint is sent for one type of event."""
    data: Json = {"$ref": REF.format(name="Payout")}
    if not event.startswith("payout."):
        data = {"type": "object", "description": "The activity as it was at that moment."}
    headers = {
        "webhook-id": ("The event's id, the same on each retry.", {"type": "string", "minLength": 1}),
        "webhook-timestamp": ("The attempt's time, in whole seconds.", {"type": "string", "pattern": "^[0-9]+$"}),
        "webhook-signature": (
            "`v1,` HMAC-SHA256 or `v1a,` Ed25519 of `{webhook-id}.{webhook-timestamp}.{raw body}`, in base64; "
            "during a rotation several, with spaces between.",
            {"type": "string", "pattern": "^v1a?,[A-Za-z0-9+/=]+( v1a?,[A-Za-z0-9+/=]+)*$"},
        ),
    }
    schema = {
        "type": "object",
        "properties": {
            "type": {"const": event},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": data,
        },
        "required": ["type", "timestamp", "data"],
    }
    return {
        "post": {
            "operationId": "on_" + event.replace(".", "_"),
            "summary": f"{event}: a delivery to your endpoint",
            "tags": ["Webhooks"],
            "security": [],
            "parameters": [
                {"name": name, "in": "header", "required": True, "description": text, "schema": kind}
                for name, (text, kind) in headers.items()
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": {
                "2XX": {"description": "Delivered, if it comes within 15 s."},
                "410": {"description": "Disables the endpoint."},
                "default": {"description": "Failed, and tried again later; a redirect is not followed."},
            },
        }
    }
