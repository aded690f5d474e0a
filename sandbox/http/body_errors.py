"""Find all errors in a request body, in words that users understand. Pure.

msgspec stops at the first error and reports it in terms of types. So if msgspec refuses a body, this module checks it again,
against msgspec's description of the type. Valid bodies never reach this module.
"""

import difflib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final

from msgspec import inspect

from sandbox.domain.errors import for_display
from sandbox.domain.money import InvalidAmountError, parse_amount

FieldProblem = tuple[str, str]
"""The path of a field, such as `payouts[2].amount`, and its error message."""

MAX_ERRORS: Final = 1000
"""Maximum number of errors that one response lists."""
_MAX_SUGGESTIONS: Final = 20
"""Maximum number of unknown fields of one object for which a similar name is suggested. Each costs a search."""
_INVALID: Final = object()
NUL: Final = "must not contain a NUL character"
REPEATED: Final = "is given more than once"


class Number(str):
    """A JSON number as written in the body, not rounded to a float."""

    __slots__ = ()


class JsonObject(dict[str, Any]):
    """A JSON object; `duplicates` are the names that occur more than once."""

    duplicates: Sequence[str] = ()


def parse_tree(body: bytes) -> Any:
    """Parse a JSON body into JsonObject, lists, strings, booleans, None, and Number for numbers.

    Raises ValueError if it is not JSON in UTF-8, RecursionError if it is nested too deeply.
    """
    return json.loads(
        body.decode(), object_pairs_hook=_json_object, parse_int=Number, parse_float=Number, parse_constant=_refuse
    )


def find_errors(kind: Any, tree: Any) -> tuple[list[FieldProblem], Any]:
    """Check a parsed body against a type. Return its errors, at most MAX_ERRORS, and its valid part.

    In the valid part, objects are dicts of their valid fields, and amounts are Decimals.
    """
    checker = _Checker()
    found = checker.check(_described(kind), tree, "")
    return checker.errors[:MAX_ERRORS], None if found is _INVALID else found


@lru_cache(maxsize=256)
def raw_items(kind: Any) -> str | None:
    """Return the name of the field with a batch's items, which are validated one by one; None if the type is not a batch."""
    info = _described(kind)
    if isinstance(info, inspect.StructType):
        for field in info.fields:
            if isinstance(field.type, inspect.ListType) and isinstance(field.type.item_type, inspect.RawType):
                return field.encode_name
    return None


