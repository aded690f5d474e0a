"""`/api/v1/webhook-endpoints/{endpoint_id}/rotate-secret` and `…/signing-example`: parse, call the service, render."""

from sandbox.domain.fields import Uuid
from sandbox.domain.signing_dialects import SigningExample
from sandbox.domain.unit import CommandResult
from sandbox.http.operation import post
from sandbox.http.request import Request
from sandbox.webhooks.secrets import RotatedSecret, RotateSecretBody, SecretService, SigningExampleBody


class SecretApi:
    """The operations of webhook secrets."""

    def __init__(self, secrets: SecretService) -> None:
        self._secrets = secrets

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
    async def rotate_webhook_secret(self, request: Request, body: RotateSecretBody, endpoint_id: Uuid) -> CommandResult:
        return await self._secrets.rotate(request.context, endpoint_id, body)

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
    async def explain_webhook_signature(self, request: Request, body: SigningExampleBody, endpoint_id: Uuid) -> CommandResult:
        return await self._secrets.example(request.context, endpoint_id, body)
