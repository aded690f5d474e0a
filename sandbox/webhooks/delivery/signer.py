"""Open an endpoint's sealed secrets and sign its webhooks with them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from sandbox.infrastructure.secrets_at_rest import NONCE_SIZE, SecretBox
from sandbox.webhooks.delivery.outbox import ClaimedEndpoint
from sandbox.webhooks.signing.dialects import (
    CustomSigning,
    public_key_of,
    signature_header,
    signature_headers,
    unrelated_secret,
)

_MAX_CACHED_SIGNERS: Final = 10_000
decode_custom: Final = msgspec.json.Decoder(CustomSigning).decode


@dataclass(frozen=True, slots=True)
class Signer:
    """How an endpoint's webhooks are signed. `secrets` are in plain text: the current one, then previous valid ones."""

    signing: str
    secrets: tuple[str, ...] = field(repr=False)
    custom: CustomSigning | None
    header: str
    """The header that carries the signature."""

    def sign(self, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """Return the signature headers. `timestamp` is in Unix seconds."""
        return signature_headers(self.signing, self.secrets, event_id, timestamp, body, self.custom)

    def with_wrong_secrets(self) -> "Signer":
        """Return a signer whose signatures a receiver must refuse."""
        return replace(self, secrets=tuple(map(unrelated_secret, self.secrets)))


def secret_context(merchant_id: str, endpoint_id: str) -> str:
    """Return the context that an endpoint's secrets are sealed with."""
    return f"{merchant_id}/{endpoint_id}"


def secret_columns(box: SecretBox, merchant_id: str, endpoint_id: str, secret: str) -> dict[Any, Any]:
    """Return the columns of an endpoint that hold its secret: sealed, and the public key if it has one."""
    sealed = box.seal(secret, secret_context(merchant_id, endpoint_id), os.urandom(NONCE_SIZE))
    return {"secret": sealed, "public_key": public_key_of(secret)}


def open_signer(
    box: SecretBox, context: str, signing: str, sealed_secrets: Sequence[bytes], custom_signing: str | None
) -> Signer:
    """Open an endpoint's secrets. `context` is that of `secret_context`, `custom_signing` is JSON.

    Raises SealedSecretError if they are sealed under another SANDBOX_SECRET_KEY, ValueError if they do not fit the dialect.
    """
    custom = None if custom_signing is None else decode_custom(custom_signing)
    secrets = tuple([box.open(sealed, context) for sealed in sealed_secrets])
    signature_headers(signing, secrets, "", 0, b"", custom)  # raises now what `sign` would raise later
    return Signer(signing, secrets, custom, signature_header(signing, custom))


class SignerCache:
    """Keeps signers: opening a secret costs more than signing with it."""

    def __init__(self, box: SecretBox) -> None:
        self._box = box
        self._signers: dict[tuple[tuple[bytes, ...], str, str | None], Signer] = {}

    def find(self, merchant_id: str, endpoint_id: str, endpoint: ClaimedEndpoint) -> Signer:
        """Return the endpoint's signer. Raises as `open_signer` does."""
        # Each sealed secret is unique, because it contains a nonce.
        key = endpoint.sealed_secrets, endpoint.signing, endpoint.custom_signing
        signer = self._signers.get(key)
        if signer is None:
            context = secret_context(merchant_id, endpoint_id)
            signer = open_signer(self._box, context, endpoint.signing, endpoint.sealed_secrets, endpoint.custom_signing)
            if len(self._signers) >= _MAX_CACHED_SIGNERS:
                self._signers.clear()
            self._signers[key] = signer
        return signer
