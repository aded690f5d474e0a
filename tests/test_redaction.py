"""Redaction shows only what is allowed, and hides a secret however it is encoded and wherever the text is truncated."""

import json
import re
import string
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints
from urllib.parse import quote, unquote, unquote_plus

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.domain import redaction
from sandbox.domain.errors import Problem
from sandbox.domain.redaction import ANY, HIDDEN, NEVER, TEXT_LIMIT, Shape, shape_of
from sandbox.http.operation import page_item
from sandbox.infrastructure.settings import Settings
from sandbox.server.app import create_app
from sandbox.server.docs.openapi import documented
from sandbox.users.aggregator.requests import SourceBody
from sandbox.webhooks.endpoints.requests import CreateEndpointBody
from sandbox.webhooks.endpoints.rows import CreatedEndpoint
from sandbox.worlds.merchants.requests import CreateMerchantBody
from sandbox.worlds.merchants.service import NewMerchant

PREFIXES = ("sk_sandbox_", "ak_sandbox_", "whsec_", "whsk_")
LEAK_LENGTH = 6
"""A text leaks a secret if it contains this many consecutive characters of it."""
SHAPES = [shape_of(kind) for kind in (SourceBody, CreateEndpointBody, CreateMerchantBody, NewMerchant)] + [ANY, NEVER]


def decodings(text: str) -> Iterator[str]:
    """Yield the text as every decoder would read it, in lower case."""
    for _ in range(8):
        unescaped = re.sub(r"\\u([0-9a-fA-F]{4})", lambda escape: chr(int(escape[1], 16)), text).replace("\\/", "/")
        yield from (text.lower(), unescaped.lower(), unquote_plus(unescaped).lower())
        if unquote(unescaped) == text:
            return
        text = unquote(unescaped)


def header(name: str, value: str) -> str:
    """Return the redacted value of a header."""
    ((_, shown),) = redaction.headers([(name.encode(), value.encode("latin-1", "replace"))])
    return shown.decode("latin-1")


def leaks(shown: str, body: str) -> bool:
    """Return True if the text shows part of the secret."""
    pieces = {body[at : at + LEAK_LENGTH].lower() for at in range(len(body) - LEAK_LENGTH + 1)}
    return any(piece in text for text in decodings(shown) for piece in pieces)


_LETTERS = "qzjxwkQZJXWK"
"""Letters that form no word that the redacted text contains anyway."""
bodies = st.text(_LETTERS + string.digits + "+/=_-", min_size=20, max_size=60)
tokens = st.tuples(st.sampled_from(PREFIXES), bodies)


@st.composite
def encoded_secrets(draw: st.DrawFn) -> tuple[str, str]:
    """Draw (a secret as it is written, the part of it that must not be readable)."""
    prefix, body = draw(tokens)
    text = prefix + body
    if draw(st.booleans()):
        text = draw(st.sampled_from([text.upper(), text.swapcase(), text.title()]))
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            encode_all = draw(st.booleans())
            text = "".join(f"%{ord(c):02x}" if encode_all or draw(st.booleans()) else quote(c, safe="") for c in text)
        else:
            text = "".join(f"\\u{ord(c):04x}" if draw(st.booleans()) else c for c in text).replace("/", "\\/")
    return text, body


@settings(max_examples=100)
@given(encoded_secrets(), st.text("abc/", max_size=20), st.text("xyz/?", max_size=20))
def test_no_path_query_header_or_message_shows_a_secret(secret: tuple[str, str], before: str, after: str) -> None:
    text, body = secret
    written = f"{before}{text}{after}"
    raw = written.replace("\\", "%5C").encode("latin-1")
    shown = [
        redaction.path(f"/api/v1/{written}"),
        redaction.query(b"known=" + raw + b"&limit=3", {"known", "limit"}),
        redaction.query(b"limit=3&" + raw + b"=1&" + raw, {"known", "limit"}),
        redaction.query(b"unknown=" + raw, {"limit"}),
        header("user-agent", written),
        header("authorization", f"Negotiate {written}"),
        header("cookie", f"a={written}"),
        redaction.address(f"https://{quote(written)}:{quote(written)}@example.com/{written}?{written}&a={written}#{written}"),
        redaction.scrub(f"The key {written} is unknown."),
        Problem("NOT_FOUND", f"No {written}.", errors=[(written, written)]).body("http://x", f"/a/{written}", "r").decode(),
    ]
    assert not [value for value in shown if leaks(value, body)]
    if len(raw) < TEXT_LIMIT:
        assert redaction.query(b"known=" + raw + b"&limit=3", {"known", "limit"}).endswith("=[redacted]&limit=3")


