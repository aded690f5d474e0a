"""The methods of the client, from the operations of the OpenAPI document."""

import keyword
import re
from dataclasses import dataclass, field
from typing import Final

from client_types import Schema, Types, argument_name, references

NOUNS: Final = {
    "Reconcile": "sales",
    "Sandbox: catalogue": "scenarios",
    "Wallet": "bulk_credits",
    "Webhook deliveries": "deliveries",
    # The client itself has the methods of these.
    "Sandbox: audit": "",
    "Sandbox: drain": "",
    "Sandbox: overview": "",
    "Sandbox: reset": "",
    "Sandbox: stream": "",
    "Verify account": "",
}
"""The noun of a tag, if it is not the tag itself."""
METHODS: Final = {
    "claim_deliveries": "claim",
    "create_payouts": "create_batch",
    "create_users": "create_batch",
    "get_catalogue": "catalogue",
    "get_vendor_balance": "balance",
    "list_ledger_entries": "history",
    "list_wallet_entries": "history",
    "reconcile_sales": "reconcile",
    "report_results": "report",
}
"""The method of an operation, if its id does not say it."""
MOVED: Final = {"run_advances": "sales", "run_finals": "sales"}
"""Operations that belong to another noun than their tag says."""
BY_HAND: Final = ("stream",)
"""Operations whose methods are written by hand, because they return neither an object nor a list."""
HEADERS: Final = {"create_payout": {"scenario": "X-Sandbox-Scenario"}}
"""Headers of operations that are arguments of their methods."""
HEADER_TEXTS: Final = {"scenario": "The name of a scenario, instead of the one that the account number chooses."}


@dataclass
class Argument:
    """An argument of a method: `wire` is its name in the request, `place` where it goes."""

    name: str
    wire: str
    hint: str
    place: str
    text: str = ""
    is_required: bool = False
    is_positional: bool = False
    is_nullable: bool = False

    def declaration(self) -> str:
        """Return the argument as a signature has it."""
        if self.is_required:
            return f"{self.name}: {self.hint}"
        if self.is_nullable:
            return f"{self.name}: {self.hint.removesuffix(' | None')} | Omitted | None = OMITTED"
        return f"{self.name}: {self.hint.removesuffix(' | None')} | None = None"


@dataclass
class Method:
    """A method of a noun."""

    noun: str
    name: str
    operation: Schema
    verb: str
    path: str
    arguments: list[Argument] = field(default_factory=list)
    result: str = "None"
    member: str | None = None
    is_list: bool = False
    body: str = ""
    media_type: str = ""
    takes_key: bool = False
    auth: str = "merchant"


