"""The `psp` command that makes a call, as one line describes it. Pure.

A line contains:

* `payouts create`: words of the command;
* `{amount}`: an argument, the value of the path parameter, query parameter or body field of this name;
* `--title {account_title}`: an option, which is left out if the call has no such field; `--bank! {bank_code}`: a required one;
* `{count:integer}`: a field that is not text, with its kind (see `_KINDS`);
* `{*:set}`: all fields that the line does not name otherwise;
* `dest_type=BANK`: a field that the command sends by itself, so the call must have this value (JSON, or else text);
* `currency?=PKR`: the same, but the call may also omit the field, because this is its default.
"""

import json
import re
import shlex
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_PLACEHOLDER: Final = re.compile(r"\{([\w.*]+)(?::([\w=.-]+))?\}\Z")
_FIXED: Final = re.compile(r"([\w.]+)(\?)?=(\S*)\Z")
_FIELD: Final = re.compile(r"[A-Za-z][\w.]*\Z")
FILE: Final = "file="
"""Begins the kind of a field that is read from a file; the rest is a name for the file."""
REST: Final = "*"


@dataclass(frozen=True, slots=True)
class Slot:
    """An argument, or an option with its flag."""

    field: str
    kind: str
    flag: str = ""
    is_required: bool = True

    def words(self, value: Any) -> list[str] | None:
        """Return the words that pass a value, or None if none can."""
        if self.kind == "flag":
            return _flag(self.flag, value)
        if self.kind.startswith(FILE):
            values: list[str] | None = [self.kind.removeprefix(FILE)]
        else:
            values = _KINDS[self.kind](value)
        # A control character in a pasted command could end it or start another one.
        if values is None or any(unicodedata.category(character) == "Cc" for text in values for character in text):
            return None
        if not self.flag:
            return values
        return [word for text in values for word in ([f"{self.flag}={text}"] if text.startswith("-") else [self.flag, text])]


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A field with the value that the command sends by itself."""

    field: str
    value: Any
    is_required: bool


class PspLine:
    """One line: writes the command for a call, and says which arguments and options the command has."""

    def __init__(self, text: str) -> None:
        """Parse a line. Raises ValueError for a word that is not of the documented forms."""
        self.words: list[str] = []
        """The words that are the same for all calls: the names of the command, its group, and fixed options."""
        self.slots: list[Slot] = []
        """The arguments and options, in the order of the line."""
        self._fixed: list[_Fixed] = []
        words = text.split()
        while words:
            word = words.pop(0)
            if word.startswith("--") and words and (found := _PLACEHOLDER.match(words[0])):
                words.pop(0)
                self.slots.append(Slot(found[1], _kind(found[2]), word.removesuffix("!"), word.endswith("!")))
            elif found := _PLACEHOLDER.match(word):
                self.slots.append(Slot(found[1], _kind(found[2])))
            elif found := _FIXED.match(word):
                self._fixed.append(_Fixed(found[1], _json_or_text(found[3]), not found[2]))
            elif re.match(r"[\w-]+\Z", word):
                self.words.append(word)
            else:
                raise ValueError(f"{word!r} in {text!r} is not a word, a field or a fixed value")

    @property
    def fields(self) -> set[str]:
        """The names of the fields that the line mentions."""
        return {slot.field for slot in self.slots} | {fixed.field for fixed in self._fixed}

    def fill(self, parameters: Mapping[str, Any], body: Mapping[str, Any], url: str) -> str | None:
        """Return the command for a call, with the option --url unless `url` is empty; None if it cannot express the call."""
        fields = self._flattened(body)
        if fields is None or fields.keys() & parameters.keys():
            return None
        fields |= parameters
        for fixed in self._fixed:
            if fixed.field in fields and _same(fields[fixed.field], fixed.value):
                del fields[fixed.field]
            elif fixed.is_required:
                return None
        arguments: list[str] = []
        options: list[str] = []
        for slot in sorted(self.slots, key=lambda slot: slot.field == REST):
            if slot.field == REST:
                value, fields = fields, {}
            elif slot.field in fields:
                value = fields.pop(slot.field)
            elif slot.is_required:
                return None
            else:
                continue
            words = slot.words(value)
            if words is None:
                return None
            (options if slot.flag else arguments).extend(words)
        if fields:
            return None
        options += ["--url", url] if url else []
        # After `--`, a word that begins with a dash is not an option.
        dashed = any(argument.startswith("-") for argument in arguments)
        ordered = [*options, "--", *arguments] if dashed else [*arguments, *options]
        return shlex.join(["psp", *self.words, *ordered])

    def _flattened(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a body's fields. Those of an object that the line names field by field have its name before a dot."""
        outer = {name.partition(".")[0] for name in self.fields if "." in name}
        flat: dict[str, Any] = {}
        for name, value in body.items():
            if "." in name:
                return None
            if name in outer and isinstance(value, Mapping) and value:
                flat |= {f"{name}.{inner}": item for inner, item in value.items()}
            else:
                flat[name] = value
        return flat


