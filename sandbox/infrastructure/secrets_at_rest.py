"""Encrypt webhook and IPN secrets, which must be readable again, so that a copy of the database reveals none.

AES-256-GCM with SANDBOX_SECRET_KEY. The nonce is passed in. Layout of a sealed secret: one byte for the version, 12 for the
nonce, then the ciphertext with its tag.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_SIZE = 32
NONCE_SIZE = 12

_VERSION = b"\x01"
_TAG_SIZE = 16
_MIN_SIZE = len(_VERSION) + NONCE_SIZE + _TAG_SIZE


class SealedSecretError(ValueError):
    """A secret cannot be sealed or opened. The message is one sentence and never contains a secret."""


class SecretBox:
    """Seals and opens secrets with one key.

    Each secret is bound to a `context` ("merchant-id/endpoint-id"). A ciphertext copied to another row does not open there, so
    write access to the table is not enough to use one merchant's secret for another.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        """Create a box with a key of 32 bytes. Raises SealedSecretError for any other size."""
        if len(key) != KEY_SIZE:
            raise SealedSecretError(f"The key that encrypts secrets must be exactly {KEY_SIZE} bytes.")
        # Do not keep the key: code that prints attributes could show it.
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return "SecretBox(key=<hidden>)"

    def seal(self, plaintext: str, context: str, nonce: bytes) -> bytes:
        """Encrypt a secret for its context. `nonce` is 12 random bytes, never used twice with the same key.

        Raises SealedSecretError if the nonce has another size or a text is not valid Unicode.
        """
        if len(nonce) != NONCE_SIZE:
            raise SealedSecretError(f"The nonce must be exactly {NONCE_SIZE} bytes.")
        return _VERSION + nonce + self._cipher.encrypt(nonce, _encoded(plaintext, "secret"), _bound(context))

    def open(self, sealed: bytes, context: str) -> str:
        """Decrypt a secret that `seal` encrypted for the same context.

        Raises SealedSecretError if the secret is cut off, has an unknown version, was changed, or was sealed for another
        context or with another key. The last three look the same.
        """
        if len(sealed) < _MIN_SIZE:
            raise SealedSecretError("The sealed secret is too short.")
        if sealed[:1] != _VERSION:
            raise SealedSecretError(f"The sealed secret has version {sealed[0]}, which this release cannot open.")
        nonce, ciphertext = sealed[1 : 1 + NONCE_SIZE], sealed[1 + NONCE_SIZE :]
        try:
            return self._cipher.decrypt(nonce, ciphertext, _bound(context)).decode()
        except InvalidTag:
            raise SealedSecretError(
                "The sealed secret cannot be opened: it was changed, belongs to another row, or SANDBOX_SECRET_KEY has changed."
            ) from None


def _bound(context: str) -> bytes:
    # Bind the version too, so that a secret of a later format cannot pass as one of this format.
    return _VERSION + _encoded(context, "context")


def _encoded(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Drop the cause: a UnicodeEncodeError contains the whole text, which may be the secret.
        raise SealedSecretError(f"The {what} is not valid Unicode text.") from None
