"""JSON schemas of request and response bodies: msgspec's schemas, refined to match the decoding code.

A schema accepts the bodies that the API accepts. The descriptions cover the rules that JSON Schema cannot express, such as an
IBAN's check digits or a unique reference.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from sandbox.domain.clock import milliseconds, parse
from sandbox.domain.enumerations import EventType
from sandbox.domain.event_samples import sample
from sandbox.domain.ids import IdSource
from sandbox.http.operation import page_item
from sandbox.payouts.directory.loader import load_directory

Json = dict[str, Any]

REF: Final = "#/components/schemas/{name}"
_DOCUMENTED: Final = "x-documented-"
"""Begins a keyword that takes the place of msgspec's own (`sandbox/domain/fields.py`)."""
AMOUNT: Final[Json] = {
    "description": "More than 0, at most 999999999999.99, with at most two decimal places; a decimal string or a JSON number.",
    "anyOf": [
        # No lookahead for "more than 0": not every regex engine supports it.
        {"type": "string", "pattern": r"^([1-9][0-9]{0,11}(\.[0-9]{1,2})?|0\.(0[1-9]|[1-9][0-9]?))$"},
        {"type": "number", "minimum": 0.01, "maximum": 999999999999.99, "multipleOf": 0.01},
    ],
    "examples": ["1500.00", 1500.5],
}
MONEY: Final[Json] = {
    "description": "A decimal string with exactly two decimal places.",
    "type": "string",
    "pattern": r"^-?[0-9]+\.[0-9][0-9]$",
    "examples": ["1500.00"],
}
_ACCOUNT_NUMBER: Final[Json] = {
    "description": (
        "10 to 16 digits, or a Pakistani IBAN of this bank or wallet (its check digits are verified). "
        "The last four digits choose the scenario."
    ),
    "anyOf": [
        {"type": "string", "pattern": "^[0-9]{10,16}$"},
        {"type": "string", "pattern": "^PK[0-9]{2}[A-Z]{4}[A-Z0-9]{16}$"},
    ],
    "examples": ["12345678900001", "PK36SCBL0000001123456702"],
}
_EXAMPLE_TIME: Final = "2026-01-31T12:00:00.000Z"
_CODES: Final[Mapping[str, Json]] = {
    "bank_code": {"type": "string", "enum": sorted(load_directory().bank_codes())},
    "wallet_code": {"type": "string", "enum": sorted(load_directory().wallet_codes())},
}
"""Field of a request → the codes that the directory has."""
_CODE_BY_TYPE: Final = {"BANK": "bank_code", "WALLET": "wallet_code"}
_DIALECT_RULE: Final[Json] = {
    "anyOf": [
        {"properties": {"signing": {"not": {"const": "custom"}}, "custom_signing": {"type": "null"}}},
        {
            "properties": {"signing": {"const": "custom"}, "custom_signing": {"type": "object"}},
            "required": ["signing", "custom_signing"],
        },
    ]
}
_CROSS_FIELD_RULES: Final[Mapping[str, Json]] = {
    "SimulateBody": {
        "anyOf": [
            {"properties": {"status": {"enum": ["FAILED", "REJECTED", "RETURNED"]}}},
            {"properties": {"failure_code": {"type": "null"}}},
        ]
    },
    "CreateEndpointBody": _DIALECT_RULE,
    "CreateListenerBody": _DIALECT_RULE,
    "ResultBody": {
        "anyOf": [
            {"properties": {"status": {"type": "integer"}}, "required": ["status"]},
            {"properties": {"error": {"type": "string"}}, "required": ["error"]},
        ]
    },
    "AdvanceClockBody": {"oneOf": [{"required": ["seconds"]}, {"required": ["to"]}]},
}
"""Component → rules that involve several of its fields."""