@settings(max_examples=100)
@given(encoded_secrets(), st.integers(0, 400), st.sampled_from(SHAPES), st.integers(0, 7), st.booleans())
def test_no_body_shows_a_secret_wherever_it_is_truncated(
    secret: tuple[str, str], cut: int, shape: Shape, index: int, is_validated: bool
) -> None:
    text, body = secret
    literal = f'"{text}"'
    documents = [
        f'{{"url": {literal}, "headers": {{"X-Api-Key": {literal}}}}}',
        f'{{"name": "a", "description": {literal}, {literal}: 1}}',
        f'{{"data": [{{"secret": {literal}, "api_key": [{literal}, {{"a": {literal}}}]}}]}}',
        f"[1, {literal}]",
        literal,
        f"key={text}&b=c",
        f'{{"url": {text}',
        f'{{"a" {literal}}}',
    ]
    raw = documents[index].encode("utf-8")
    for whole in (raw, raw[: max(1, len(raw) - cut % len(raw))]):
        assert not leaks(redaction.body(whole, shape, 4000, is_validated=is_validated).decode("utf-8", "replace"), body)
        assert not leaks(redaction.text_body(whole, 4000).decode("utf-8", "replace"), body) or whole is not raw


plain = st.text(_LETTERS, min_size=12, max_size=40)


@settings(max_examples=80)
@given(plain, st.integers(0, 300))
def test_undeclared_values_are_hidden_whatever_they_look_like(secret: str, cut: int) -> None:
    """A vendor's key has no known prefix. Only its position shows that it is secret."""
    documents = {
        SourceBody: [
            {"url": "https://vendor.example/v1", "headers": {"X-Key": secret, "Authorization": f"Bearer {secret}"}},
            {"url": None, "headers": [secret]}, {"url": None, "headers": secret}, {"headers": {"a": {"b": [secret]}}},
            {"url": f"https://{secret}:{secret}@vendor.example/v1?{secret}&key={secret}#{secret}"},
            {"api-key": secret}, {"header": {"X-Key": secret}}, [secret], [{"headers": secret}], secret,
        ],
        CreateEndpointBody: [{"url": f"http://user:{secret}@example.com/hook"}, {"secret": secret}, {"url": {"a": secret}}],
        CreateMerchantBody: [{"webhook_url": f"https://example.com/?token={secret}"}],
        NewMerchant: [{"merchant_id": "m", "api_key": secret, "webhook_secret": secret, "ipn_secret": secret}],
        CreatedEndpoint: [{"id": "e", "secret": secret}],
    }  # fmt: skip
    for kind, values in documents.items():
        for value in values:
            for raw in (json.dumps(value).encode(), json.dumps(value, indent=2).encode().replace(b":", b" : ")):
                for whole in (
                    raw,
                    raw[: max(1, len(raw) - cut % len(raw))],
                    raw + secret.encode(),
                    b'{"a": ' + secret.encode(),
                ):
                    shown = redaction.body(whole, shape_of(kind), 4000, is_validated=whole is raw and kind is not SourceBody)
                    assert not leaks(shown.decode(), secret)


