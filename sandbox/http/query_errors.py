"""Find all errors in query parameters. Check them against the schemas that document them. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

from sandbox.domain import clock
from sandbox.domain.errors import for_display
from sandbox.domain.ids import is_uuid
from sandbox.http.body_errors import NUL, REPEATED, FieldProblem, suggestion

_NUMBER: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?\Z")
_WHOLE: Final = re.compile(r"[0-9]{1,18}\Z")
_ENTRY: Final = re.compile(r"([a-z_]+)\[(.*)\]\Z", re.DOTALL)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_MAX_LENGTH: Final = 1000
_MAX_PARAMETERS: Final = 100
"""Maximum number of parameters in a query."""


def find_query_errors(
    pairs: Iterable[tuple[str, str]], allowed: Sequence[str], schemas: Mapping[str, Mapping[str, Any]]
) -> tuple[list[FieldProblem], dict[str, str]]:
    """Check query parameters. Return the errors, and the valid parameters by name.

    `schemas` are the JSON schemas of the parameters that have one. An object is sent as `name[KEY]=value` and returned under
    `name[KEY]`. An array is sent comma-separated.
    """
    errors: list[FieldProblem] = []
    valid: dict[str, str] = {}
    given = list(pairs)
    if len(given) > _MAX_PARAMETERS:
        return [("query", f"must have at most {_MAX_PARAMETERS} parameters; this one has {len(given)}")], valid
    known = [f"{name}[KEY]" if schemas.get(name, {}).get("type") == "object" else name for name in allowed]
    for name, value in given:
        entry = _ENTRY.match(name)
        base = name if entry is None else entry[1]
        schema = schemas.get(base, {})
        if base not in allowed or (schema.get("type") == "object") != (entry is not None):
            hint = suggestion(name, known) or (
                f"; known parameters: {', '.join(known)}" if known else "; none are allowed here"
            )
            errors.append((for_display(name) or "query", f"is not a known parameter{hint}"))
        elif name in valid or any(field == name for field, _ in errors):
            errors.append((for_display(name), REPEATED))
        else:
            message = _value_error(value, schema) if entry is None else _entry_error(entry[2], value, schema)
            if message is None:
                valid[name] = value
            else:
                errors.append((for_display(name), message))
    for name, shown_name in zip(allowed, known, strict=True):
        max_entries = schemas.get(name, {}).get("maxProperties", _MAX_PARAMETERS)
        if len(entries(valid, name)) > max_entries:
            errors.append((name, f"can be given at most {max_entries} times as {shown_name}"))
    return errors, valid


def joined(pairs: Sequence[tuple[str, str]], schemas: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the parameters with the values of each array comma-separated, which other APIs repeat instead."""
    arrays: dict[str, list[str]] = {}
    for name, value in pairs:
        if schemas[name].get("type") == "array":
            arrays.setdefault(name, []).append(value)
    rest = [(name, value) for name, value in pairs if name not in arrays]
    return rest + [(name, ",".join(values)) for name, values in arrays.items()]


def entries(params: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the values of `name[KEY]` by KEY."""
    return {key[len(name) + 1 : -1]: value for key, value in params.items() if key.startswith(f"{name}[")}


def _entry_error(key: str, value: str, schema: Mapping[str, Any]) -> str | None:
    message = _value_error(key, schema.get("propertyNames", {}))
    return f"has a KEY that {message}" if message is not None else _value_error(value, schema.get("additionalProperties", {}))


def _value_error(value: str, schema: Mapping[str, Any]) -> str | None:
    if "\0" in value:
        return NUL
    if len(value) > _MAX_LENGTH:
        return f"must have at most {_MAX_LENGTH} characters"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return _number_error(value, schema)
    if kind == "array":
        choices = schema["items"].get("enum")
        given = value.split(",")
        unknown = None if choices is None else next((item for item in given if item not in choices), None)
        most = schema.get("maxItems", len(given))
        if unknown is None and len(given) <= most:
            return None
        if choices is None:
            return f"can be given at most {most} times"
        return f"must be one or more of {', '.join(choices)}, comma-separated{suggestion(unknown or '', choices)}"
    if "enum" in schema and (value.upper() if schema.get("x-any-case") else value) not in schema["enum"]:
        return f"must be one of {', '.join(schema['enum'])}{suggestion(value, schema['enum'])}"
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", _MAX_LENGTH):
        return f"must have {schema.get('minLength', 0)} to {schema.get('maxLength', _MAX_LENGTH)} characters"
    if schema.get("format") == "uuid" and not is_uuid(value):
        return "must be an id: a UUID in lower case"
    formats = [option.get("format") for option in (schema, *schema.get("anyOf", ()))]
    return _time_error(value, "date" in formats) if "date-time" in formats else None


def _number_error(value: str, schema: Mapping[str, Any]) -> str | None:
    low, high = schema.get("minimum", 0), schema.get("maximum", 10**18)
    is_whole = schema["type"] == "integer"
    if (_WHOLE if is_whole else _NUMBER).match(value) and low <= Decimal(value) <= high:
        return None
    return f"must be a {'whole ' if is_whole else ''}number from {low} to {high}"


def _time_error(value: str, may_be_date: bool) -> str | None:
    try:
        if may_be_date and _DATE.match(value):
            date.fromisoformat(value)
            return None
        # In a query, an unescaped + of an offset arrives as a space.
        clock.milliseconds(clock.parse(value.replace(" ", "+")))
    except (ValueError, OverflowError):
        kinds = "a date such as 2026-01-31, or " if may_be_date else ""
        return f"must be {kinds}an RFC 3339 time with an offset, such as 2026-01-31T12:00:00.000Z"
    return None
