"""The body of a request for a receiver test, and its validation. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from sandbox.domain.errors import invalid_fields
from sandbox.domain.fields import PRINTABLE, Url
from sandbox.domain.redaction import SECRET
from sandbox.http.body_errors import FieldProblem
from sandbox.webhooks.endpoints.requests import dialect_errors
from sandbox.webhooks.outbound.address_guard import Network
from sandbox.webhooks.outbound.url_check import url_error
from sandbox.webhooks.receiver_tests.events import ReceiverSigning
from sandbox.webhooks.signing.dialects import CustomSigning, custom_signing_errors, has_decoded_key
from sandbox.webhooks.signing.standard_webhooks import PRIVATE_KEY_PREFIX, SECRET_PREFIX, decode_private_key, decode_secret


class ReceiverTestBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /receiver-tests`."""

    url: Url
    secret: Annotated[str, SECRET, msgspec.Meta(min_length=1, max_length=500, pattern=PRINTABLE)]
    """What the receiver verifies with: `whsec_...`, for `v1a` the private key `whsk_...`. It is not stored."""
    signing: ReceiverSigning = "v1"
    custom_signing: CustomSigning | None = None
    """For `custom`: how an endpoint of these settings signs."""
    probe_url: Url | None = None


def normalized_secret(signing: str, secret: str) -> str:
    """Return the secret with its prefix. Like the public libraries, this accepts a `v1` secret without one."""
    if signing == "v1" and not secret.startswith(SECRET_PREFIX):
        return SECRET_PREFIX + secret
    if signing == "v1a" and not secret.startswith(PRIVATE_KEY_PREFIX):
        return PRIVATE_KEY_PREFIX + secret
    return secret


def check_receiver_test(body: ReceiverTestBody, allowed_networks: Sequence[Network]) -> None:
    """Check everything that the decoder cannot check. Raises VALIDATION_ERROR with every invalid field."""
    errors = receiver_test_errors(msgspec.structs.asdict(body), allowed_networks)
    if errors:
        raise invalid_fields(errors)


def receiver_test_errors(fields: Mapping[str, Any], allowed_networks: Sequence[Network]) -> list[FieldProblem]:
    """Return the validation errors that the schema cannot express. Skips absent fields. No message repeats the secret."""
    errors = []
    for name in ("url", "probe_url"):
        found = url_error(fields[name], allowed_networks) if fields.get(name) is not None else None
        errors += [] if found is None else [(name, found)]
    signing: str = fields.get("signing", "v1")
    custom: Any = fields.get("custom_signing")
    errors += dialect_errors(signing, custom)
    if isinstance(custom, CustomSigning):
        custom = msgspec.structs.asdict(custom)
    if custom is not None:
        errors += custom_signing_errors(custom)
    if "secret" in fields:
        is_decoded = has_decoded_key(signing, (custom or {}).get("key_encoding", "text"))
        errors += _secret_errors(signing, fields["secret"], is_decoded=is_decoded)
    return errors


def _secret_errors(signing: str, secret: str, *, is_decoded: bool) -> list[FieldProblem]:
    try:
        if is_decoded:
            decode_secret(normalized_secret("v1", secret))
        elif signing == "v1a":
            decode_private_key(normalized_secret(signing, secret))
    except ValueError:
        form = "whsec_ and the base64 of 24 to 64 bytes" if is_decoded else "whsk_ and the base64 of an Ed25519 key"
        return [("secret", f"must be {form}, because signing is {signing}")]
    return []
