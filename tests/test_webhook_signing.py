"""Signatures match those of the Standard Webhooks library and the Svix server. Forged signatures are refused."""

import base64
import hashlib
import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from sandbox.webhooks.signing import standard_webhooks as signing

SECRET = bytes(range(32))
OTHER = bytes(range(1, 33))
NOW = 1_700_000_000
BODY = b'{"type":"payout.succeeded","data":{"title":"\xd8\xb9\xd9\x84\xdb\x8c"}}'

secrets = st.binary(min_size=24, max_size=64)
ids = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=40)
bodies = st.text(st.characters(exclude_categories=["Cs"]), max_size=300).map(str.encode)


# ---- comparison with the public library


@given(secrets, ids, bodies)
def test_the_public_library_accepts_what_we_sign(secret: bytes, message_id: str, body: bytes) -> None:
    headers = signing.headers(message_id, int(time.time()), body, [secret])
    Webhook(secret).verify(body, headers, json_parse=False)


@given(secrets, ids, bodies)
def test_we_accept_what_the_public_library_signs(secret: bytes, message_id: str, body: bytes) -> None:
    signature = Webhook(secret).sign(message_id, datetime.fromtimestamp(NOW, UTC), body.decode())
    assert signature == signing.headers(message_id, NOW, body, [secret])["webhook-signature"]
    headers = {"webhook-id": message_id, "webhook-timestamp": str(NOW), "webhook-signature": signature}
    assert signing.verify([secret], headers, body, NOW) is None


# ---- refused signatures


