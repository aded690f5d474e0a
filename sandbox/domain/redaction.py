"""Remove secrets from requests before they appear in the journal, the live stream, logs and problems. Pure.

Only values on an allowlist are shown: headers and query parameters by name, fields of a JSON body by the type that declares
them. A type marks secrets with SECRET and URLs with ADDRESS. Allowed values are still searched for keys and secrets, which
have known prefixes, even if they are percent-encoded or JSON-escaped. A value that contains one is hidden completely.
"""

import re
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Final
from urllib.parse import unquote, unquote_plus, urlsplit

import msgspec

HIDDEN: Final = "[redacted]"
_HIDDEN: Final = HIDDEN.encode()
CUT: Final = "...[cut]"
_MARKER: Final = "shown"
SECRET: Final = msgspec.Meta(extra={_MARKER: "never"})
"""Marks the type of a field that is a key or a secret."""
ADDRESS: Final = msgspec.Meta(extra={_MARKER: "address"})
"""Marks the type of a field that is a URL: its user name, password, query values and fragment are hidden."""
Secret = Annotated[str, SECRET]
Address = Annotated[str, ADDRESS]

HEADERS: Final = frozenset(
    {
        b"accept", b"accept-encoding", b"accept-language", b"connection", b"content-encoding", b"content-length",
        b"content-type", b"expect", b"host", b"idempotency-key", b"if-match", b"if-none-match", b"origin", b"traceparent",
        b"transfer-encoding", b"user-agent", b"webhook-id", b"webhook-timestamp", b"x-idempotency-key", b"x-request-id",
        b"x-sandbox-scenario",
    }
)  # fmt: skip
"""Headers whose values are shown."""

_PREFIXES: Final = ("sk_sandbox_", "ak_sandbox_", "whsec_", "whsk_")
_TOKEN: Final = re.compile(rf"(?:{'|'.join(_PREFIXES)})[^\s\"'`,;&<>]{{3,}}", re.IGNORECASE)
_SECRET_NAME: Final = re.compile(
    r"(?:(?:api|admin|private|access|signing)[ _-]*key|secret|passw(?:or)?d|token|credentials?|authorization|cookie)$",
    re.IGNORECASE,
)
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_MAX_DECODINGS: Final = 4
"""Maximum number of encoding layers to undo. A value with more layers is hidden."""
_SEARCH_LIMIT: Final = 1500
"""Number of characters of a path, query or header that are searched. It exceeds TEXT_LIMIT, so that a secret that starts in
the shown part is recognized."""
TEXT_LIMIT: Final = 1000
"""Maximum number of characters of a path, query or header that are shown."""

_known: Final[set[str]] = set()


def register_secret(secret: str) -> None:
    """Register a secret without a known prefix, such as the operator's key. Ignores short ones: they could be common words."""
    if len(secret) >= 12 and not has_secret(secret):
        _known.add(secret.lower())


def has_secret(text: str) -> bool:
    """Return whether a text contains a key or a secret, in any case, even if percent-encoded or JSON-escaped several times."""
    for _ in range(_MAX_DECODINGS):
        if _is_plain_secret(text):
            return True
        if "%" not in text and "\\" not in text:
            return False
        unescaped = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text).replace("\\/", "/")
        if unescaped != text and _is_plain_secret(unescaped):
            return True
        # Not `unquote_plus`: a base64 secret may contain a plus.
        decoded = unquote(unescaped)
        if decoded == text:
            return False
        text = decoded
    return True


def _is_plain_secret(text: str) -> bool:
    lower = text.lower()
    # First look for text that the prefixes share. This runs on everything that is shown, and secrets are rare.
    if ("_sandbox_" in lower or "whs" in lower) and _TOKEN.search(text):
        return True
    return bool(_known) and any(secret in lower for secret in _known)


def scrub(text: str) -> str:
    """Return a sentence or log line without its secrets. If one is encoded, hide all of the text."""
    if not has_secret(text):
        return text
    scrubbed = _TOKEN.sub(HIDDEN, text)
    return HIDDEN if has_secret(scrubbed) else scrubbed


def path(text: str, *, is_clean: bool = False) -> str:
    """Return a request's path, cut before the first secret: a secret may contain slashes, so hide everything after it.

    `is_clean` says that the path contains no secret.
    """
    shown = text[:_SEARCH_LIMIT]
    if not is_clean and has_secret(shown):
        parts = shown.split("/")
        first = next((number for number in range(len(parts)) if has_secret("/".join(parts[: number + 1]))), 0)
        shown = "/".join([*parts[:first], HIDDEN])
    return _bounded(shown, text)


def query(raw: bytes, names: Collection[str]) -> str:
    """Return a query with only the values of parameters in `names`. `metadata[key]` counts as `metadata`."""
    if not raw:
        return ""
    text = raw[:_SEARCH_LIMIT].decode("latin-1")
    parts = []
    for part in text.split("&"):
        name, equals, value = part.partition("=")
        if has_secret(name):
            name = HIDDEN
        # A part without `=` may be a value, so show it only if it is an allowed name.
        allowed = unquote_plus(name).partition("[")[0] in names and not has_secret(value)
        parts.append(f"{name}={value if allowed else HIDDEN}" if equals else (name if not name or name in names else HIDDEN))
    return _bounded("&".join(parts), text if len(raw) <= _SEARCH_LIMIT else raw)


