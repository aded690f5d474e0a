"""What is shown of a request is what was allowed; a secret is known in every spelling, wherever the cut falls."""

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

from sandbox.aggregator.api import SourceBody
from sandbox.docs.openapi import documented
from sandbox.domain import redaction
from sandbox.domain.errors import Problem
from sandbox.domain.redaction import ANY, HIDDEN, NEVER, TEXT_LIMIT, Shape, shape_of
from sandbox.http.operation import page_item
from sandbox.infrastructure.settings import Settings
from sandbox.merchants.api import CreateMerchantBody
from sandbox.merchants.service import NewMerchant
from sandbox.server.app import create_app
from sandbox.webhooks.endpoints import CreatedEndpoint
from sandbox.webhooks.requests import CreateEndpointBody

BEGINNINGS = ("sk_sandbox_", "ak_sandbox_", "whsec_", "whsk_")
PIECE = 6
"""So many characters of a secret in a row are too many."""
SHAPES = [shape_of(kind) for kind in (SourceBody, CreateEndpointBody, CreateMerchantBody, NewMerchant)] + [ANY, NEVER]


def spellings(text: str) -> Iterator[str]:
    """A text as everything that decoders would make of it."""
    for _ in range(8):
        unescaped = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text).replace("\\/", "/")
        yield from (text.lower(), unescaped.lower(), unquote_plus(unescaped).lower())
        if unquote(unescaped) == text:
            return
        text = unquote(unescaped)


def header(name: str, value: str) -> str:
    """How a header's value is shown."""
    ((_, shown),) = redaction.headers([(name.encode(), value.encode("latin-1", "replace"))])
    return shown.decode("latin-1")


def leaks(shown: str, body: str) -> bool:
    """Whether some of a secret can be read in what is shown."""
    pieces = {body[at : at + PIECE].lower() for at in range(len(body) - PIECE + 1)}
    return any(piece in text for text in spellings(shown) for piece in pieces)


_LETTERS = "qzjxwkQZJXWK"
"""Of which no word is made that is shown anyway."""
bodies = st.text(_LETTERS + string.digits + "+/=_-", min_size=20, max_size=60)
tokens = st.tuples(st.sampled_from(BEGINNINGS), bodies)


@st.composite
def spelled(draw: st.DrawFn) -> tuple[str, str]:
    """(how a key or secret is written, what may not be read of it)."""
    beginning, body = draw(tokens)
    text = beginning + body
    if draw(st.booleans()):
        text = draw(st.sampled_from([text.upper(), text.swapcase(), text.title()]))
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            every = draw(st.booleans())
            text = "".join(f"%{ord(c):02x}" if every or draw(st.booleans()) else quote(c, safe="") for c in text)
        else:
            text = "".join(f"\\u{ord(c):04x}" if draw(st.booleans()) else c for c in text).replace("/", "\\/")
    return text, body


@settings(max_examples=100)
@given(spelled(), st.text("abc/", max_size=20), st.text("xyz/?", max_size=20))
def test_no_path_query_header_or_sentence_shows_a_secret(secret: tuple[str, str], before: str, behind: str) -> None:
    text, body = secret
    written = f"{before}{text}{behind}"
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
    assert not [one for one in shown if leaks(one, body)]
    if len(raw) < TEXT_LIMIT:
        assert redaction.query(b"known=" + raw + b"&limit=3", {"known", "limit"}).endswith("=[redacted]&limit=3")


