"""Rotate the secret of a webhook endpoint, and show how its webhooks are signed."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from piccolo.query.methods.select import First

from sandbox.domain.clock import render
from sandbox.domain.errors import Problem
from sandbox.domain.fields import Uuid, about
from sandbox.domain.redaction import Secret
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.http.operation import post
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.secrets_at_rest import SealedSecretError, SecretBox
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.sealed_results import run_sealed
from sandbox.webhooks.delivery.outbox import decode_previous_secrets, valid_secrets
from sandbox.webhooks.delivery.signer import open_signer, secret_columns, secret_context
from sandbox.webhooks.endpoints.rows import change_row, endpoint_not_found
from sandbox.webhooks.endpoints.tables import WebhookEndpoints
from sandbox.webhooks.signing.dialects import SigningExample, explain, secret_for

MAX_PREVIOUS_SECRETS: Final = 4
"""Maximum number of previous secrets that still sign. The oldest is dropped first."""

_EXAMPLE_ID: Final = "01920f3a-7c00-7000-8000-000000000001"


class RotateSecretBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /webhook-endpoints/{endpoint_id}/rotate-secret`."""

    grace_seconds: Annotated[
        int, msgspec.Meta(ge=0, le=604_800, description="How long the previous secret signs too, in the merchant's time.")
    ] = 86_400


class RotatedSecret(msgspec.Struct):
    """The new secret of an endpoint, which is shown only here. With `v1a` it is null, and `public_key` is there instead."""

    secret: Secret | None
    public_key: str | None
    previous_expires_at: str
    """The merchant's time until which the previous secret signs too."""


class SigningExampleBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /webhook-endpoints/{endpoint_id}/signing-example`."""

    body: Annotated[
        Annotated[str, msgspec.Meta(max_length=100_000)] | dict[str, Any] | None,
        about("The raw body, signed as it is. An object is written as compact JSON first. The default is a sample."),
    ] = None
    timestamp: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)] | None,
        about("In Unix seconds. The default is the present time of the clock that `signing_time` names."),
    ] = None
    id: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=64,
            pattern=r"^[0-9A-Za-z_-]*\Z",
            description="The webhook-id.",
            extra={"must": "an id of 1 to 64 letters, digits, hyphens and underscores"},
        ),
    ] = _EXAMPLE_ID


class SecretService:
    """Rotates secrets and explains signatures."""

    def __init__(self, work: UnitOfWorkRunner, box: SecretBox) -> None:
        self._work = work
        self._box = box

    @post(
        "/api/v1/webhook-endpoints/{endpoint_id}/rotate-secret",
        "Replace the secret of a webhook endpoint",
        {200: RotatedSecret},
        RotateSecretBody,
        example={"grace_seconds": 86400},
        description="Until `previous_expires_at`, in the merchant's time, webhooks are signed with the previous secret too, so "
        "that receivers can change over. `github` and `custom` send one signature only, so the new secret alone signs there. "
        "After several rotations, at most 4 previous secrets still sign. With `grace_seconds: 0`, none does.",
        psp="endpoints rotate-secret",
    )
    async def rotate_webhook_secret(self, context: RequestContext, endpoint_id: Uuid, body: RotateSecretBody) -> CommandResult:
        """Give an endpoint a new secret. Responds with 200 and the secret; so does a replay.

        The previous secret signs too until the grace period ends. Secrets of earlier rotations keep their own expiry, unless
        the grace period is zero: then only the new secret signs. Returns NOT_FOUND, stored under the key, for an unknown id.
        """

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            record = await _select(context.merchant_id, endpoint_id)
            if record is None:
                raise endpoint_not_found(endpoint_id)
            expires_at = unit.now + timedelta(seconds=body.grace_seconds)
            previous: list[tuple[bytes, datetime]] = []
            if body.grace_seconds > 0:
                older = record["previous_secrets"]
                kept = () if older is None else decode_previous_secrets(older)
                previous = [(record["secret"], expires_at), *(entry for entry in kept if entry[1] > unit.now)]
            secret = secret_for(record["signing"], unit.ids.random_bytes(32))
            values = secret_columns(self._box, context.merchant_id, endpoint_id, secret)
            public_key = values["public_key"]
            values["previous_secrets"] = msgspec.json.encode(previous[:MAX_PREVIOUS_SECRETS]).decode() if previous else None
            await change_row(context.merchant_id, endpoint_id, values, unit.now)
            rotated = RotatedSecret(secret if public_key is None else None, public_key, render(expires_at))
            return CommandResult(200, msgspec.json.encode(rotated))

        return await run_sealed(self._work, self._box, context, action)

    @post(
        "/api/v1/webhook-endpoints/{endpoint_id}/signing-example",
        "Show step by step how a webhook is signed",
        {200: SigningExample},
        SigningExampleBody,
        errors=("INVALID_STATE",),
        example={"body": '{"type":"payout.succeeded"}', "timestamp": 1700000000},
        description="Compare each step with your own code to find where the two begin to differ. Of a key, only the start of "
        "its SHA-256 is shown. Nothing is sent.",
        psp="endpoints signing-example --body {body}",
    )
    async def explain_webhook_signature(
        self, context: RequestContext, endpoint_id: Uuid, body: SigningExampleBody
    ) -> CommandResult:
        """Sign a body as the endpoint's webhooks are signed. Responds with 200 and a SigningExample.

        Returns NOT_FOUND for an unknown id, and INVALID_STATE if the secret is sealed under another SANDBOX_SECRET_KEY. Both
        are stored under the key.
        """

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            record = await _select(context.merchant_id, endpoint_id)
            if record is None:
                raise endpoint_not_found(endpoint_id)
            explanation = self._explain(context.merchant_id, endpoint_id, record, unit.now, body)
            return CommandResult(200, msgspec.json.encode(explanation))

        return await self._work.run(context, action)

    def _explain(
        self, merchant_id: str, endpoint_id: str, record: Mapping[str, Any], now: datetime, body: SigningExampleBody
    ) -> SigningExample:
        sealed = valid_secrets(record["secret"], record["previous_secrets"], now)
        try:
            signer = open_signer(
                self._box, secret_context(merchant_id, endpoint_id), record["signing"], sealed, record["custom_signing"]
            )
        except (SealedSecretError, ValueError):
            raise Problem(
                "INVALID_STATE", "The endpoint's secret cannot be decrypted with this SANDBOX_SECRET_KEY; rotate it."
            ) from None
        timestamp = body.timestamp
        if timestamp is None:
            timestamp = int((now if record["signing_time"] == "merchant" else datetime.now(UTC)).timestamp())
        return explain(signer.signing, signer.secrets, body.id, timestamp, _raw_body(body, now), signer.custom)


def _raw_body(body: SigningExampleBody, now: datetime) -> bytes:
    if isinstance(body.body, str):
        return body.body.encode()
    sample = {
        "id": body.id,
        "type": "payout.succeeded",
        "timestamp": render(now),
        "livemode": False,
        "previous_status": "PROCESSING",
        "data": {"amount": "1500.00", "currency": "PKR", "status": "SUCCESS"},
    }
    return msgspec.json.encode(sample if body.body is None else body.body)


def _select(merchant_id: str, endpoint_id: str) -> First:
    e = WebhookEndpoints
    columns = (e.secret, e.previous_secrets, e.signing, e.signing_time, e.custom_signing)
    return e.select(*columns).where(e.merchant_id == merchant_id, e.id == endpoint_id).first()
