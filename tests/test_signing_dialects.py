"""Each dialect's signature is what an independent implementation computes, and settings of custom signatures are validated."""

import base64
import hashlib
import hmac
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.domain.errors import Problem
from sandbox.http.body import decode
from sandbox.webhooks.signing import standard_webhooks as standard
from sandbox.webhooks.signing.dialects import (
    CustomSigning,
    custom_signing_errors,
    explain,
    signature_header,
    signature_headers,
    unrelated_secret,
)

NOW = 1_700_000_000
CURRENT, PREVIOUS = (standard.new_secret(bytes(range(first, first + 32))) for first in (0, 1))
PRIVATE, OLD_PRIVATE = (standard.new_private_key(bytes(range(first, first + 32))) for first in (0, 1))
SLACK = CustomSigning(
    header="X-Slack-Signature",
    algorithm="sha256",
    encoding="hex",
    template="v0:{timestamp}:{body}",
    prefix="v0=",
    timestamp_header="X-Slack-Request-Timestamp",
)
KEYS = {"v1": (CURRENT, PREVIOUS), "v1a": (PRIVATE, OLD_PRIVATE), "stripe": (CURRENT, PREVIOUS), "github": (CURRENT, PREVIOUS)}
DIALECTS = [(signing, secrets, None) for signing, secrets in KEYS.items()] + [("custom", (CURRENT, PREVIOUS), SLACK)]

secrets = st.lists(st.binary(min_size=32, max_size=32).map(standard.new_secret), min_size=1, max_size=3)
bodies = st.one_of(st.binary(max_size=200), st.just(b"{body}{id}{timestamp}"))
ids = st.one_of(st.uuids().map(str), st.just("{timestamp}"))
times = st.integers(0, 4_000_000_000)
literals = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs", "Cc"]), max_size=10)


