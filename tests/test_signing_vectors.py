"""The sandbox signs as the published test vectors say, and a separate implementation accepts and refuses what they say."""

import base64
import hashlib
import hmac
import re
from pathlib import Path
from typing import Any

import msgspec
import nacl.exceptions
import nacl.signing
import pytest

from sandbox.webhooks.signing.dialects import CustomSigning, custom_signing_errors, explain, signature_headers
from sandbox.webhooks.signing.standard_webhooks import decode_private_key, public_key

FOLDER = Path(__file__).parent.parent / "openapi" / "webhooks"
DIALECTS = ("v1", "v1a", "stripe", "github", "custom")


def load(name: str) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = msgspec.json.decode((FOLDER / f"{name}.json").read_bytes())
    return vectors


def named(vector: dict[str, Any]) -> str:
    return f"{vector['signing']}: {vector['name']}"


VALID = [vector for dialect in DIALECTS for vector in load(dialect)]
INVALID = load("invalid")


def accepts(vector: dict[str, Any], now: int) -> bool:
    """Verify a vector as its receiver would. Uses none of the sandbox's code."""
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    body, signing = vector["body"].encode(), vector["signing"]
    texts = [secret.encode() for secret in vector.get("secrets", ())]
    stamp, given, algorithm = "", [], "sha256"
    if signing in ("v1", "v1a"):
        stamp = headers.get("webhook-timestamp", "")
        if not headers.get("webhook-id"):
            return False
        content = f"{headers['webhook-id']}.{stamp}.".encode() + body
        start = f"{signing},"
        signatures = headers.get("webhook-signature", "").split(" ")
        given = [base64.b64decode(one[len(start) :]) for one in signatures if one.startswith(start)]
        keys = [base64.b64decode(text[6:]) for text in texts if signing == "v1"]
    elif signing == "stripe":
        items = [tuple(item.split("=", 1)) for item in headers.get("stripe-signature", "").split(",") if "=" in item]
        stamp = dict(items).get("t", "")
        given = [bytes.fromhex(value) for name, value in items if name == "v1"]
        content, keys = f"{stamp}.".encode() + body, texts
    elif signing == "github":
        stamp = str(now)
        kind, _, text = headers.get("x-hub-signature-256", "").partition("=")
        given = [bytes.fromhex(text)] if kind == "sha256" else []
        content, keys = body, texts
    else:
        settings = vector["custom_signing"]
        algorithm = settings["algorithm"]
        # The sandbox's "{timestamp}" in a prefix becomes a group of this pattern.
        pattern = re.escape(settings.get("prefix", "")).replace(r"\{timestamp\}", r"(?P<t>\d+)") + r"(?P<signature>\S+)"
        found = re.fullmatch(pattern, headers.get(settings["header"].lower(), ""))
        if found is None:
            return False
        stamp = found.groupdict().get("t") or headers.get(
            settings.get("timestamp_header", "webhook-timestamp").lower(), str(now)
        )
        template = settings["template"].replace("{timestamp}", stamp).replace("{id}", headers["webhook-id"])
        content = template.encode().replace(b"{body}", body)
        decode = bytes.fromhex if settings["encoding"] == "hex" else base64.b64decode
        given, keys = [decode(found["signature"])], texts
    if not stamp.isdigit() or abs(now - int(stamp)) > 300:
        return False
    if signing == "v1a":
        return any(_is_signed(public, content, one) for public in vector["public_keys"] for one in given)
    return any(hmac.new(key, content, getattr(hashlib, algorithm)).digest() == one for key in keys for one in given)


def _is_signed(public: str, content: bytes, signature: bytes) -> bool:
    try:
        nacl.signing.VerifyKey(base64.b64decode(public.removeprefix("whpk_"))).verify(content, signature)
    except (nacl.exceptions.BadSignatureError, ValueError):
        return False
    return True


@pytest.mark.parametrize("vector", VALID, ids=named)
def test_the_sandbox_signs_as_the_vector_says(vector: dict[str, Any]) -> None:
    settings = vector.get("custom_signing")
    custom = None if settings is None else msgspec.convert(settings, CustomSigning)
    assert custom_signing_errors(settings or {}) == []
    given = (vector["signing"], vector["secrets"], vector["id"], vector["timestamp"], vector["body"].encode(), custom)
    assert signature_headers(*given) == vector["headers"]
    assert explain(*given).signed_content == vector["signed_content"]
    if vector["signing"] == "v1a":
        assert [public_key(decode_private_key(secret)) for secret in vector["secrets"]] == vector["public_keys"]


@pytest.mark.parametrize("vector", VALID, ids=named)
def test_a_separate_implementation_accepts_the_vector_with_the_current_secret_and_without_others(
    vector: dict[str, Any],
) -> None:
    known = "public_keys" if vector["signing"] == "v1a" else "secrets"
    assert accepts(vector | {known: vector[known][:1]}, vector["timestamp"])
    with_previous = vector | {known: vector[known][1:]}
    assert accepts(with_previous, vector["timestamp"]) is (
        len(vector[known]) > 1 and vector["signing"] in ("v1", "v1a", "stripe")
    )


@pytest.mark.parametrize("vector", INVALID, ids=named)
def test_a_separate_implementation_refuses_the_invalid_vector(vector: dict[str, Any]) -> None:
    assert not accepts(vector, vector["now"])


def test_there_are_vectors_of_each_dialect_and_rotation() -> None:
    assert {vector["signing"] for vector in VALID} == {vector["signing"] for vector in INVALID} == set(DIALECTS)
    assert {vector["signing"] for vector in VALID if len(vector["secrets"]) > 1} == set(DIALECTS)
    assert len({named(vector) for vector in [*VALID, *INVALID]}) == len(VALID) + len(INVALID)
