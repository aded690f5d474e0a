"""JSON schemas of request and response bodies: msgspec's schemas, refined to match the decoding code. Pure.

A schema accepts the bodies that the API accepts. The descriptions cover the rules that JSON Schema cannot express, such as an
IBAN's check digits or a unique reference.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

import msgspec

from sandbox.directory.catalogue import load_directory
from sandbox.domain.choices import Account, DestType, SaleStatus, SigningTime, TransactionType
from sandbox.domain.payout_states import STATUSES
from sandbox.http.operation import page_item
from sandbox.webhooks.requests import EVENT_TYPES

Json = dict[str, Any]

REF: Final = "#/components/schemas/{name}"
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
_AMOUNTS: Final = frozenset({"amount", "earning", "amount_from", "amount_to", "review_threshold"})
"""Fields that contain an amount if their type is raw JSON."""
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
_STATUS: Final[Json] = {"type": "string", "enum": list(STATUSES)}
_UUID: Final[Json] = {"type": "string", "format": "uuid"}
_EVENT_TYPES: Final[Json] = {
    "description": "The event types to send; patterns such as `payout.*` are allowed.",
    "type": "array",
    "items": {"type": "string", "enum": ["*", "payout.*", "bulk_credit.*", *EVENT_TYPES]},
    "minItems": 1,
    "maxItems": 32,
}
_SIGNING_TIME: Final[Json] = {
    "description": "The clock of `webhook-timestamp`: the host's (the default; every library can verify it) or the merchant's.",
    "type": "string",
    "enum": list(get_args(SigningTime)),
}
_URL: Final[Json] = {
    "description": (
        "http:// or https://, with no user name or password; an IPv4 address is four decimal numbers; private addresses may be "
        "rejected."
    ),
    "type": "string",
    "format": "uri",
    "pattern": "^https?://[!-~]+$",
    "maxLength": 2000,
}


def _results(created: str) -> Json:
    """Return the schema of a batch's results: created objects, and problems for rejected items."""
    items = [{"$ref": REF.format(name=name)} for name in (created, "RefusedItem")]
    return {"type": "array", "items": {"oneOf": items}, "minItems": 1, "maxItems": 1000}