class Operations:
    """Reads the operations of the document as methods, and notes the models and inputs that each noun needs."""

    def __init__(self, document: Schema, types: Types) -> None:
        self._types = types
        self.models: dict[str, set[str]] = {"shared": {"ProblemBody"}}
        self.inputs: set[str] = set()
        self.methods = [
            self._method(verb.upper(), path, operation)
            for path, item in document["paths"].items()
            for verb, operation in item.items()
            if verb != "parameters" and operation["operationId"] not in BY_HAND
        ]

    def _method(self, verb: str, path: str, operation: Schema) -> Method:
        identifier = operation["operationId"]
        noun = MOVED.get(identifier, noun_of(operation["tags"][0]))
        found = Method(noun, method_name(identifier, noun, operation["tags"][0]), operation, verb, path)
        security = operation.get("security", [])
        found.auth = "operator" if {"OperatorKey": []} in security else "merchant" if security else "none"
        for parameter in operation.get("parameters", []):
            if parameter.get("$ref", "").endswith("idempotency-key"):
                found.takes_key = True
            else:
                self._parameter(found, parameter)
        self._body(found)
        for name, header in HEADERS.get(identifier, {}).items():
            found.arguments.append(Argument(name, header, "str", "header", HEADER_TEXTS[name]))
        self._result(found)
        return found

    def _parameter(self, method: Method, parameter: Schema) -> None:
        schema, place = parameter["schema"], parameter["in"]
        if parameter["name"] == "cursor":
            return
        hint = "str" if place == "path" else self._types.argument(schema)
        if hint.startswith("Sequence["):
            hint = f"{hint.removeprefix('Sequence[').removesuffix(']')} | {hint}"
        method.arguments.append(
            Argument(
                argument_name(parameter["name"]),
                parameter["name"],
                hint,
                place,
                parameter.get("description", ""),
                is_required=parameter.get("required", False),
                is_positional=place == "path",
            )
        )

    def _body(self, method: Method) -> None:
        content = method.operation.get("requestBody", {}).get("content", {})
        if not content:
            return
        (method.media_type, entry), *_ = content.items()
        schema = self._types.resolve(entry["schema"])
        if method.media_type == "multipart/form-data":
            text = f"{schema['properties']['file']['description']} Bytes, text, or the path of a file."
            method.arguments.append(Argument("file", "file", "FileContent", "file", text, is_required=True, is_positional=True))
            return
        if method.media_type != "application/json":
            method.arguments.append(
                Argument("document", "", "Mapping[str, Any]", "whole", "", is_required=True, is_positional=True)
            )
            return
        self.inputs.update(references(schema))
        if schema.get("type") == "array":
            hint = self._types.argument(schema)
            method.arguments.append(Argument("items", "", hint, "whole", "", is_required=True, is_positional=True))
            return
        method.body = "object"
        required = schema.get("required", [])
        for name, kind in schema.get("properties", {}).items():
            hint = self._types.argument(kind)
            is_null = hint.endswith("| None") or hint == "None"
            method.arguments.append(
                Argument(
                    argument_name(name),
                    name,
                    hint,
                    "body",
                    kind.get("description", ""),
                    is_required=name in required,
                    is_positional=required == [name],
                    # To leave a field out of a change and to set it to null are two things.
                    is_nullable=is_null and (name in required or method.verb in ("PATCH", "PUT")),
                )
            )

    def _result(self, method: Method) -> None:
        response = next(r for status, r in method.operation["responses"].items() if status < "300")
        content = response.get("content", {})
        if not content:
            return
        (media_type, entry), *_ = content.items()
        if not media_type.endswith("json"):
            method.result = "str"
            return
        schema = entry.get("schema", {})
        if media_type != "application/json" or "$ref" not in schema:
            method.result = "dict[str, Any]"
            return
        found = self._types.resolve(schema)
        members = found["properties"]
        if {"data", "has_more", "next_cursor"} == set(members) and schema["$ref"].endswith("Page"):
            method.is_list, only = True, members["data"]["items"]
        elif len(members) == 1 and next(iter(members.values())).get("type") == "array":
            (method.member, only), *_ = members.items()
        else:
            only = schema
        method.result = self._types.result(only)
        self.models.setdefault(method.noun or "root", set()).update(references(only))


def noun_of(tag: str) -> str:
    """Return the noun of a tag, or "" for the client itself."""
    return NOUNS.get(tag, tag.removeprefix("Sandbox: ").lower().replace(" ", "_"))


def class_name(snake: str) -> str:
    """Return snake_case as CamelCase."""
    return "".join(part.capitalize() for part in snake.split("_"))


def method_name(identifier: str, noun: str, tag: str) -> str:
    """Return an operation's method: its id, without the words that its noun says."""
    if identifier in METHODS:
        return METHODS[identifier]
    said = {*noun.split("_"), *(tag.removeprefix("Sandbox: ").lower().split() if noun else [])}
    said |= {re.sub("ies$", "y", word) for word in said} | {word.removesuffix("s") for word in said}
    words = [word for word in identifier.split("_") if word not in said] or [identifier]
    if words[0] in ("get", "list") and len(words) > 1:
        words = words[1:]
    name = "_".join(words)
    return f"{name}_" if keyword.iskeyword(name) else name
