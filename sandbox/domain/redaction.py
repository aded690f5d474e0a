"""What may be shown of a request where others can read it: in the journal, the live stream, logs and problems. Pure.

Nothing is shown because it looks harmless; it is shown because it was allowed: a header or query parameter by its name, a
member of a JSON body by the type that declares it. A type marks what is secret with SECRET, and addresses with ADDRESS.
What is allowed is still searched for keys and secrets, which are known by how they begin, in every spelling that a decoder
would undo; where one is found, the whole value goes.
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
"""Marks the type of a member that is a key or a secret."""
ADDRESS: Final = msgspec.Meta(extra={_MARKER: "address"})
"""Marks the type of a member that is a URL: its user name, password, query values and fragment are not shown."""
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

_BEGINNINGS: Final = ("sk_sandbox_", "ak_sandbox_", "whsec_", "whsk_")
_TOKEN: Final = re.compile(rf"(?:{'|'.join(_BEGINNINGS)})[^\s\"'`,;&<>]{{3,}}", re.IGNORECASE)
_SECRET_NAME: Final = re.compile(
    r"(?:(?:api|admin|private|access|signing)[ _-]*key|secret|passw(?:or)?d|token|credentials?|authorization|cookie)$",
    re.IGNORECASE,
)
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_ROUNDS: Final = 4
"""How often a value may have been encoded. One that can still be decoded after that is not shown."""
_LOOKED_AT: Final = 1500
"""Characters of a path, a query or a header that are looked at. No more than TEXT_LIMIT are shown, so whatever begins in them
is seen whole enough to be known."""
TEXT_LIMIT: Final = 1000

_known: Final[set[str]] = set()


def learn(secret: str) -> None:
    """Know a secret of this process that need not begin as others do, such as the operator's key; short ones are words."""
    if len(secret) >= 12 and not has_secret(secret):
        _known.add(secret.lower())


def has_secret(text: str) -> bool:
    """Whether a text holds a key or a secret, percent-encoded, escaped as in JSON, in any case, several times over."""
    for _ in range(_ROUNDS):
        if _is_plain_secret(text):
            return True
        if "%" not in text and "\\" not in text:
            return False
        unescaped = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text).replace("\\/", "/")
        if unescaped != text and _is_plain_secret(unescaped):
            return True
        # Not `unquote_plus`: a plus is part of a base64 secret, and no secret begins with a space.
        decoded = unquote(unescaped)
        if decoded == text:
            return False
        text = decoded
    return True


def _is_plain_secret(text: str) -> bool:
    lower = text.lower()
    # What all beginnings have in common: this is asked of everything that is shown, and seldom answered with yes.
    if ("_sandbox_" in lower or "whs" in lower) and _TOKEN.search(text):
        return True
    return bool(_known) and any(secret in lower for secret in _known)


def scrub(text: str) -> str:
    """A sentence or a log's line without the secrets in it; all of it goes if one is there in another spelling."""
    if not has_secret(text):
        return text
    found = _TOKEN.sub(HIDDEN, text)
    return HIDDEN if has_secret(found) else found


def path(text: str) -> str:
    """A request's path. What stands behind a secret goes with it: a slash may be part of one."""
    kept = text[:_LOOKED_AT]
    if has_secret(kept):
        parts = kept.split("/")
        first = next((place for place in range(len(parts)) if has_secret("/".join(parts[: place + 1]))), 0)
        kept = "/".join([*parts[:first], HIDDEN])
    return _bounded(kept, text)


def query(raw: bytes, names: Collection[str]) -> str:
    """A query, with the values of the parameters in `names`; of `metadata[key]` the name is `metadata`."""
    text = raw[:_LOOKED_AT].decode("latin-1")
    parts = []
    for part in text.split("&"):
        name, equals, value = part.partition("=")
        if has_secret(name):
            name = HIDDEN
        # A name that cannot be told from a value is one.
        allowed = unquote_plus(name).partition("[")[0] in names and not has_secret(value)
        parts.append(f"{name}={value if allowed else HIDDEN}" if equals else (name if not name or name in names else HIDDEN))
    return _bounded("&".join(parts), text if len(raw) <= _LOOKED_AT else raw)