def suggestion(given: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the known name most similar to the given one, or an empty text if none is similar."""
    plain = {_normalized(name): name for name in known}
    close = difflib.get_close_matches(_normalized(given[:100]), plain, n=1, cutoff=0.7)
    return f"; did you mean {plain[close[0]]}?" if close else ""


@lru_cache(maxsize=256)
def _described(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _json_object(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = JsonObject(pairs)
    if len(found) < len(pairs):
        times = Counter(name for name, _ in pairs)
        found.duplicates = [name for name in found if times[name] > 1][:MAX_ERRORS]
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


class _Checker:
    def __init__(self) -> None:
        self.errors: list[FieldProblem] = []

    def add_error(self, path: str, message: str) -> Any:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append((path or "body", message))
        return _INVALID

    def check(self, info: inspect.Type, value: Any, path: str) -> Any:
        """Return the valid part of a value, or _INVALID; collect its errors."""
        options, extra = _options(info)
        if value is None and any(isinstance(option, inspect.NoneType) for option in options):
            return None
        if extra.get("amount"):
            if value is None and extra.get("null"):
                return None
            return self._check_amount(value, path, zero=bool(extra.get("zero")))
        if isinstance(value, str) and "\0" in value:
            return self.add_error(path, NUL)
        if any(isinstance(option, inspect.AnyType) for option in options):
            return self._check_any(value, path)
        structs = [option for option in options if isinstance(option, inspect.StructType)]
        if len(structs) > 1 and isinstance(value, JsonObject):
            return self._check_tagged(structs, value, path)
        for option in options:
            if isinstance(option, inspect.StructType) and isinstance(value, JsonObject):
                return self._check_struct(option, value, path)
            if isinstance(option, inspect.DictType) and isinstance(value, JsonObject):
                return self._check_dict(option, value, path)
            if isinstance(option, inspect.ListType) and isinstance(value, list):
                return self._check_list(option, value, path, _expected(options, extra))
            found = _scalar(option, value)
            if found is not _INVALID:
                return found
        message = _expected(options, extra)
        if isinstance(value, str) and not isinstance(value, Number):
            choices = [choice for option in options if isinstance(option, inspect.LiteralType) for choice in option.values]
            message += suggestion(value, [*map(str, choices), *extra.get("names", ())])
        return self.add_error(path, message)

    def _check_any(self, value: Any, path: str) -> Any:
        """Check a value of any type, which still must not have duplicate fields or NUL characters."""
        if isinstance(value, list):
            for place, item in enumerate(value):
                self._check_any(item, f"{path}[{place}]")
        elif isinstance(value, JsonObject):
            for name in value.duplicates:
                self.add_error(_join(path, name), REPEATED)
            for name, item in value.items():
                if "\0" in name:
                    self.add_error(_join(path, name), NUL)
                self._check_any(item, _join(path, name))
        elif isinstance(value, str) and "\0" in value:
            self.add_error(path, NUL)
        return value

    def _check_amount(self, value: Any, path: str, *, zero: bool) -> Any:
        raw = value.encode() if isinstance(value, Number) else json.dumps(value).encode()
        try:
            return parse_amount(raw, zero=zero)
        except InvalidAmountError as error:
            return self.add_error(path, str(error))

    def _check_tagged(self, structs: Sequence[inspect.StructType], value: JsonObject, path: str) -> Any:
        name = structs[0].tag_field or ""
        tags = {str(struct.tag): struct for struct in structs}
        given = value.get(name)
        if isinstance(given, str) and given in tags:
            return self._check_struct(tags[given], value, path)
        choices = ", ".join(tags)
        if name not in value:
            self.add_error(_join(path, name), f"is required: one of {choices}")
        else:
            hint = suggestion(given, tags) if isinstance(given, str) else ""
            self.add_error(_join(path, name), f"must be one of {choices}{hint}")
        return self._check_common(structs, value, path)

    def _check_common(self, structs: Sequence[inspect.StructType], value: JsonObject, path: str) -> Any:
        """Check an object of unknown kind: report only errors that it would have with every kind."""
        for name in value.duplicates:
            self.add_error(_join(path, name), REPEATED)
        kinds: dict[str, list[inspect.Field]] = {}
        for field in (field for struct in structs for field in struct.fields):
            kinds.setdefault(field.encode_name, []).append(field)
        for name, fields in kinds.items():
            if len(fields) == len(structs):
                if name not in value and fields[0].required:
                    self.add_error(_join(path, name), _required(inspect.UnionType(tuple(field.type for field in fields))))
                elif name in value and all(field.type == fields[0].type for field in fields):
                    self.check(fields[0].type, value[name], _join(path, name))
        self._check_unknown(kinds, structs[0].tag_field, value, path)
        return _INVALID

    def _check_struct(self, info: inspect.StructType, value: JsonObject, path: str) -> dict[str, Any]:
        for name in value.duplicates:
            self.add_error(_join(path, name), REPEATED)
        valid: dict[str, Any] = {}
        for field in info.fields:
            name = field.encode_name
            if name in value:
                found = self.check(field.type, value[name], _join(path, name))
                if found is not _INVALID:
                    valid[name] = found
            elif field.required:
                self.add_error(_join(path, name), _required(field.type))
        if info.forbid_unknown_fields:
            self._check_unknown([field.encode_name for field in info.fields], info.tag_field, value, path)
        return valid

    def _check_unknown(self, known: Collection[str], tag_field: str | None, value: JsonObject, path: str) -> None:
        unknown = [name for name in value if name not in known and name != tag_field]
        for number, name in enumerate(unknown[:MAX_ERRORS]):
            hint = suggestion(name, known) if number < _MAX_SUGGESTIONS else ""
            if not hint:
                hint = f"; known fields: {', '.join(known)}" if known else "; no fields are allowed here"
            self.add_error(_join(path, name), f"is not a known field{hint}")

    def _check_dict(self, info: inspect.DictType, value: JsonObject, path: str) -> Any:
        for name in value.duplicates:
            self.add_error(_join(path, name), REPEATED)
        if not _fits(len(value), info.min_length, info.max_length):
            return self.add_error(path, f"must have {_range(info.min_length, info.max_length)} fields")
        valid: dict[str, Any] = {}
        for name, item in value.items():
            options, extra = _options(info.key_type)
            if "\0" in name:
                self.add_error(_join(path, name), NUL)
            elif _scalar(options[0], name) is _INVALID:
                self.add_error(_join(path, name), f"has a name that {_expected(options, extra)}")
            found = self.check(info.value_type, item, _join(path, name))
            if found is not _INVALID:
                valid[name] = found
        return valid

    def _check_list(self, info: inspect.ListType, value: list[Any], path: str, expected: str) -> Any:
        if not _fits(len(value), info.min_length, info.max_length):
            return self.add_error(path, f"{expected}; this one has {len(value)}")
        found = [self.check(info.item_type, item, f"{path}[{place}]") for place, item in enumerate(value)]
        return _INVALID if any(item is _INVALID for item in found) else found


def _options(info: inspect.Type) -> tuple[list[inspect.Type], dict[str, Any]]:
    """Return the alternatives of a type, and the `extra` of its metadata."""
    if isinstance(info, inspect.Metadata):
        options, extra = _options(info.type)
        return options, {**(info.extra or {}), **extra}
    if not isinstance(info, inspect.UnionType):
        return [info], {}
    found = [_options(option) for option in info.types]
    return [kind for options, _ in found for kind in options], {name: of[name] for _, of in found for name in of}


def _scalar(info: inspect.Type, value: Any) -> Any:
    """Return the value if it matches the type, which has no fields; otherwise _INVALID."""
    fits = False
    if isinstance(info, inspect.RawType):
        fits = True
    elif isinstance(info, inspect.BoolType):
        fits = isinstance(value, bool)
    elif isinstance(value, Number):
        return _number(info, value)
    elif isinstance(info, inspect.LiteralType):
        fits = isinstance(value, str) and value in info.values
    elif isinstance(info, inspect.StrType) and isinstance(value, str):
        fits = _fits(len(value), info.min_length, info.max_length) and (
            info.pattern is None or re.search(info.pattern, value) is not None
        )
    return value if fits else _INVALID


def _number(info: inspect.Type, value: Number) -> Any:
    if not isinstance(info, inspect.FloatType | inspect.IntType):
        return _INVALID
    try:
        exact = Decimal(value)
        whole = info.multiple_of is None or exact % Decimal(str(info.multiple_of)) == 0
    except InvalidOperation:  # larger than a Decimal can hold, so out of every range
        return _INVALID
    if isinstance(info, inspect.IntType):
        whole = whole and not set(value) & set(".eE")
    above = (info.ge is None or exact >= Decimal(str(info.ge))) and (info.gt is None or exact > Decimal(str(info.gt)))
    below = (info.le is None or exact <= Decimal(str(info.le))) and (info.lt is None or exact < Decimal(str(info.lt)))
    return exact if whole and above and below and abs(exact) < Decimal("1e300") else _INVALID


def _required(info: inspect.Type) -> str:
    options, _ = _options(info)
    choices = [str(choice) for option in options if isinstance(option, inspect.LiteralType) for choice in option.values]
    return f"is required: one of {', '.join(choices)}" if choices else "is required"


def _expected(options: Sequence[inspect.Type], extra: dict[str, Any]) -> str:
    """Return `must be …`, to follow the value's name."""
    null = " or null" if any(isinstance(option, inspect.NoneType) for option in options) else ""
    kinds = [extra["must"]] if "must" in extra else list(dict.fromkeys(filter(None, map(_kind, options))))
    return f"must be {' or '.join(kinds) or 'something else'}{null}"


def _kind(info: inspect.Type) -> str:
    if isinstance(info, inspect.LiteralType):
        return f"one of {', '.join(map(str, info.values))}"
    if isinstance(info, inspect.StrType):
        if info.min_length is None and info.max_length is None:
            return "a string"
        control = " without control characters" if info.pattern is not None else ""
        return f"a string of {_range(info.min_length, info.max_length)} characters{control}"
    if isinstance(info, inspect.BoolType):
        return "true or false"
    if isinstance(info, inspect.FloatType | inspect.IntType):
        return _number_kind(info)
    if isinstance(info, inspect.ListType):
        some = (
            ""
            if info.min_length is None and info.max_length is None
            else f" of {_range(info.min_length, info.max_length)} items"
        )
        return f"a list{some}"
    return "an object" if isinstance(info, inspect.StructType | inspect.DictType) else ""


def _number_kind(info: inspect.FloatType | inspect.IntType) -> str:
    kind = "a whole number" if isinstance(info, inspect.IntType) or info.multiple_of == 1 else "a number"
    if info.ge is not None and info.le is not None:
        return f"{kind} from {_number_text(info.ge)} to {_number_text(info.le)}"
    lowest = f" of at least {_number_text(info.ge)}" if info.ge is not None else ""
    lowest = f" above {_number_text(info.gt)}" if info.gt is not None else lowest
    highest = f"at most {_number_text(info.le)}" if info.le is not None else ""
    return f"{kind}{lowest}{' and ' if lowest and highest else ' of ' if highest else ''}{highest}"


def _number_text(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _range(low: int | None, high: int | None) -> str:
    if high is None:
        return f"at least {low}"
    return f"{low} to {high}" if low else f"at most {high}"


def _fits(length: int, low: int | None, high: int | None) -> bool:
    return (low is None or length >= low) and (high is None or length <= high)


def _join(path: str, name: str) -> str:
    return f"{path}.{for_display(name)}" if path else for_display(name)


def _normalized(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
