"""Decode a request's body strictly: what a client got wrong is said, all of it at once, and never guessed over."""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, TypeVar

import msgspec

from sandbox.domain.body_errors import Fault, Members, find_errors, parse_tree, raw_items, shown
from sandbox.domain.errors import Problem, all_invalid, invalid
from sandbox.domain.money import InvalidAmountError, parse_amount

T = TypeVar("T")

Check = Callable[[Mapping[str, Any]], Sequence[Fault]]
"""What a type cannot say of a body: its members that are right → what else is wrong with them."""

_NAMES: Final = re.compile(rb'"([^"]*)"(\s*:)?')
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes, check: Check | None = None) -> T:
    """The body as the decoder's type. Raises MALFORMED_JSON, or VALIDATION_ERROR with every member at fault.

    `check` is asked, of a body that is refused anyway, what else is wrong with the members that are right; whoever decodes
    checks a body that is taken. A batch's raw items are left for whoever decodes them.
    """
    kind: Any = decoder.type
    items = raw_items(kind)
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _refusal(kind, body, check, str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        apart = None if items is None else _item_by_item(decoder, body, items)
        if apart is None:
            raise _malformed(error, body) from None
        value = apart
    if _hides_something(body) if items is None else _has_twice(body, items):
        raise _refusal(kind, body, check, "")
    return value


def amount_of(raw: msgspec.Raw, field: str = "amount", *, zero: bool = False) -> Decimal:
    """The amount that a member holds; `zero` says whether it may be 0. Raises VALIDATION_ERROR."""
    try:
        return parse_amount(bytes(raw), zero=zero)
    except InvalidAmountError as error:
        raise invalid(field, str(error)) from None


def _malformed(error: Exception, body: bytes) -> Problem:
    why = "it is nested too deeply" if isinstance(error, RecursionError) else shown(str(error))
    if not body.strip():
        why = "it is empty"
    return Problem("MALFORMED_JSON", f"The body is not JSON in UTF-8: {why}.")


def _refusal(kind: Any, body: bytes, check: Check | None, said: str) -> Problem:
    """All that is wrong with a body; `said` is what msgspec said of it."""
    try:
        # msgspec stopped at the first member at fault: what comes behind it may be no JSON.
        msgspec.json.decode(body, type=msgspec.Raw)
        tree = parse_tree(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        return _malformed(error, body)
    try:
        errors, right = find_errors(kind, tree)
    except RecursionError as error:
        return _malformed(error, body)
    if check is not None and isinstance(right, dict):
        # What is said of a member that is wrong itself, or holds one that is, follows from that.
        known = {place for field, _ in errors for place in _places(field)}
        errors += [fault for fault in check(right) if fault[0] not in known]
    return all_invalid(errors or [("body", shown(said))])


def _places(field: str) -> list[str]:
    """A path and all that it leads through: `steps[0].to` is in `steps[0]`, which is in `steps`."""
    return [field, *(field[: sign.start()] for sign in re.finditer(r"[.\[]", field))]


def _hides_something(body: bytes) -> bool:
    """Whether the body has what the decoder lets pass: a member given twice, or the NUL that PostgreSQL's text cannot hold."""
    if b"\\" not in body:
        # The usual body: its strings end where they seem to, and no two of its members have one name.
        names = [text for text, colon in _NAMES.findall(body) if colon]
        if len(set(names)) == len(names):
            return False
    try:
        return _is_hidden_in(parse_tree(body))
    except RecursionError as error:
        raise _malformed(error, body) from None


def _is_hidden_in(value: Any) -> bool:
    if isinstance(value, Members):
        return bool(value.twice) or any("\0" in name or _is_hidden_in(item) for name, item in value.items())
    if isinstance(value, list):
        return any(_is_hidden_in(item) for item in value)
    return isinstance(value, str) and "\0" in value


def _has_twice(body: bytes, items: str) -> bool:
    """Whether a batch's only member is given twice."""
    if b"\\" not in body and body.count(f'"{items}"'.encode()) == 1:
        return False
    try:
        return bool(parse_tree(body).twice)
    except (RecursionError, ValueError):
        return False  # of one of the items; whoever decodes it will say so


def _item_by_item(decoder: "msgspec.json.Decoder[T]", body: bytes, items: str) -> T | None:
    """A batch of which an item holds what only the decoder refuses: half a surrogate pair, or too many levels.

    None if the whole is not JSON either way. The items come as they are, to be refused alone.
    """
    try:
        parse_tree(body)
    except RecursionError:
        pass
    except ValueError:
        return None
    depth, begin, cuts = 0, 0, []
    for token in _TOKENS.finditer(body):
        sign = token[0]
        depth += (sign in (b"[", b"{")) - (sign in (b"]", b"}"))
        if sign == b"[" and depth == 2:
            begin = token.end()
            cuts = [begin - 1]
        elif cuts and ((sign == b"," and depth == 2) or (sign == b"]" and depth == 1)):
            cuts.append(token.start())
    if len(cuts) < 2:
        return None
    nulls = b",".join([b"null"] * (len(cuts) - 1))
    try:
        value = decoder.decode(body[:begin] + nulls + body[cuts[-1] :])
    except (msgspec.MsgspecError, RecursionError):
        return None
    raws = [msgspec.Raw(body[start + 1 : end]) for start, end in pairwise(cuts)]
    setattr(value, items, raws)
    return value