def headers(given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers, their names in lower case: all names, and the values of those in HEADERS."""
    # Usually there is nothing in any of them, and one look is enough.
    looked_at = [value[:_LOOKED_AT] if name in HEADERS else name for name, value in given]
    are_plain = not has_secret(b"\n".join(looked_at).decode("latin-1"))
    shown = []
    for (name, value), text in zip(given, looked_at, strict=True):
        is_plain = are_plain or not has_secret(text.decode("latin-1"))
        if name not in HEADERS:
            shown.append((name if is_plain else _HIDDEN, _HIDDEN))
        elif is_plain:
            shown.append((name, value if len(value) <= TEXT_LIMIT else value[:TEXT_LIMIT] + CUT.encode()))
        else:
            shown.append((name, _HIDDEN))
    return shown


def address(text: str) -> str:
    """A URL without its user name, password, query values and fragment."""
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


def _bounded(kept: str, whole: str | bytes) -> str:
    return kept if len(kept) <= TEXT_LIMIT and len(whole) <= _LOOKED_AT else kept[:TEXT_LIMIT] + CUT


# ---- JSON bodies


class Shape:
    """What may be shown of a JSON value: built from the type that declares it."""

    __slots__ = ("conceals", "items", "kind", "members", "others")

    def __init__(
        self,
        kind: str,
        members: "dict[str, Shape] | None" = None,
        others: "Shape | None" = None,
        items: "Shape | None" = None,
    ) -> None:
        """`kind` is never, address, text, any or nested. Of a nested one, `members` are declared, `others` are the rest."""
        self.kind = kind
        self.members = members or {}
        self.others = others
        self.items = items
        parts = [*self.members.values(), *(part for part in (others, items) if part is not None)]
        self.conceals: bool = kind in ("never", "address", "any") or any(part.conceals for part in parts)
        """Whether a value that is just as declared holds something that is not shown."""

    def member(self, name: str) -> "Shape":
        """The shape of a member."""
        if self.kind == "any":
            return NEVER if _SECRET_NAME.search(name) else self
        return self.members.get(name, self.others or NEVER)

    def item(self) -> "Shape":
        """The shape of a list's items."""
        return self if self.kind == "any" else self.items or NEVER


NEVER: Final = Shape("never")
ANY: Final = Shape("any")
"""What no type declares, such as another party's answer: shown but for secrets, and members that are called as they are."""
_TEXT: Final = Shape("text")
_ADDRESS: Final = Shape("address")
_OF_MARKER: Final = {"never": NEVER, "address": _ADDRESS}


def shape_of(kind: Any) -> Shape:
    """The shape of a type's JSON; `list[X]` is a list of X, None has none."""
    return NEVER if kind is None else _shape(msgspec.inspect.type_info(kind))


def page_of(item: Shape) -> Shape:
    """The shape of a page of items."""
    return Shape("nested", {"data": Shape("nested", items=item), "has_more": _TEXT, "next_cursor": _TEXT})


def _shape(info: msgspec.inspect.Type) -> Shape:
    match info:
        case msgspec.inspect.Metadata(type=inner, extra=extra):
            marked = (extra or {}).get(_MARKER)
            if isinstance(inner, msgspec.inspect.RawType) and (extra or {}).get("amount"):
                return _TEXT
            return _OF_MARKER[marked] if marked in _OF_MARKER else _shape(inner)
        case msgspec.inspect.StructType(fields=fields, tag_field=tag):
            members = {field.encode_name: _shape(field.type) for field in fields}
            return Shape("nested", members | ({tag: _TEXT} if tag else {}))
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
    members: dict[str, Shape] = {}
    for option in options:
        for name, shape in option.members.items():
            members[name] = _union([members[name], shape]) if name in members else shape
    others = [option.others for option in options if option.others is not None]
    items = [option.items for option in options if option.items is not None]
    if any(option.kind == "any" for option in options):
        return ANY
    return Shape("nested", members, _union(others) if others else None, _union(items) if items else None)


_JSON_TOKEN: Final = re.compile(
    rb'[ \t\r\n]*(?:("(?:[^"\\\x00-\x1f]|\\.)*")|([{}\[\],:])|(-?[0-9][0-9.eE+-]*|true|false|null)(?![^ \t\r\n{}\[\],:]))'
)
_NAME_OR_END, _NAME, _COLON, _VALUE, _VALUE_OR_END, _COMMA_OR_END, _DONE = range(7)
_MAY_END: Final = (_NAME_OR_END, _VALUE_OR_END, _COMMA_OR_END)


def json_body(raw: bytes, shape: Shape) -> bytes:
    """A JSON body, perhaps cut off, with what `shape` lets be shown. From where it is no JSON on, nothing is shown.

    A string that the cut halves is not shown: the other half might have told that it is a secret.
    """
    out: list[bytes] = []
    stack: list[tuple[bytes, Shape]] = []
    want, state, at = shape, _VALUE, 0
    while state != _DONE or raw[at:].strip():
        found = _JSON_TOKEN.match(raw, at)
        if found is None or state == _DONE:
            return b"".join(out) + _HIDDEN
        string, mark, atom = found.groups()
        space = raw[at : found.start(found.lastindex or 0)]
        at = found.end()
        shown: bytes | None = mark
        if state in (_VALUE, _VALUE_OR_END) and mark in (b"{", b"["):
            stack.append((mark, want))
            state = _NAME_OR_END if mark == b"{" else _VALUE_OR_END
            want = want if mark == b"{" else want.item()
        elif state in (_VALUE, _VALUE_OR_END) and (string or atom):
            shown = _string(string, want) if string else _atom(atom, want)
            state = _COMMA_OR_END if stack else _DONE
        elif state in (_NAME_OR_END, _NAME) and string:
            name = _decoded(string)
            want = stack[-1][1].member(name)
            shown = b'"' + _HIDDEN + b'"' if has_secret(name) else string
            state = _COLON
        elif state == _COLON and mark == b":":
            state = _VALUE
        elif state == _COMMA_OR_END and mark == b",":
            container, of = stack[-1]
            state, want = (_NAME, of) if container == b"{" else (_VALUE, of.item())
        elif state in _MAY_END and stack and mark == (b"}" if stack[-1][0] == b"{" else b"]"):
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


def _string(string: bytes, want: Shape) -> bytes:
    text = _decoded(string)
    if want.kind == "address":
        return msgspec.json.encode(address(text))
    shown = want.kind in ("text", "any") and not has_secret(text)
    return string if shown else msgspec.json.encode(HIDDEN)


def _atom(atom: bytes, want: Shape) -> bytes:
    return atom if want.kind in ("text", "any") or atom == b"null" else msgspec.json.encode(HIDDEN)


def body(raw: bytes, shape: Shape, limit: int, *, as_declared: bool) -> bytes:
    """At most `limit` bytes of a body of which `raw` is the beginning, somewhat longer than that if there is more.

    `as_declared` says that it was decoded as its type, so that all in it is declared.
    """
    if as_declared and not shape.conceals and not has_secret(raw.decode("latin-1")):
        return raw[:limit]
    return json_body(raw, shape)[:limit]


def text_body(raw: bytes, limit: int) -> bytes:
    """At most `limit` bytes of a body of another party's, which need not be JSON."""
    return json_body(raw, ANY)[:limit] if has_secret(raw.decode("latin-1")) else raw[:limit]


def names_of(parameters: Iterable[str]) -> frozenset[str]:
    """The names of query parameters as `query` takes them."""
    return frozenset(name.partition("[")[0] for name in parameters)