@settings(max_examples=100)
@given(spelled(), st.integers(0, 400), st.sampled_from(SHAPES), st.integers(0, 7), st.booleans())
def test_no_body_shows_a_secret_wherever_it_is_cut(
    secret: tuple[str, str], cut: int, shape: Shape, place: int, is_validated: bool
) -> None:
    text, body = secret
    string_ = f'"{text}"'
    documents = [
        f'{{"url": {string_}, "headers": {{"X-Api-Key": {string_}}}}}',
        f'{{"name": "a", "description": {string_}, {string_}: 1}}',
        f'{{"data": [{{"secret": {string_}, "api_key": [{string_}, {{"a": {string_}}}]}}]}}',
        f"[1, {string_}]",
        string_,
        f"key={text}&b=c",
        f'{{"url": {text}',
        f'{{"a" {string_}}}',
    ]
    raw = documents[place].encode("utf-8")
    for whole in (raw, raw[: max(1, len(raw) - cut % len(raw))]):
        assert not leaks(redaction.body(whole, shape, 4000, is_validated=is_validated).decode("utf-8", "replace"), body)
        assert not leaks(redaction.text_body(whole, 4000).decode("utf-8", "replace"), body) or whole is not raw


plain = st.text(_LETTERS, min_size=12, max_size=40)


@settings(max_examples=80)
@given(plain, st.integers(0, 300))
def test_what_no_type_allows_is_not_shown_whatever_it_looks_like(secret: str, cut: int) -> None:
    """Vendors' keys begin with nothing that would be known: only where they stand tells what they are."""
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


def test_what_is_declared_is_shown_as_it_came() -> None:
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
def test_a_secret_on_the_edge_of_the_cut_is_gone(length: int) -> None:
    secret = "sk_sandbox_" + "Z" * 48
    for shown in (redaction.path("/" + "x" * length + secret), header("user-agent", "x" * length + secret)):
        assert "Z" not in shown
        assert len(shown) <= TEXT_LIMIT + len(redaction.CUT)
    assert "Z" not in redaction.query(b"a=" + b"x" * length + secret.encode(), {"a"})


def test_a_secret_of_the_process_that_begins_as_no_other_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    redaction.learn("short")
    assert not redaction.has_secret("a short word")
    redaction.learn("correct-Horse-battery")
    assert redaction.scrub("it is CORRECT-horse-battery") == HIDDEN
    assert redaction.path("/a/correct%2Dhorse%2Dbattery") == f"/a/{HIDDEN}"


# ---- what is secret is marked


def _members(kind: Any, seen: set[Any]) -> Iterator[tuple[str, str, Any]]:
    """(struct, member, its type with what it is annotated with) of a type and of all types in it."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    for part in get_args(kind):
        yield from _members(part, seen)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in seen:
        seen.add(kind)
        for name, hint in get_type_hints(kind, include_extras=True).items():
            yield kind.__name__, name, hint
            yield from _members(hint, seen)


_CALLED_SECRET = re.compile(r"secret|password|token|api_?key|private_?key|^key$|credential", re.IGNORECASE)
_CALLED_URL = re.compile(r"(^|_)(url|uri|callback|address)$", re.IGNORECASE)
_NO_SECRET = {("JournalEntry", "api_key_id"), ("JournalEntry", "idempotency_key")}
_NO_MERCHANTS_URL = {
    ("Attempt", "url"),  # shown without what might be secret in it
    ("Fetch", "url"),  # a vendor's address has no query but ours
}


def test_every_member_that_is_called_a_secret_or_a_url_is_marked() -> None:
    env = {
        "DATABASE_URL": "postgresql://nowhere/", "REDIS_URL": "redis://nowhere", "SANDBOX_SECRET_KEY": "A" * 43 + "=",
    }  # fmt: skip
    seen: set[Any] = set()
    missing = []
    for operation in documented(create_app(Settings.load(env)).operations):
        for kind in (operation.body, *operation.responses.values()):
            for struct, name, hint in _members(page_item(kind) or kind, seen) if kind is not None else ():
                shape = shape_of(hint)
                if _CALLED_SECRET.search(name) and not shape.conceals and (struct, name) not in _NO_SECRET:
                    missing.append(f"{struct}.{name} is no Secret")
                if _CALLED_URL.search(name) and not shape.conceals and (struct, name) not in _NO_MERCHANTS_URL:
                    missing.append(f"{struct}.{name} is no Address")
    assert missing == []
