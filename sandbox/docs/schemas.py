"""JSON schemas of bodies and answers: msgspec's own, made as exact as the code that decodes them. Pure.

What a schema here calls valid is what the API accepts, as far as JSON Schema can say it; the rest (an IBAN's check
digits, a reference that is taken) is in the descriptions.
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
        # Written without a lookahead for "more than 0", which not every regex engine has.
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
"""Members that take an amount wherever their type is raw JSON."""
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
    "description": "The event types to send, or patterns of them.",
    "type": "array",
    "items": {"type": "string", "enum": ["*", "payout.*", "bulk_credit.*", *EVENT_TYPES]},
    "minItems": 1,
    "maxItems": 32,
}
_SIGNING_TIME: Final[Json] = {
    "description": "Whose time `webhook-timestamp` is: the host's, which every library verifies (the default), or the "
    "merchant's.",
    "type": "string",
    "enum": list(get_args(SigningTime)),
}
_URL: Final[Json] = {
    "description": (
        "http:// or https://, with no user name or password; an IPv4 address is four decimal numbers; private addresses may be "
        "refused."
    ),
    "type": "string",
    "format": "uri",
    "pattern": "^https?://[!-~]+$",
    "maxLength": 2000,
}


def _results(created: str) -> Json:
    """The results of a batch: what was created, or the problem of what was refused."""
    items = [{"$ref": REF.format(name=name)} for name in (created, "RefusedItem")]
    return {"type": "array", "items": {"oneOf": items}, "minItems": 1, "maxItems": 1000}


_BANK_CODES: Final = sorted(code for bank in load_directory().banks for code in (bank.code, *bank.aliases))
_WALLET_CODES: Final = sorted(wallet.code for wallet in load_directory().wallets)
_KNOWN: Final[Mapping[str, Mapping[str, Json]]] = {
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
    "SalePayment": {"kind": {"type": "string", "enum": ["ADVANCE", "FINAL"]}},
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
    "ScenarioRule": {"source": {"type": "string", "enum": ["own", "builtin"]}},
    "Explanation": {"source": {"type": "string", "enum": ["own", "builtin"]}},
    "CreateMerchantBody": {
        "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**63 - 1},
        "opening_balance": {"anyOf": [{"$ref": REF.format(name="Amount")}, {"enum": [0, "0", "0.00", None]}]},
    },
    "CreateEndpointBody": {"event_types": {**_EVENT_TYPES, "default": ["payout.*"]}, "signing_time": _SIGNING_TIME},
    "ChangeEndpointBody": {"event_types": _EVENT_TYPES, "signing_time": _SIGNING_TIME},
}
"""Component → member → its schema, where the type says less than is known."""
_RULES: Final[Mapping[str, Json]] = {
    "SimulateBody": {
        "anyOf": [
            {"properties": {"status": {"enum": ["FAILED", "REJECTED", "RETURNED"]}}},
            {"properties": {"failure_code": {"type": "null"}}},
        ]
    },
    "AdvanceClockBody": {"oneOf": [{"required": ["seconds"]}, {"required": ["to"]}]},
}
"""Component → what holds between its members."""
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
    """The components of one document, gathered from all the types that it names."""

    def __init__(self, types: Iterable[Any]) -> None:
        known: list[Any] = []
        for kind in types:
            item = page_item(kind)
            known += [kind if item is None else item]
        self._types = known
        made, found = msgspec.json.schema_components([_describable(kind) for kind in known], ref_template=REF)
        self._made = [_tidy(schema) for schema in made]
        self.components: Json = {"Amount": AMOUNT, "Money": MONEY}
        for name, schema in found.items():
            self._add(name, schema)

    def of(self, kind: Any) -> Json:
        """The schema of a type: a reference where it has a name. `list[X]` is a page of X."""
        item = page_item(kind)
        if item is None:
            found: Json = self._made[self._types.index(kind)]
            return found
        schema = self._made[self._types.index(item)]
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
        schema = _tidy(schema)
        members = schema.get("properties", {})
        is_request = schema.get("additionalProperties") is False
        if is_request:
            for member in _AMOUNTS & members.keys():
                members[member] = _with_amount(members[member], member in schema.get("required", ()))
            for member in {"url", "webhook_url"} & members.keys():
                kinds = members[member].get("type")
                members[member] = {**_URL, "type": kinds}
        else:
            for member, found in members.items():
                if member.endswith("_at") or member in ("at", "now", "timestamp"):
                    members[member] = _as_time(found)
        members.update(_KNOWN.get(name, {}))
        schema.update(_RULES.get(name, {}))
        if name == "Payout":
            schema["examples"] = [PAYOUT_EXAMPLE]
        if name == "CreatePayoutsBody":
            members["payouts"]["items"] = {"$ref": REF.format(name="CreatePayoutBody")}
        if is_request and {"dest_type", "bank_code", "wallet_code", "account_number"} <= members.keys():
            self._split(name, schema)
        else:
            self.components[name] = schema

    def _split(self, name: str, schema: Json) -> None:
        """One schema for each kind of destination: which code it needs is then part of the schema."""
        codes = {"BANK": ("bank_code", _BANK_CODES), "WALLET": ("wallet_code", _WALLET_CODES)}
        names = {"BANK": f"{name}ToBank", "WALLET": f"{name}ToWallet"}
        for kind, (member, choices) in codes.items():
            properties = dict(schema["properties"])
            properties["dest_type"] = {"type": "string", "const": kind}
            for other in ("bank_code", "wallet_code"):
                properties[other] = {"type": "null"}
            properties[member] = {"type": "string", "enum": choices}
            properties["account_number"] = _ACCOUNT_NUMBER
            required = [*schema["required"], member]
            self.components[names[kind]] = {**schema, "properties": properties, "required": required}
        refs = {kind: REF.format(name=found) for kind, found in names.items()}
        self.components[name] = {
            **({"description": schema["description"]} if "description" in schema else {}),
            "oneOf": [{"$ref": ref} for ref in refs.values()],
            "discriminator": {"propertyName": "dest_type", "mapping": refs},
        }


def _describable(kind: Any) -> Any:
    """The type itself, or one that says the same where msgspec cannot describe it: a default that is raw JSON."""
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
    """The schema of an amount in place of raw JSON's; a member that may be left out may as well be null."""
    if schema.keys() - {"default", "anyOf", "type"}:
        return schema
    amount = {"$ref": REF.format(name="Amount")}
    return amount if is_required else {"anyOf": [amount, {"type": "null"}]}


def _as_time(schema: Json) -> Json:
    kinds = schema.get("type")
    return {**schema, "format": "date-time"} if kinds == "string" or kinds == ["string", "null"] else schema


def _tidy(schema: Any) -> Any:
    """msgspec's schema in the words of a document: `$` for Python's end of text, nullable types in short, no noise."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "decimal":
        return {"$ref": REF.format(name="Money")}
    found = {name: _tidy(value) for name, value in schema.items() if name != "title" or not isinstance(value, str)}
    if isinstance(found.get("pattern"), str):
        found["pattern"] = found["pattern"].replace(r"\Z", "$")
    if isinstance(found.get("description"), str):
        # A docstring. Python 3.13 and newer take its indentation away, older ones leave it: the document is the same.
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