class Schemas:
    """The schema components of one document, collected from all types that it uses."""

    def __init__(self, types: Iterable[Any]) -> None:
        unwrapped: list[Any] = []
        for kind in types:
            item = page_item(kind)
            unwrapped += [kind if item is None else item]
        self._types = unwrapped
        schemas, components = msgspec.json.schema_components([_describable(kind) for kind in unwrapped], ref_template=REF)
        self._schemas = [_simplify(schema) for schema in schemas]
        self.components: Json = {"Amount": AMOUNT, "Money": MONEY}
        for name, schema in components.items():
            self._add(name, schema)

    def of(self, kind: Any) -> Json:
        """Return the schema of a type, as a reference if the type has a name. `list[X]` means a page of X."""
        item = page_item(kind)
        if item is None:
            found: Json = self._schemas[self._types.index(kind)]
            return found
        schema = self._schemas[self._types.index(item)]
        page = {
            "description": "One page of a list, newest first.",
            "type": "object",
            "properties": {
                "data": {"type": "array", "items": schema},
                "has_more": {"type": "boolean"},
                "next_cursor": {"type": ["string", "null"], "description": "Pass it as `cursor` to get the next page."},
            },
            "required": ["data", "has_more", "next_cursor"],
        }
        if "$ref" not in schema:
            return page
        name = schema["$ref"].rpartition("/")[2] + "Page"
        self.components[name] = page
        return {"$ref": REF.format(name=name)}

    def _add(self, name: str, schema: Json) -> None:
        schema = _simplify(schema)
        properties = schema.get("properties", {})
        is_request = schema.get("additionalProperties") is False
        if not is_request:
            for field, found in properties.items():
                if field.endswith(("_at", "since")) or field in ("at", "now", "timestamp"):
                    properties[field] = _as_time(found)
        else:
            properties.update({field: _CODES[field] for field in _CODES.keys() & properties.keys()})
        schema.update(_CROSS_FIELD_RULES.get(name, {}))
        if name == "Payout":
            schema["examples"] = [payload_example("payout.created")[1]]
        if name == "CreatePayoutsBody":
            properties["payouts"]["items"] = {"$ref": REF.format(name="CreatePayoutBody")}
        if is_request and {"dest_type", "bank_code", "wallet_code", "account_number"} <= properties.keys():
            self._add_per_destination(name, schema)
        else:
            self.components[name] = schema

    def _add_per_destination(self, name: str, schema: Json) -> None:
        """Add one schema per destination type, so that each schema requires its own code."""
        names = {"BANK": f"{name}ToBank", "WALLET": f"{name}ToWallet"}
        for kind, code_field in _CODE_BY_TYPE.items():
            properties = dict(schema["properties"])
            properties["dest_type"] = {"type": "string", "const": kind}
            for unused in ("bank_code", "wallet_code"):
                properties[unused] = {"type": "null"}
            properties[code_field] = _CODES[code_field]
            properties["account_number"] = _ACCOUNT_NUMBER
            required = [*schema["required"], code_field]
            self.components[names[kind]] = {**schema, "properties": properties, "required": required}
        refs = {kind: REF.format(name=component) for kind, component in names.items()}
        self.components[name] = {
            **({"description": schema["description"]} if "description" in schema else {}),
            "oneOf": [{"$ref": ref} for ref in refs.values()],
            "discriminator": {"propertyName": "dest_type", "mapping": refs},
        }


def payload_example(event: EventType) -> tuple[str | None, Json]:
    """Return the `previous_status` and the `data` of an example of an event."""
    ids = IdSource(milliseconds(parse(_EXAMPLE_TIME)), 1, lambda bits: (1 << bits) // 3)
    previous_status, data = sample(event, ids, _EXAMPLE_TIME)
    return previous_status, msgspec.json.decode(data)


def schema_of(kind: Any) -> Json:
    """Return the schema of a type without components, such as that of a path parameter."""
    found: Json = _simplify(msgspec.json.schema(kind))
    return found


def _describable(kind: Any) -> Any:
    """Return the type, or an equivalent one if msgspec cannot describe it because a default is raw JSON."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return kind
    fields = msgspec.structs.fields(kind)
    if not any(isinstance(field.default, msgspec.Raw) for field in fields):
        return kind
    described: list[tuple[str, Any, Any]] = []
    for field in fields:
        default = msgspec.field()
        if isinstance(field.default, msgspec.Raw):
            default = msgspec.field(default=None)
        elif field.default is not msgspec.NODEFAULT:
            default = msgspec.field(default=field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            default = msgspec.field(default_factory=field.default_factory)
        described.append((field.encode_name, field.type, default))
    return msgspec.defstruct(
        kind.__name__,
        described,
        namespace={"__doc__": kind.__doc__},
        forbid_unknown_fields=kind.__struct_config__.forbid_unknown_fields,
        kw_only=True,
    )


def _as_time(schema: Json) -> Json:
    kinds = schema.get("type")
    return {**schema, "format": "date-time"} if kinds == "string" or kinds == ["string", "null"] else schema


def _simplify(schema: Any) -> Any:
    """Return msgspec's schema in common JSON Schema style: `$` instead of `\\Z`, short nullable types, no redundant keys."""
    if isinstance(schema, list):
        return [_simplify(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "decimal":
        return {"$ref": REF.format(name="Money")}
    found = {name: _simplify(value) for name, value in schema.items() if name != "title" or not isinstance(value, str)}
    for name in [name for name in found if name.startswith(_DOCUMENTED)]:
        found[name.removeprefix(_DOCUMENTED)] = found.pop(name)
    if isinstance(found.get("pattern"), str):
        found["pattern"] = found["pattern"].replace(r"\Z", "$")
    if isinstance(found.get("description"), str):
        # A docstring. Python 3.13 strips its indentation, older versions do not; the document must be the same for all.
        found["description"] = inspect.cleandoc(found["description"])
    if "type" in found:
        found.pop("anyOf", None)  # the declared type is more precise than the union that msgspec decodes
    if found.get("default", ...) is None:
        del found["default"]
    if not found.get("required", True):
        del found["required"]
    options = found.get("anyOf")
    if isinstance(options, list) and len(options) == 2 and options[1] == {"type": "null"}:
        option = options[0]
        if isinstance(option.get("type"), str):
            rest = {name: value for name, value in found.items() if name != "anyOf"}
            choices = {"enum": [*option["enum"], None]} if "enum" in option else {}
            return {**rest, **option, **choices, "type": [option["type"], "null"]}
    return found