def by_hand(secret: str, content: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.new(secret.encode(), content, getattr(hashlib, algorithm)).digest()


# ---- signatures


@settings(max_examples=40)
@given(secrets, ids, times, bodies, st.data())
def test_a_custom_signature_is_the_hash_of_the_filled_template(
    keys: list[str], event_id: str, now: int, body: bytes, data: st.DataObject
) -> None:
    values = {"{body}": body, "{id}": event_id.encode(), "{timestamp}": str(now).encode()}
    others = st.lists(st.one_of(literals, st.sampled_from(["{id}", "{timestamp}"])), max_size=3)
    parts = [*data.draw(others), "{body}", *data.draw(others)]
    content = b"".join(values.get(part, part.encode()) for part in parts)
    algorithm = data.draw(st.sampled_from(["sha256", "sha512"]))
    encoding = data.draw(st.sampled_from(["hex", "base64"]))
    custom = CustomSigning(header="X-Sign", algorithm=algorithm, encoding=encoding, template="".join(parts), prefix="sig ")
    assert custom_signing_errors(msgspec.structs.asdict(custom)) == []
    headers = signature_headers("custom", keys, event_id, now, body, custom)
    raw = by_hand(keys[0], content, algorithm)
    expected = {"webhook-id": event_id, "X-Sign": "sig " + (raw.hex() if encoding == "hex" else base64.b64encode(raw).decode())}
    # The receiver must be able to know the timestamp.
    assert headers == expected | ({"webhook-timestamp": str(now)} if "{timestamp}" in parts else {})


def test_a_custom_signature_can_have_a_decoded_key_and_an_rfc_3339_time() -> None:
    custom = CustomSigning(
        header="X-Sign",
        algorithm="sha256",
        encoding="base64",
        template="{timestamp}.{body}",
        prefix="t={timestamp},s=",
        timestamp_header="X-Time",
        timestamp_format="rfc3339",
        key_encoding="base64",
    )
    raw = hmac.digest(base64.b64decode(CURRENT.removeprefix("whsec_")), b"2018-07-12T23:16:58Z.{}", "sha256")
    expected = {
        "webhook-id": "evt-1",
        "X-Time": "2018-07-12T23:16:58Z",
        "X-Sign": f"t=2018-07-12T23:16:58Z,s={base64.b64encode(raw).decode()}",
    }
    explained = explain("custom", [CURRENT], "evt-1", 1531437418, b"{}", custom)
    assert signature_headers("custom", [CURRENT], "evt-1", 1531437418, b"{}", custom) == explained.headers == expected
    steps = " ".join(explained.steps)
    assert "as RFC 3339 in UTC: 2018-07-12T23:16:58Z" in steps
    assert "decode the rest from base64" in steps
    with pytest.raises(ValueError, match="whsec_"):
        signature_headers("custom", ["no base64 !"], "evt-1", 0, b"{}", custom)


@pytest.mark.parametrize(("signing", "keys", "custom"), DIALECTS)
def test_an_unrelated_secret_signs_differently(signing: str, keys: tuple[str, ...], custom: CustomSigning | None) -> None:
    other = unrelated_secret(keys[0])
    assert other == unrelated_secret(keys[0]) != keys[0]
    name = signature_header(signing, custom)
    right, wrong = (signature_headers(signing, [key], "evt-1", NOW, b"{}", custom) for key in (keys[0], other))
    assert right.pop(name) != wrong.pop(name)
    assert right == wrong


@pytest.mark.parametrize(
    ("signing", "keys", "reason"),
    [
        *((signing, [], "at least one secret") for signing in KEYS),
        ("v1", [PRIVATE], "must begin with whsec_"),
        ("v1a", [CURRENT], "must begin with whsk_"),
        ("custom", [CURRENT], "needs its settings"),
        ("v2", [CURRENT], "use one of v1, v1a, stripe, github, safepay, custom"),
    ],
)
def test_what_cannot_be_signed_raises(signing: str, keys: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as raised:
        signature_headers(signing, keys, "evt-1", NOW, b"{}")
    assert not any(key in str(raised.value) for key in keys)


# ---- explanations


@pytest.mark.parametrize(("signing", "keys", "custom"), DIALECTS)
def test_an_explanation_leads_to_the_headers_and_shows_no_secret(
    signing: str, keys: tuple[str, ...], custom: CustomSigning | None
) -> None:
    body = '{"title":"علی"}'.encode()
    explanation = explain(signing, keys, "evt-1", NOW, body, custom)
    assert explanation.headers == signature_headers(signing, keys, "evt-1", NOW, body, custom)
    text = "\n".join(explanation.steps)
    for name, value in explanation.headers.items():
        assert f"{name}: {value}" in text
    assert explanation.signed_content.endswith(body.decode())
    for key in keys:
        assert key not in text
        assert key[6:] not in text
    if signing == "v1a":
        assert standard.public_key(standard.decode_private_key(keys[0])) in text
    else:
        raw = standard.decode_secret(keys[0]) if signing == "v1" else keys[0].encode()
        assert hashlib.sha256(raw).hexdigest()[:16] in text
        assert hmac.new(raw, explanation.signed_content.encode(), "sha256").hexdigest() in text


# ---- settings of custom signatures

GOOD: dict[str, Any] = {"header": "X-Sign", "algorithm": "sha256", "encoding": "hex", "template": "{timestamp}.{body}"}

REFUSED = [
    ({"header": None}, "header", "is required"),
    ({"header": ""}, "header", "header name"),
    ({"header": "X Sign"}, "header", "header name"),
    ({"header": "X-Sign\r\nHost"}, "header", "header name"),
    ({"header": "X-Sign:"}, "header", "header name"),
    ({"header": "X-Séal"}, "header", "header name"),
    ({"header": "x" * 65}, "header", "header name"),
    *(
        ({"header": name}, "header", "sandbox or HTTP itself sets")
        for name in ("Host", "Connection", "Transfer-Encoding", "Content-Length", "content-type", "Webhook-ID", "x-sandbox-now")
    ),
    ({"timestamp_header": "content-length"}, "timestamp_header", "sandbox or HTTP itself sets"),
    ({"timestamp_header": "x-SIGN"}, "timestamp_header", "must not be the header of the signature"),
    ({"algorithm": "md5"}, "algorithm", "one of sha256, sha512"),
    ({"encoding": "base32"}, "encoding", "one of base64, hex"),
    ({"template": None}, "template", "is required"),
    ({"template": "{timestamp}"}, "template", "{body} exactly once"),
    ({"template": "{body}{body}"}, "template", "{body} exactly once"),
    ({"template": "{body}{secret}"}, "template", "no braces other than"),
    ({"template": "{body.__class__}{body}"}, "template", "no braces other than"),
    ({"template": "{{body}}"}, "template", "no braces other than"),
    ({"template": "{body"}, "template", "no braces other than"),
    ({"template": "{body}" + "x" * 195}, "template", "1 to 200 characters"),
    ({"template": "{body}\0"}, "template", "NUL"),
    ({"template": "{body}\r"}, "template", "without control characters"),
    ({"prefix": "v1=\n"}, "prefix", "printable ASCII"),
    ({"prefix": " v1="}, "prefix", "printable ASCII"),
    ({"prefix": "x" * 65}, "prefix", "at most 64"),
    ({"prefix": "{body}"}, "prefix", "no braces other than {timestamp}"),
    ({"salt": "x"}, "salt", "not a known field"),
]


class Body(msgspec.Struct, forbid_unknown_fields=True):
    custom_signing: CustomSigning


def field_errors(custom_signing: dict[str, Any]) -> list[tuple[str, str]]:
    """Decode a request body as the API does."""
    raw = msgspec.json.encode({"custom_signing": custom_signing})

    def check(fields: Any) -> list[tuple[str, str]]:
        return custom_signing_errors(fields.get("custom_signing", {}))

    try:
        body = decode(msgspec.json.Decoder(Body), raw, check)
    except Problem as problem:
        return list(problem.errors)
    return custom_signing_errors(msgspec.structs.asdict(body.custom_signing))


@pytest.mark.parametrize(("change", "field", "message"), REFUSED)
def test_bad_settings_are_refused_by_field(change: dict[str, Any], field: str, message: str) -> None:
    present = {name: value for name, value in (GOOD | change).items() if value is not None}
    ((path, reason),) = field_errors(present)
    assert path == f"custom_signing.{field}"
    assert message in reason


def test_every_bad_setting_is_reported() -> None:
    errors = field_errors(GOOD | {"header": "Host", "template": "{x}", "prefix": "{id}", "algorithm": "md5"})
    assert {field.split(".")[1] for field, _ in errors} == {"header", "template", "prefix", "algorithm"}


@pytest.mark.parametrize(
    "change",
    [{}, {"timestamp_header": "X-Time"}, {"template": "{id}\n{timestamp}\n{body}"}, {"prefix": ""}, {"timestamp_header": None}],
)
def test_good_settings_are_accepted(change: dict[str, Any]) -> None:
    assert field_errors(GOOD | change) == []
