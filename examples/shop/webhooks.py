"""Verifies webhooks that are signed according to Standard Webhooks."""

import base64
import hmac
import time
from collections.abc import Mapping
from typing import Final

TOLERANCE: Final = 300
"""The maximum difference in seconds between a webhook's timestamp and our clock."""


def is_authentic(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether a webhook with this raw body was signed with our `whsec_` secret, at most five minutes ago."""
    message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    is_number = stamp.isascii() and stamp.isdecimal() and len(stamp) <= 12  # a longer one would overflow
    if not message_id or not is_number or abs(time.time() - int(stamp)) > TOLERANCE:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    right = base64.b64encode(hmac.digest(key, f"{message_id}.{stamp}.".encode() + body, "sha256"))
    # While a secret is replaced, a webhook has a signature with the old one and a signature with the new one.
    signatures = headers.get("webhook-signature", "").encode("utf-8", "replace").split()
    return any(hmac.compare_digest(b"v1," + right, signature) for signature in signatures)