def test_declared_values_are_shown_unchanged() -> None:
    shape = shape_of(CreateEndpointBody)
    raw = b'{ "url" : "https://example.com/hook",\n "description": "100% \\u00fc\\"",  "event_types": ["a" , 1.50, true] }'
    assert redaction.json_body(raw, shape) == raw
    assert redaction.body(raw, shape, 20, is_validated=True) == raw[:20]
    assert redaction.json_body(b'{"url": "https://u:p@example.com/hook?a=b&c#d", "typo": [1, null, {"a": true}]}', shape) == (
        b'{"url": "https://example.com/hook?a=[redacted]&[redacted]#[redacted]", '
        b'"typo": ["[redacted]", null, {"a": "[redacted]"}]}'
    )
    assert redaction.path("/api/v1/payouts/019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77") == (
        "/api/v1/payouts/019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"
    )
    assert redaction.query(b"limit=20&metadata[a]=b&x", {"limit", "metadata"}) == "limit=20&metadata[a]=b&[redacted]"
    assert redaction.scrub("The secret must begin with whsec_ and be base64.") == (
        "The secret must begin with whsec_ and be base64."
    )
    assert header("accept", "*/*") == "*/*"


@pytest.mark.parametrize("length", [TEXT_LIMIT - 5, TEXT_LIMIT + 5, 1490, 100_000])
def test_a_secret_at_the_truncation_limit_is_hidden(length: int) -> None:
    secret = "sk_sandbox_" + "Z" * 48
    for shown in (redaction.path("/" + "x" * length + secret), header("user-agent", "x" * length + secret)):
        assert "Z" not in shown
        assert len(shown) <= TEXT_LIMIT + len(redaction.CUT)
    assert "Z" not in redaction.query(b"a=" + b"x" * length + secret.encode(), {"a"})


def test_a_process_secret_without_a_known_prefix_is_hidden_once_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    redaction.register_secret("short")
    assert not redaction.has_secret("a short word")
    redaction.register_secret("correct-Horse-battery")
    assert redaction.scrub("it is CORRECT-horse-battery") == HIDDEN
    assert redaction.path("/a/correct%2Dhorse%2Dbattery") == f"/a/{HIDDEN}"


# ---- secret fields are marked as such


def _fields(kind: Any, seen: set[Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield (struct, field, annotated type) for a type and for every type nested in it."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    for part in get_args(kind):
        yield from _fields(part, seen)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in seen:
        seen.add(kind)
        for name, hint in get_type_hints(kind, include_extras=True).items():
            yield kind.__name__, name, hint
            yield from _fields(hint, seen)


_NAMED_LIKE_A_SECRET = re.compile(r"secret|password|token|api_?key|private_?key|^key$|credential", re.IGNORECASE)
_NAMED_LIKE_A_URL = re.compile(r"(^|_)(url|uri|callback|address)$", re.IGNORECASE)
_NOT_SECRETS = {
    ("JournalEntry", "api_key_id"),
    ("JournalEntry", "idempotency_key"),
    ("ExplainedRequest", "api_key_id"),
    ("RequestMatch", "api_key_id"),
    ("EitherMatch", "api_key_id"),
}
_NOT_A_MERCHANTS_URL = {
    ("Attempt", "url"),  # shown without its query and user info
    ("Merchant", "ipn_url"),  # the sandbox's own
    ("NewMerchant", "ipn_url"),
    ("Fetch", "url"),  # the query of a vendor's URL contains only our parameters
}


def test_every_field_named_like_a_secret_or_url_is_marked() -> None:
    env = {
        "DATABASE_URL": "postgresql://nowhere/", "REDIS_URL": "redis://nowhere", "SANDBOX_SECRET_KEY": "A" * 43 + "=",
    }  # fmt: skip
    seen: set[Any] = set()
    missing = []
    for operation in documented(create_app(Settings.load(env)).operations):
        for kind in (operation.body, *operation.responses.values()):
            for struct, name, hint in _fields(page_item(kind) or kind, seen) if kind is not None else ():
                shape = shape_of(hint)
                if _NAMED_LIKE_A_SECRET.search(name) and not shape.hides_something and (struct, name) not in _NOT_SECRETS:
                    missing.append(f"{struct}.{name} is not a Secret")
                if _NAMED_LIKE_A_URL.search(name) and not shape.hides_something and (struct, name) not in _NOT_A_MERCHANTS_URL:
                    missing.append(f"{struct}.{name} is not an Address")
    assert missing == []
