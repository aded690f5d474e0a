"""The lease that a listener gets with each delivery and hands back with the result.

It holds everything that recording the attempt needs, sealed, so that any API process can record it, before and after a restart,
and a listener can report only what it was given.
"""

import base64
import os
from datetime import datetime
from typing import Final

import msgspec

from sandbox.infrastructure.secrets_at_rest import NONCE_SIZE, SealedSecretError, SecretBox
from sandbox.webhooks.delivery.outbox import ClaimedDelivery, Exchange


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """A claimed delivery without its body and secrets, and how its attempt is signed. `at` is in the merchant's time."""

    claimed: ClaimedDelivery
    at: datetime
    signed: Exchange


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Lease).decode


def seal_lease(box: SecretBox, merchant_id: str, claimed: ClaimedDelivery, at: datetime, signed: Exchange) -> str:
    """Return a delivery's lease as text."""
    endpoint = msgspec.structs.replace(claimed.endpoint, sealed_secrets=(), custom_signing=None, wire=None, faults=())
    lease = Lease(msgspec.structs.replace(claimed, endpoint=endpoint, body=b""), at, signed)
    text = base64.b64encode(_encode(lease)).decode()
    sealed = box.seal(text, _context(merchant_id, claimed.endpoint_id), os.urandom(NONCE_SIZE))
    return base64.urlsafe_b64encode(sealed).decode()


def open_lease(box: SecretBox, merchant_id: str, endpoint_id: str, text: str) -> Lease | None:
    """Return the lease that `seal_lease` wrote for this endpoint; None if the text is no such lease, or of another release."""
    try:
        opened = box.open(base64.urlsafe_b64decode(text), _context(merchant_id, endpoint_id))
        return _decode(base64.b64decode(opened))
    except (SealedSecretError, ValueError, msgspec.DecodeError):
        return None


def _context(merchant_id: str, endpoint_id: str) -> str:
    return f"{merchant_id}/{endpoint_id}/lease"