def _text(value: Any) -> list[str] | None:
    return [value] if isinstance(value, str) and value else None


def _integer(value: Any) -> list[str] | None:
    return [str(value)] if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> list[str] | None:
    return [json.dumps(value)] if isinstance(value, int | float) and not isinstance(value, bool) else None


def _or_none(kind: Callable[[Any], list[str] | None]) -> Callable[[Any], list[str] | None]:
    def convert(value: Any) -> list[str] | None:
        return ["none"] if value is None else None if value == "none" else kind(value)

    return convert


def _repeated(value: Any) -> list[str] | None:
    """Return the texts of a list, each of which is given with the same option."""
    is_expressible = isinstance(value, list) and value and all(isinstance(item, str) and item for item in value)
    return value if is_expressible else None


def _list(value: Any) -> list[str] | None:
    """Return the texts of a list, separated by commas."""
    items = _repeated(value)
    return None if items is None or any("," in item for item in items) else [",".join(items)]


def _pairs(value: Any) -> list[str] | None:
    """Return KEY=VALUE for each text of an object."""
    if not isinstance(value, Mapping) or not value:
        return None
    is_expressible = all(isinstance(item, str) and "=" not in name for name, item in value.items())
    return [f"{name}={item}" for name, item in value.items()] if is_expressible else None


def _set(value: Any) -> list[str] | None:
    """Return KEY=VALUE for each value of an object. A text that would be read as JSON is written as JSON."""
    is_expressible = not any("=" in name or "." in name for name in value)
    return [f"{name}={_json_text(item)}" for name, item in value.items()] if is_expressible else None


def _filters(value: Any) -> list[str] | None:
    """Return FIELD OPERATOR VALUE for each filter of an endpoint, or `none` if there are none."""
    if not isinstance(value, list):
        return None
    return [_filter(item) for item in value] or ["none"]


def _filter(item: Any) -> str:
    if isinstance(item, Mapping) and {"field", "op"} <= item.keys() <= {"field", "op", "value"}:
        field, operator = item["field"], item["op"]
        if isinstance(field, str) and _FIELD.match(field) and isinstance(operator, str) and operator.isalpha():
            return f"{field} {operator} {_json_text(item['value'])}" if "value" in item else f"{field} {operator}"
    # The option takes JSON, too. A list has as many filters as it has items.
    return json.dumps([item], ensure_ascii=False)


def _flag(names: str, value: Any) -> list[str] | None:
    """Return the words for a boolean: `--yes/--no`, or `--yes` alone if false is the default."""
    if not isinstance(value, bool):
        return None
    yes, _, no = names.partition("/")
    return [yes] if value else [no] if no else []


def _json_text(value: Any) -> str:
    """Return a text that `_json_or_text` converts to the value."""
    is_plain = isinstance(value, str) and value and value == value.strip() and _json_or_text(value) is value
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _json_or_text(text: str) -> Any:
    """Return JSON as its value, and anything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _same(value: Any, expected: Any) -> bool:
    """Return whether two JSON values are equal and of the same type: `1 == True` in Python."""
    return type(value) is type(expected) and bool(value == expected)


_KINDS: Final[Mapping[str, Callable[[Any], list[str] | None]]] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "text-or-none": _or_none(_text),
    "integer-or-none": _or_none(_integer),
    "repeated": _repeated,
    "list": _list,
    "pairs": _pairs,
    "set": _set,
    "filters": _filters,
}
"""Kind of a field → the words for its value, or None if there are none. There are also `flag` and `file=NAME`.

A file stands for a placeholder: the command names it, and the user saves the field (or with `*`, the body) in it.
"""


def _kind(name: str | None) -> str:
    if name is not None and name != "flag" and not name.startswith(FILE) and name not in _KINDS:
        raise ValueError(f"{name!r} is not a kind of field")
    return name or "text"
