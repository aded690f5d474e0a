"""A sealed secret opens only if it is intact, with its own context and key. No error message or repr shows it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.infrastructure.secrets_at_rest import SealedSecretError, SecretBox

KEY = bytes(range(32))
NONCE = bytes(12)
SECRET = "whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHM="
BOX = SecretBox(KEY)

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts, texts, st.binary(min_size=12, max_size=12))
def test_a_sealed_secret_opens_with_its_context(plaintext: str, context: str, nonce: bytes) -> None:
    sealed = BOX.seal(plaintext, context, nonce)
    assert SecretBox(KEY).open(sealed, context) == plaintext
    assert sealed[0] == 1
    assert sealed[1:13] == nonce


def test_a_sealed_secret_does_not_open_in_another_row() -> None:
    sealed = BOX.seal(SECRET, "merchant-1/endpoint-1", NONCE)
    for context in ("merchant-2/endpoint-1", "merchant-1/endpoint-2", "", "merchant-1/endpoint-1 "):
        with pytest.raises(SealedSecretError, match="cannot be opened"):
            BOX.open(sealed, context)


def test_a_sealed_secret_does_not_open_with_another_key() -> None:
    sealed = BOX.seal(SECRET, "m/e", NONCE)
    with pytest.raises(SealedSecretError, match="SANDBOX_SECRET_KEY"):
        SecretBox(bytes(32)).open(sealed, "m/e")


@given(st.data())
def test_a_changed_or_truncated_secret_does_not_open(data: st.DataObject) -> None:
    sealed = BOX.seal(SECRET, "m/e", NONCE)
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + bytes([sealed[at] ^ data.draw(st.integers(1, 255))]) + sealed[at + 1 :]
    with pytest.raises(SealedSecretError):
        BOX.open(changed, "m/e")
    with pytest.raises(SealedSecretError):
        BOX.open(sealed[:at], "m/e")


@given(st.binary(max_size=80))
def test_garbage_raises_sealed_secret_error(sealed: bytes) -> None:
    with pytest.raises(SealedSecretError):
        BOX.open(sealed, "m/e")


def test_key_size_nonce_size_and_unicode_are_checked() -> None:
    for size in (0, 16, 31, 33):
        with pytest.raises(SealedSecretError, match="32 bytes"):
            SecretBox(bytes(size))
    for size in (0, 11, 13):
        with pytest.raises(SealedSecretError, match="12 bytes"):
            BOX.seal(SECRET, "m/e", bytes(size))
    with pytest.raises(SealedSecretError, match="secret is not valid Unicode"):
        BOX.seal("\ud800", "m/e", NONCE)
    with pytest.raises(SealedSecretError, match="context is not valid Unicode"):
        BOX.open(BOX.seal(SECRET, "m/e", NONCE), "\ud800")


def test_no_repr_or_error_shows_the_key_or_the_secret() -> None:
    assert repr(BOX) == str(BOX) == "SecretBox(key=<hidden>)"
    assert not hasattr(BOX, "__dict__")
    assert SECRET.encode() not in BOX.seal(SECRET, "m/e", NONCE)
    with pytest.raises(SealedSecretError) as caught:
        BOX.seal(SECRET + "\ud800", "m/e", NONCE)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