@given(st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    headers = signing.headers("evt-1", NOW, BODY, [SECRET])
    name = data.draw(st.sampled_from(["body", "secret", *headers]))
    raw = {"body": BODY, "secret": SECRET}.get(name) or headers[name].encode()
    index = data.draw(st.integers(0, len(raw) - 1))
    changed = raw[:index] + bytes([raw[index] ^ data.draw(st.integers(1, 255))]) + raw[index + 1 :]
    body, secret = BODY, SECRET
    if name == "body":
        body = changed
    elif name == "secret":
        secret = changed
    else:
        headers[name] = changed.decode("utf-8", "surrogateescape")
    assert isinstance(signing.verify([secret], headers, body, NOW), str)


def _headers_with(**changes: str | None) -> dict[str, str]:
    headers = signing.headers("evt-1", NOW, BODY, [SECRET])
    for name, value in changes.items():
        if value is None:
            del headers[f"webhook-{name}"]
        else:
            headers[f"webhook-{name}"] = value
    return headers


GOOD = signing.headers("evt-1", NOW, BODY, [SECRET])["webhook-signature"]

MALFORMED = [
    ({"id": None}, "webhook-id header is missing"),
    ({"id": ""}, "webhook-id header is missing"),
    ({"id": "evt.1"}, "full stop"),
    ({"id": "evt-\u0661"}, "No signature matches"),
    ({"id": "\udcff\ud800"}, "No signature matches"),
    ({"timestamp": None}, "webhook-timestamp header is missing"),
    ({"timestamp": ""}, "webhook-timestamp header is missing"),
    ({"timestamp": "soon"}, "not a Unix time"),
    ({"timestamp": f"{NOW}.0"}, "not a Unix time"),
    ({"timestamp": f"+{NOW}"}, "not a Unix time"),
    ({"timestamp": f"-{NOW}"}, "not a Unix time"),
    ({"timestamp": f" {NOW}"}, "not a Unix time"),
    ({"timestamp": "1_700_000_000"}, "not a Unix time"),
    ({"timestamp": "\u0661\u0667"}, "not a Unix time"),
    ({"timestamp": "\u00b2"}, "not a Unix time"),
    ({"timestamp": "9" * 5000}, "not a Unix time"),
    ({"timestamp": "999999999999"}, "in the future"),
    ({"timestamp": "0"}, "in the past"),
    ({"timestamp": f"0{NOW}"}, "No signature matches"),
    ({"signature": None}, "webhook-signature header is missing"),
    ({"signature": ""}, "webhook-signature header is missing"),
    ({"signature": " "}, "no v1 signature"),
    ({"signature": "v1"}, "no v1 signature"),
    ({"signature": GOOD[3:]}, "no v1 signature"),
    ({"signature": "v2" + GOOD[2:]}, "no v1 signature"),
    ({"signature": "v1a" + GOOD[2:]}, "no v1 signature"),
    ({"signature": "v1,"}, "No signature matches"),
    ({"signature": "v1,,,"}, "No signature matches"),
    ({"signature": "v1,!!!!"}, "No signature matches"),
    ({"signature": "v1,\u00e9\u00e9"}, "No signature matches"),
    ({"signature": "v1,\udcff\ud800"}, "No signature matches"),
    ({"signature": GOOD.rstrip("=")}, "No signature matches"),
    ({"signature": GOOD + "="}, "No signature matches"),
    ({"signature": "v1," + "A" * 100_000}, "No signature matches"),
]


@pytest.mark.parametrize(("changes", "reason"), MALFORMED)
def test_malformed_headers_are_refused_with_a_reason(changes: dict[str, str | None], reason: str) -> None:
    assert reason in (signing.verify([SECRET], _headers_with(**changes), BODY, NOW) or "accepted")


@given(st.dictionaries(st.sampled_from(["webhook-id", "Webhook-Timestamp", "WEBHOOK-SIGNATURE", "x"]), st.text()))
def test_verification_never_raises(headers: dict[str, str]) -> None:
    assert isinstance(signing.verify([SECRET], headers, BODY, NOW), str)
    assert isinstance(signing.verify_v1a([ED_PUBLIC], headers, BODY, NOW), str)


@pytest.mark.parametrize(("offset", "accepted"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_a_timestamp_can_differ_by_up_to_five_minutes(offset: int, accepted: bool) -> None:
    headers = signing.headers("evt-1", NOW + offset, BODY, [SECRET])
    assert (signing.verify([SECRET], headers, BODY, NOW) is None) is accepted


def test_without_a_secret_signing_raises_and_verification_fails() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        signing.headers("evt-1", NOW, BODY, [])
    assert signing.verify([], _headers_with(), BODY, NOW) is not None


# ---- accepted signatures


def test_header_names_are_case_insensitive() -> None:
    headers = {name.title(): value for name, value in _headers_with().items()}
    assert signing.verify([SECRET], headers, BODY, NOW) is None
    mixed = _headers_with()
    mixed["WEBHOOK-ID"] = mixed.pop("webhook-id")
    assert signing.verify([SECRET], mixed, BODY, NOW) is None


def test_one_match_among_several_signatures_and_secrets_suffices_and_unknown_versions_are_skipped() -> None:
    wrong = signing.headers("evt-1", NOW, BODY, [OTHER])["webhook-signature"]
    headers = _headers_with(signature=f"v9,abc v1a,zzz  {wrong} {GOOD}")
    assert signing.verify([b"q" * 32, SECRET], headers, BODY, NOW) is None


# ---- secrets


def test_a_new_secret_is_whsec_and_base64_and_can_be_decoded() -> None:
    secret = signing.new_secret(SECRET)
    assert secret == "whsec_" + base64.b64encode(SECRET).decode()
    assert signing.decode_secret(secret) == SECRET == signing.decode_secret(secret.rstrip("="))
    with pytest.raises(ValueError, match="32 random bytes"):
        signing.new_secret(b"short")


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsk_" + base64.b64encode(SECRET).decode(),
        base64.b64encode(SECRET).decode(),
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "whsec_ AAAA" + "A" * 40,
        "whsec_A",
        "whsec_" + "\u00e9" * 44,
        "whsec_" + "\ud800" * 44,
    ],
)
def test_a_malformed_secret_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(ValueError, match=r"A webhook secret .*\.\Z") as caught:
        signing.decode_secret(secret)
    assert len(secret) < 12 or secret[8:] not in str(caught.value)


@given(st.text())
def test_decoding_raises_only_value_error(text: str) -> None:
    for decode, prefix in (
        (signing.decode_secret, "whsec_"),
        (signing.decode_private_key, "whsk_"),
    ):
        with pytest.raises(ValueError, match=prefix):
            decode("-" + text)
        with suppress(ValueError):  # any other exception fails the test
            assert decode(prefix + text)


# ---- Ed25519: the test vector comes from the Svix server, the reference implementation of v1a

ED_SECRET = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
ED_PUBLIC_TEXT = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
ED_SEED = signing.decode_private_key(ED_SECRET)
ED_PUBLIC = base64.b64decode(ED_PUBLIC_TEXT.removeprefix("whpk_"))


def test_v1a_gives_the_reference_signature() -> None:
    headers = signing.headers_v1a("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [ED_SEED])
    assert headers["webhook-signature"] == (
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
    )


def test_ed25519_keys_have_the_format_of_the_reference_implementation() -> None:
    assert signing.public_key(ED_SEED) == ED_PUBLIC_TEXT
    assert signing.new_private_key(ED_SEED) == ED_SECRET
    assert signing.decode_private_key("whsk_" + base64.b64encode(ED_SEED).decode()) == ED_SEED
    with pytest.raises(ValueError, match="32 random bytes"):
        signing.new_private_key(b"")
    with pytest.raises(ValueError, match="do not match"):
        signing.decode_private_key("whsk_" + base64.b64encode(ED_SEED + bytes(32)).decode())
    with pytest.raises(ValueError, match="32 or 64 bytes"):
        signing.decode_private_key("whsk_" + base64.b64encode(bytes(33)).decode())


def test_v1a_verifies_with_either_key_of_a_rotation() -> None:
    other = hashlib.sha256(b"another seed").digest()
    headers = signing.headers_v1a("evt-1", NOW, BODY, [other, ED_SEED])
    headers["webhook-signature"] = "v1,zz " + headers["webhook-signature"]
    assert signing.verify_v1a([ED_PUBLIC], headers, BODY, NOW) is None
    assert signing.verify_v1a([bytes(31) + b"\x01", ED_PUBLIC], headers, BODY, NOW) is None
    assert signing.verify_v1a([], headers, BODY, NOW) is not None
    assert "no v1a" in (signing.verify_v1a([ED_PUBLIC], _headers_with(), BODY, NOW) or "")
    assert "seconds in the past" in (signing.verify_v1a([ED_PUBLIC], headers, BODY, NOW + 301) or "")


@given(st.data())
def test_any_changed_byte_of_a_v1a_webhook_is_refused(data: st.DataObject) -> None:
    headers = signing.headers_v1a("evt-1", NOW, BODY, [ED_SEED])
    name = data.draw(st.sampled_from(["body", *headers]))
    raw = BODY if name == "body" else headers[name].encode()
    index = data.draw(st.integers(0, len(raw) - 1))
    changed = raw[:index] + bytes([raw[index] ^ data.draw(st.integers(1, 255))]) + raw[index + 1 :]
    body = changed if name == "body" else BODY
    if name != "body":
        headers[name] = changed.decode("utf-8", "surrogateescape")
    assert isinstance(signing.verify_v1a([ED_PUBLIC], headers, body, NOW), str)