def headers(given: list[tuple[bytes, bytes]], *, is_clean: bool = False) -> list[tuple[bytes, bytes]]:
    """Return headers, whose names are in lower case, with only the values of those in HEADERS.

    `is_clean` says that none of `showable_parts_of_headers(given)` contains a secret.
    """
    shown = []
    for name, value in given:
        if name not in HEADERS:
            shown.append((name if is_clean or not has_secret(name.decode("latin-1")) else _HIDDEN, _HIDDEN))
        elif not is_clean and has_secret(value[:_SEARCH_LIMIT].decode("latin-1")):
            shown.append((name, _HIDDEN))
        else:
            shown.append((name, value if len(value) <= TEXT_LIMIT else value[:TEXT_LIMIT] + CUT.encode()))
    return shown


def showable_parts_of_headers(given: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the parts of headers that `headers` may show: the values of those in HEADERS, and the names of the others."""
    return [value[:_SEARCH_LIMIT] if name in HEADERS else name for name, value in given]


def address(text: str) -> str:
    """Return a URL without its user name, password, query values and fragment."""
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return HIDDEN
    if not host:
        return HIDDEN if text else text
    shown = query(parts.query.encode("utf-8", "replace"), ())
    found = f"{parts.scheme}://{path(host + parts.path)}" + (f"?{shown}" if shown else "")
    return found + ("#" + HIDDEN if parts.fragment else "")


def _bounded(shown: str, whole: str | bytes) -> str:
    return shown if len(shown) <= TEXT_LIMIT and len(whole) <= _SEARCH_LIMIT else shown[:TEXT_LIMIT] + CUT


# ---- JSON bodies


class Shape:
    """The parts of a JSON value that may be shown. Built from the type that declares the value."""

    __slots__ = ("fields", "hides_something", "items", "kind", "others")

    def __init__(
        self,
        kind: str,
        fields: "dict[str, Shape] | None" = None,
        others: "Shape | None" = None,
        items: "Shape | None" = None,
    ) -> None:
        """Create a shape of kind never, address, text, any or nested.

        A nested shape has the shapes of its declared `fields`, of its `others` (undeclared fields) and of its `items`.
        """
        self.kind = kind
        self.fields = fields or {}
        self.others = others
        self.items = items
        parts = [*self.fields.values(), *(part for part in (others, items) if part is not None)]
        self.hides_something: bool = kind in ("never", "address", "any") or any(part.hides_something for part in parts)
        """Whether a part of a valid value is hidden."""

    def field(self, name: str) -> "Shape":
        """Return the shape of a field."""
        if self.kind == "any":
            return NEVER if _SECRET_NAME.search(name) else self
        return self.fields.get(name, self.others or NEVER)

    def item(self) -> "Shape":
        """Return the shape of a list's items."""
        return self if self.kind == "any" else self.items or NEVER


NEVER: Final = Shape("never")
ANY: Final = Shape("any")
"""JSON without a declared type, such as an endpoint's response: show it, except secrets and fields named like secrets."""
_TEXT: Final = Shape("text")
_ADDRESS: Final = Shape("address")
_SHAPE_BY_MARKER: Final = {"never": NEVER, "address": _ADDRESS}


def shape_of(kind: Any) -> Shape:
    """Return the shape of a type's JSON. For None, everything is hidden."""
    return NEVER if kind is None else _shape(msgspec.inspect.type_info(kind))


def page_of(item: Shape) -> Shape:
    """Return the shape of a page of items."""
    return Shape("nested", {"data": Shape("nested", items=item), "has_more": _TEXT, "next_cursor": _TEXT})


def _shape(info: msgspec.inspect.Type) -> Shape:
    match info:
        case msgspec.inspect.Metadata(type=inner, extra=extra):
            marked = (extra or {}).get(_MARKER)
            if isinstance(inner, msgspec.inspect.RawType) and (extra or {}).get("amount"):
                return _TEXT
            return _SHAPE_BY_MARKER[marked] if marked in _SHAPE_BY_MARKER else _shape(inner)
        case msgspec.inspect.StructType(fields=declared, tag_field=tag):
            fields = {field.encode_name: _shape(field.type) for field in declared}
            return Shape("nested", fields | ({tag: _TEXT} if tag else {}))
        case msgspec.inspect.DictType(value_type=value):
            return Shape("nested", others=_shape(value))
        case msgspec.inspect.CollectionType(item_type=item):
            return Shape("nested", items=_shape(item))
        case msgspec.inspect.UnionType(types=types):
            return _union([_shape(option) for option in types if not isinstance(option, msgspec.inspect.NoneType)])
        case msgspec.inspect.RawType() | msgspec.inspect.AnyType():
            return ANY
        case _:
            return _TEXT


def _union(options: list[Shape]) -> Shape:
    if len(options) == 1 or all(option.kind == options[0].kind != "nested" for option in options):
        return options[0]
    for kind in (NEVER, _ADDRESS):
        if any(option.kind == kind.kind for option in options):
            return kind
    fields: dict[str, Shape] = {}
    for option in options:
        for name, shape in option.fields.items():
            fields[name] = _union([fields[name], shape]) if name in fields else shape
    others = [option.others for option in options if option.others is not None]
    items = [option.items for option in options if option.items is not None]
    if any(option.kind == "any" for option in options):
        return ANY
    return Shape("nested", fields, _union(others) if others else None, _union(items) if items else None)


_MAX_TOKENS: Final = 1500
"""A payout of 4000 bytes has 700 tokens."""
_MAX_DEPTH: Final = 64
_JSON_TOKEN: Final = re.compile(
    rb'[ \t\r\n]*(?:("(?:[^"\\\x00-\x1f]|\\.)*")|([{}\[\],:])|(-?[0-9][0-9.eE+-]*|true|false|null)(?![^ \t\r\n{}\[\],:]))'
)
_NAME_OR_END, _NAME, _COLON, _VALUE, _VALUE_OR_END, _COMMA_OR_END, _DONE = range(7)
_CLOSING_STATES: Final = (_NAME_OR_END, _VALUE_OR_END, _COMMA_OR_END)


def json_body(raw: bytes, shape: Shape) -> bytes:
    """Return a JSON body, which may be cut off, with only the parts that `shape` allows.

    Hide everything after a syntax error, after _MAX_TOKENS, and below _MAX_DEPTH: each token takes time on the event loop.
    A string that is cut off is hidden, because only its missing part might show that it is a secret.
    """
    out: list[bytes] = []
    stack: list[tuple[bytes, Shape]] = []
    current, state, at = shape, _VALUE, 0
    while state != _DONE or raw[at:].strip():
        found = _JSON_TOKEN.match(raw, at)
        if found is None or state == _DONE or len(out) > 2 * _MAX_TOKENS or len(stack) > _MAX_DEPTH:
            return b"".join(out) + _HIDDEN
        string, mark, atom = found.groups()
        space = raw[at : found.start(found.lastindex or 0)]
        at = found.end()
        shown: bytes | None = mark
        if state in (_VALUE, _VALUE_OR_END) and mark in (b"{", b"["):
            stack.append((mark, current))
            state = _NAME_OR_END if mark == b"{" else _VALUE_OR_END
            current = current if mark == b"{" else current.item()
        elif state in (_VALUE, _VALUE_OR_END) and (string or atom):
            shown = _string(string, current) if string else _atom(atom, current)
            state = _COMMA_OR_END if stack else _DONE
        elif state in (_NAME_OR_END, _NAME) and string:
            name = _decoded(string)
            current = stack[-1][1].field(name)
            shown = b'"' + _HIDDEN + b'"' if has_secret(name) else string
            state = _COLON
        elif state == _COLON and mark == b":":
            state = _VALUE
        elif state == _COMMA_OR_END and mark == b",":
            bracket, container = stack[-1]
            state, current = (_NAME, container) if bracket == b"{" else (_VALUE, container.item())
        elif state in _CLOSING_STATES and stack and mark == (b"}" if stack[-1][0] == b"{" else b"]"):
            stack.pop()
            state = _COMMA_OR_END if stack else _DONE
        else:
            shown = None
        if shown is None:
            return b"".join(out) + _HIDDEN
        out += [space, shown]
    return b"".join(out)


def _decoded(string: bytes) -> str:
    try:
        text: str = msgspec.json.decode(string, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return string[1:-1].decode("latin-1")
    return text


def _string(string: bytes, current: Shape) -> bytes:
    text = _decoded(string)
    if current.kind == "address":
        return msgspec.json.encode(address(text))
    shown = current.kind in ("text", "any") and not has_secret(text)
    return string if shown else msgspec.json.encode(HIDDEN)


def _atom(atom: bytes, current: Shape) -> bytes:
    return atom if current.kind in ("text", "any") or atom == b"null" else msgspec.json.encode(HIDDEN)


def body(raw: bytes, shape: Shape, limit: int, *, is_validated: bool, is_clean: bool = False) -> bytes:
    """Return at most `limit` bytes of a redacted body. `raw` is the start of the body, somewhat more than `limit` bytes of it.

    `is_validated` says whether the body was decoded as its type, so that it has no undeclared fields. `is_clean` says that
    `raw` contains no secret.
    """
    if is_validated and not shape.hides_something and (is_clean or not has_secret(raw.decode("latin-1"))):
        return raw[:limit]
    return json_body(raw, shape)[:limit]


def text_body(raw: bytes, limit: int) -> bytes:
    """Return at most `limit` bytes of a body from an endpoint or vendor, which need not be JSON."""
    return json_body(raw, ANY)[:limit] if has_secret(raw.decode("latin-1")) else raw[:limit]


def names_of(parameters: Iterable[str]) -> frozenset[str]:
    """Return the names of query parameters in the form that `query` expects."""
    return frozenset(name.partition("[")[0] for name in parameters)
