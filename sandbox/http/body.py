"""Decode request bodies strictly: report all errors together, and never guess what the client meant. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, TypeVar

import msgspec

from sandbox.domain.errors import Problem, for_display, invalid, invalid_fields
from sandbox.domain.money import InvalidAmountError, parse_amount
from sandbox.http.body_errors import FieldProblem, JsonObject, find_errors, parse_tree, raw_items

T = TypeVar("T")

Check = Callable[[Mapping[str, Any]], Sequence[FieldProblem]]
"""For the fields that match the schema, returns the errors that a schema cannot express."""

_NAMES: Final = re.compile(rb'"([^"]*)"(\s*:)?')
MAX_NESTED_VALUES: Final = 20_000
"""Maximum number of arrays and objects in a body. A batch of 1000 payouts with metadata has 3002."""
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes, check: Check | None = None) -> T:
    """Decode a body as the decoder's type. Raises MALFORMED_JSON, or VALIDATION_ERROR that lists every error.

    If the body is refused, `check` adds the errors that the schema cannot express. If the body is accepted, the caller runs it.
    The raw items of a batch are not decoded here.
    """
    kind: Any = decoder.type
    items = raw_items(kind)
    if _counts_too_many_values(body):
        raise Problem(
            "MALFORMED_JSON", f"The body has more than {MAX_NESTED_VALUES} arrays and objects; send less in one request."
        )
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _refusal(kind, body, check, str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        batch = None if items is None else _item_by_item(decoder, body, items)
        if batch is None:
            raise _malformed(error, body) from None
        value = batch
    if _has_hidden_errors(body) if items is None else _repeats_items_field(body, items):
        raise _refusal(kind, body, check, "")
    return value


def decode_items(field: str, raws: Iterable[msgspec.Raw], read: Callable[[bytes], T]) -> list[T | Problem]:
    """Return the result of `read` for each item of a batch, or the problem that it raises, with the item's position."""
    items: list[T | Problem] = []
    for position, raw in enumerate(raws):
        try:
            items.append(read(bytes(raw)))
        except Problem as problem:
            items.append(problem.within(f"{field}[{position}]"))
    return items


def amount_of(raw: msgspec.Raw, field: str = "amount", *, zero: bool = False) -> Decimal:
    """Return a field's amount. `zero` allows 0. Raises VALIDATION_ERROR."""
    try:
        return parse_amount(bytes(raw), zero=zero)
    except InvalidAmountError as error:
        raise invalid(field, str(error)) from None


def _malformed(error: Exception, body: bytes) -> Problem:
    why = "it is nested too deeply" if isinstance(error, RecursionError) else for_display(str(error))
    if not body.strip():
        why = "it is empty"
    return Problem("MALFORMED_JSON", f"The body is not valid JSON in UTF-8: {why}.")


def _counts_too_many_values(body: bytes) -> bool:
    if body.count(b"[") + body.count(b"{") <= MAX_NESTED_VALUES:
        return False
    plain = _STRINGS.sub(b"", body)
    return plain.count(b"[") + plain.count(b"{") > MAX_NESTED_VALUES


def _refusal(kind: Any, body: bytes, check: Check | None, reason: str) -> Problem:
    """Return a problem with all errors of a body. `reason` is msgspec's message, used if no other error is found."""
    try:
        # msgspec stopped at the first error: the rest of the body may not even be JSON.
        msgspec.json.decode(body, type=msgspec.Raw)
        tree = parse_tree(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        return _malformed(error, body)
    try:
        errors, valid = find_errors(kind, tree)
    except RecursionError as error:
        return _malformed(error, body)
    if check is not None and isinstance(valid, dict):
        # Drop the errors of a field that already has an error, itself or in a nested field: they follow from it.
        known = {path for field, _ in errors for path in _with_parents(field)}
        errors += [error for error in check(valid) if error[0] not in known]
    return invalid_fields(errors or [("body", for_display(reason))])


def _with_parents(field: str) -> list[str]:
    """Return a path and its parents: for `steps[0].to`, also `steps` and `steps[0]`."""
    return [field, *(field[: separator.start()] for separator in re.finditer(r"[.\[]", field))]


def _has_hidden_errors(body: bytes) -> bool:
    """Return whether the body has an error that the decoder ignores: a duplicate field, or a NUL, which PostgreSQL refuses."""
    if b"\\" not in body:
        # The usual case: without escapes, a regular expression finds all names. If they are unique, nothing is wrong.
        names = [text for text, colon in _NAMES.findall(body) if colon]
        if len(set(names)) == len(names):
            return False
    try:
        return _has_duplicate_or_nul(parse_tree(body))
    except RecursionError as error:
        raise _malformed(error, body) from None


def _has_duplicate_or_nul(value: Any) -> bool:
    if isinstance(value, JsonObject):
        return bool(value.duplicates) or any("\0" in name or _has_duplicate_or_nul(item) for name, item in value.items())
    if isinstance(value, list):
        return any(_has_duplicate_or_nul(item) for item in value)
    return isinstance(value, str) and "\0" in value


def _repeats_items_field(body: bytes, items: str) -> bool:
    """Return whether a batch's only field occurs more than once."""
    if b"\\" not in body and body.count(f'"{items}"'.encode()) == 1:
        return False
    try:
        return bool(parse_tree(body).duplicates)
    except (RecursionError, ValueError):
        return False  # the error is in an item, and decoding that item reports it


def _item_by_item(decoder: "msgspec.json.Decoder[T]", body: bytes, items: str) -> T | None:
    """Decode a batch in which an item is valid JSON that the decoder refuses: half a surrogate pair, or nested too deeply.

    Return the batch with undecoded items, so that only such an item is refused. Return None if the body is not JSON.
    """
    try:
        parse_tree(body)
    except RecursionError:
        pass
    except ValueError:
        return None
    depth, begin, cuts = 0, 0, []
    for token in _TOKENS.finditer(body):
        symbol = token[0]
        depth += (symbol in (b"[", b"{")) - (symbol in (b"]", b"}"))
        if symbol == b"[" and depth == 2:
            begin = token.end()
            cuts = [begin - 1]
        elif cuts and ((symbol == b"," and depth == 2) or (symbol == b"]" and depth == 1)):
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
