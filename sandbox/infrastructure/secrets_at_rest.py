"""Encrypts secrets that must be read again (webhook and IPN secrets), so that a copy of the database reveals none.

AES-256-GCM with SANDBOX_SECRET_KEY. The nonce is passed in, as all randomness is. Layout of a sealed secret:
one byte of version, 12 of nonce, the ciphertext with its tag.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_SIZE = 32
NONCE_SIZE = 12

_VERSION = b"\x01"
_TAG_SIZE = 16
_LEAST_SIZE = len(_VERSION) + NONCE_SIZE + _TAG_SIZE


class SealedSecretError(ValueError):
    """A secret that cannot be sealed or opened; the message is one sentence and never holds a secret."""


class SecretBox:
    """Seals and opens secrets with one key.

    A `context` ("merchant-id/endpoint-id") is bound to each: a row's ciphertext that is copied into another row
    does not open there, so write access to the table does not lend one merchant's secret to another.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        """Take the 32 bytes of the key. SealedSecretError for any other size."""
        if len(key) != KEY_SIZE:
            raise SealedSecretError(f"The key that encrypts secrets must be exactly {KEY_SIZE} bytes.")
        # The key itself is not kept: nothing that prints attributes can then show it.
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return "SecretBox(key=<hidden>)"

    def seal(self, plaintext: str, context: str, nonce: bytes) -> bytes:
        """Encrypt a secret for its context. `nonce`: 12 random bytes, never used twice with a key.

        SealedSecretError when the nonce has another size or a text is not valid Unicode.
        """
        if len(nonce) != NONCE_SIZE:
            raise SealedSecretError(f"The nonce must be exactly {NONCE_SIZE} bytes.")
        return _VERSION + nonce + self._cipher.encrypt(nonce, _encoded(plaintext, "secret"), _bound(context))

    def open(self, sealed: bytes, context: str) -> str:
        """Decrypt what `seal` made for the same context.

        SealedSecretError when it is cut off, of an unknown version, changed, of another context or of another key;
        which of the last three cannot be told.
        """
        if len(sealed) < _LEAST_SIZE:
            raise SealedSecretError("The sealed secret is too short to be one.")
        if sealed[:1] != _VERSION:
            raise SealedSecretError(f"The sealed secret has version {sealed[0]}, which this release cannot open.")
        nonce, ciphertext = sealed[1 : 1 + NONCE_SIZE], sealed[1 + NONCE_SIZE :]
        try:
            return self._cipher.decrypt(nonce, ciphertext, _bound(context)).decode()
        except InvalidTag:
            raise SealedSecretError(
                "The sealed secret does not open: it was changed, belongs elsewhere, or SANDBOX_SECRET_KEY differs."
            ) from None


def _bound(context: str) -> bytes:
    # The version is bound too: a later format must not be passed off as this one.
    return _VERSION + _encoded(context, "context")


def _encoded(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Without its cause: a UnicodeEncodeError carries the whole text, which may be the secret.
        raise SealedSecretError(f"The {what} is not valid Unicode text.") from None