_BANK_CODES: Final = sorted(code for bank in load_directory().banks for code in (bank.code, *bank.aliases))
_WALLET_CODES: Final = sorted(wallet.code for wallet in load_directory().wallets)
_TEMPLATE_PART: Final = r"(?:[^{}\x00-\x09\x0b-\x1f\x7f]|\{timestamp\}|\{id\})"
_FIELD_SCHEMAS: Final[Mapping[str, Mapping[str, Json]]] = {
    "Payout": {
        "id": _UUID,
        "currency": {"type": "string", "const": "PKR"},
        "dest_type": {"type": "string", "enum": list(get_args(DestType))},
        "status": _STATUS,
        "user_id": {"type": ["string", "null"], "format": "uuid"},
        "attempts": {"type": "integer", "minimum": 0},
        "version": {
            "description": "1 at creation, plus 1 with each change. Of two copies, the one with the higher version is newer.",
            "type": "integer",
            "minimum": 1,
        },
    },
    "TimelineEntry": {
        "from": {"type": ["string", "null"], "enum": [*STATUSES, None]},
        "to": _STATUS,
        "cause": {"type": "string", "enum": ["api", "worker", "ipn", "simulation"]},
        "actor": {"type": ["string", "null"], "format": "uuid"},
        "event_id": _UUID,
    },
    "VendorTransaction": {
        "id": _UUID,
        "createdAt": {"type": "string", "format": "date-time"},
        "type": {"type": "string", "enum": ["earned", "spent", "payout", "paid_out"]},
    },
    "Event": {"livemode": {"type": "boolean", "const": False}},
    "EventWithDeliveries": {"livemode": {"type": "boolean", "const": False}},
    "Sale": {
        "id": _UUID,
        "user_id": _UUID,
        "status": {"type": "string", "enum": list(get_args(SaleStatus))},
        "attempts": {"type": "integer", "minimum": 0},
    },
    "Transaction": {
        "type": {"type": "string", "enum": list(get_args(TransactionType))},
    },
    "LedgerEntry": {
        "account": {"type": "string", "enum": [*get_args(Account), "WALLET"]},
        "direction": {"type": "string", "enum": ["DEBIT", "CREDIT"]},
    },
    "PayoutResults": {"results": _results("CreatedPayout")},
    "UserResults": {"results": _results("CreatedUser")},
    "RefusedItem": {"status": {"type": "integer", "minimum": 400, "maximum": 499}},
    "DeliveryAttempt": {"outcome": {"type": "string", "enum": ["succeeded", "failed", "gone"]}},
    "RuleMatch": {
        "amount_from": {"$ref": REF.format(name="Amount")},
        "amount_to": {"$ref": REF.format(name="Amount")},
        "bank_code": {"type": "string", "enum": _BANK_CODES},
        "wallet_code": {"type": "string", "enum": _WALLET_CODES},
    },
    "BundleTable": {
        "rows": {"type": "array", "items": {"type": "array", "items": {"description": "The value of a column, as JSON."}}},
    },
    "BundleSettings": {"review_threshold": {"anyOf": [{"$ref": REF.format(name="Money")}, {"type": "null"}]}},
    "ScenarioRule": {"source": {"type": "string", "enum": ["own", "builtin"]}},
    "Explanation": {"source": {"type": "string", "enum": ["own", "builtin"]}},
    "CreateMerchantBody": {
        "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**63 - 1},
        "opening_balance": {"anyOf": [{"$ref": REF.format(name="Amount")}, {"enum": [0, "0", "0.00", None]}]},
    },
    "CreateEndpointBody": {"event_types": {**_EVENT_TYPES, "default": ["payout.*"]}, "signing_time": _SIGNING_TIME},
    "CreateListenerBody": {
        "forward_to": {
            **_URL,
            "description": "http:// or https://; private addresses are allowed, because the listener connects.",
        },
        "event_types": {**_EVENT_TYPES, "default": ["payout.*"]},
        "signing_time": _SIGNING_TIME,
    },
    "ChangeEndpointBody": {"event_types": _EVENT_TYPES, "signing_time": _SIGNING_TIME},
    "ClockRun": {"from": {"type": "string", "format": "date-time"}},
    "PreviewBody": {"event_types": _EVENT_TYPES},
    "RecoverBody": {"event_types": _EVENT_TYPES},
    "CustomSigning": {
        "template": {
            "description": "What is signed. `{timestamp}`, `{id}` (the webhook-id) and `{body}` are replaced.",
            "type": "string",
            "pattern": f"^{_TEMPLATE_PART}*\\{{body\\}}{_TEMPLATE_PART}*$",
            "maxLength": 200,
        },
        "prefix": {
            "description": "What precedes the signature in the header. `{timestamp}` is replaced.",
            "type": "string",
            "pattern": r"^((?:[!-z|~]|\{timestamp\})(?:[ -z|~]|\{timestamp\})*)?$",
            "maxLength": 64,
            "default": "",
        },
    },
}
"""Component → field → its schema, where the Python type is less precise."""
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
PAYOUT_EXAMPLE: Final[Json] = {
    "id": "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77",
    "merchant_reference": "INV-1001",
    "amount": "1500.00",
    "currency": "PKR",
    "dest_type": "BANK",
    "bank_code": "HBL",
    "wallet_code": None,
    "account_number": "12345678900001",
    "account_title": "AYESHA KHAN",
    "status": "PENDING",
    "scenario": "success",
    "failure_code": None,
    "failure_reason": None,
    "psp_reference": None,
    "attempts": 0,
    "version": 1,
    "metadata": {},
    "user_id": None,
    "created_at": "2026-01-31T12:00:00.000Z",
    "updated_at": "2026-01-31T12:00:00.000Z",
    "processed_at": None,
}


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
        if is_request:
            for field in _AMOUNTS & properties.keys():
                properties[field] = _with_amount(properties[field], field in schema.get("required", ()))
            for field in {"url", "webhook_url"} & properties.keys():
                kinds = properties[field].get("type")
                properties[field] = {**_URL, "type": kinds}
        else:
            for field, found in properties.items():
                if field.endswith(("_at", "since")) or field in ("at", "now", "timestamp"):
                    properties[field] = _as_time(found)
        properties.update(_FIELD_SCHEMAS.get(name, {}))
        schema.update(_CROSS_FIELD_RULES.get(name, {}))
        if name == "Payout":
            schema["examples"] = [PAYOUT_EXAMPLE]
        if name == "CreatePayoutsBody":
            properties["payouts"]["items"] = {"$ref": REF.format(name="CreatePayoutBody")}
        if is_request and {"dest_type", "bank_code", "wallet_code", "account_number"} <= properties.keys():
            self._add_per_destination(name, schema)
        else:
            self.components[name] = schema

    def _add_per_destination(self, name: str, schema: Json) -> None:
        """Add one schema per destination type, so that each schema requires its own code."""
        codes = {"BANK": ("bank_code", _BANK_CODES), "WALLET": ("wallet_code", _WALLET_CODES)}
        names = {"BANK": f"{name}ToBank", "WALLET": f"{name}ToWallet"}
        for kind, (code_field, choices) in codes.items():
            properties = dict(schema["properties"])
            properties["dest_type"] = {"type": "string", "const": kind}
            for unused in ("bank_code", "wallet_code"):
                properties[unused] = {"type": "null"}
            properties[code_field] = {"type": "string", "enum": choices}
            properties["account_number"] = _ACCOUNT_NUMBER
            required = [*schema["required"], code_field]
            self.components[names[kind]] = {**schema, "properties": properties, "required": required}
        refs = {kind: REF.format(name=component) for kind, component in names.items()}
        self.components[name] = {
            **({"description": schema["description"]} if "description" in schema else {}),
            "oneOf": [{"$ref": ref} for ref in refs.values()],
            "discriminator": {"propertyName": "dest_type", "mapping": refs},
        }


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
            default = msgspec.field(default_factory=dict)
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


def _with_amount(schema: Json, is_required: bool) -> Json:
    """Return the schema of an amount in place of raw JSON. An optional field may also be null."""
    if schema.keys() - {"default", "anyOf", "type"}:
        return schema
    amount = {"$ref": REF.format(name="Amount")}
    return amount if is_required else {"anyOf": [amount, {"type": "null"}]}


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
    if isinstance(found.get("pattern"), str):
        found["pattern"] = found["pattern"].replace(r"\Z", "$")
    if isinstance(found.get("description"), str):
        # A docstring. Python 3.13 strips its indentation, older versions do not; the document must be the same for all.
        found["description"] = inspect.cleandoc(found["description"])
    if found.get("default", ...) is None:
        del found["default"]
    if not found.get("required", True):
        del found["required"]
    options = found.get("anyOf")
    if isinstance(options, list) and len(options) == 2 and options[1] == {"type": "null"}:
        option = options[0]
        if isinstance(option.get("type"), str):
            rest = {name: value for name, value in found.items() if name != "anyOf"}
            return {**rest, **option, "type": [option["type"], "null"]}
    return found
