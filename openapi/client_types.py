"""The Python types of the client, from the schemas of the OpenAPI document: results, inputs, and aliases for their enums."""

import keyword
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Final

Schema = dict[str, Any]
_RENAMED: Final = {
    "Accepted": "AcceptedBulkCredit",
    "Activity": "BulkCredit",
    "BankJson": "Bank",
    "Check": "AuditCheck",
    "Counts": "BulkCreditCounts",
    "DirectoryJson": "Directory",
    "FaultShown": "Fault",
    "Item": "BulkCreditItem",
    "ProblemBody": "Problem",
    "Summary": "UserSummary",
    "WalletJson": "Wallet",
}
"""Schemas whose names say too little outside the document."""
_ALIASES: Final[dict[str, tuple[Any, ...]]] = {
    "PayoutStatus": ("Payout", "status"),
    "EventType": ("SendSampleBody", "event_type"),
    "EventPattern": ("CreateEndpointBody", "event_types", "items"),
    "WalletCode": ("RuleMatch", "wallet_code"),
    "SigningScheme": ("CreateEndpointBody", "signing"),
    "ErrorClass": ("ResultBody", "error_class", "anyOf", 0),
}
"""Names for enums that several types have, and where the document has each."""
_MOST_LITERALS: Final = 20
"""An enum with more values, such as the codes of all banks, is a str: its values come from data, not from source code."""


class Types:
    """Renders schemas as Python types, and notes which models and inputs they need."""

    def __init__(self, document: Schema) -> None:
        self._schemas: dict[str, Schema] = document["components"]["schemas"]
        # The document says nothing about these items, because a wrong one is refused without the others.
        self._schemas["CreateUsersBody"]["properties"]["users"]["items"] = {"$ref": "#/components/schemas/CreateUserBody"}
        self._aliases = {self._enum(*path): name for name, path in _ALIASES.items() if path[0] in self._schemas}

    def _enum(self, schema: str, *path: str | int) -> frozenset[str]:
        found: Any = self._schemas[schema]["properties"]
        for step in path:
            found = found[step]
        return frozenset(found["enum"])

    def resolve(self, schema: Schema) -> Schema:
        """Return the schema that this one refers to, with the choices of a body merged into one object."""
        if "$ref" in schema:
            return self.resolve(self._schemas[schema["$ref"].rsplit("/", 1)[1]])
        choices = [self.resolve(choice) for choice in choices_of(schema) if "$ref" in choice]
        if "properties" in schema or len(choices) < 2 or not all("properties" in choice for choice in choices):
            return schema
        return {"description": schema.get("description", ""), **_merged(choices)}

    def result(self, schema: Schema) -> str:
        """Return the type of a value in a response."""
        return self._type(schema, is_input=False)

    def argument(self, schema: Schema) -> str:
        """Return the type of a value in a request."""
        return re.sub(r"@(\w+)", r"inputs.\1", self._type(schema, is_input=True))

    def _type(self, schema: Schema, *, is_input: bool) -> str:
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            if name in ("Money", "Amount"):
                return "Amount" if is_input else "Decimal"
            return f"@{input_name(name)}" if is_input else model_name(name)
        if "const" in schema:
            return f"Literal[{schema['const']!r}]"
        if "enum" in schema:
            return self._literal(schema["enum"])
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not kinds:
            choices = choices_of(schema)
            return _union(self._type(choice, is_input=is_input) for choice in choices) if choices else "Any"
        return _union(self._simple(schema, kind, is_input=is_input) for kind in kinds)

    def _literal(self, values: list[Any]) -> str:
        known = [value for value in values if value is not None]
        null = ["None"] if None in values else []
        if set(known) == {0, "0", "0.00"}:
            return _union(["Amount", *null])
        if alias := self._aliases.get(frozenset(known)):
            return _union([alias, *null])
        if len(known) > _MOST_LITERALS:
            return _union(["str", *null])
        return _union([f"Literal[{', '.join(map(repr, known))}]", *null])

    def _simple(self, schema: Schema, kind: str, *, is_input: bool) -> str:
        if kind == "array":
            return f"{'Sequence' if is_input else 'list'}[{self._type(schema.get('items', {}), is_input=is_input)}]"
        if kind == "object":
            members = schema.get("additionalProperties")
            member = self._type(members, is_input=is_input) if isinstance(members, dict) else "Any"
            return f"{'Mapping' if is_input else 'dict'}[str, {member}]"
        if kind == "string" and schema.get("format") == "date-time":
            return "datetime | str" if is_input else "datetime"
        if kind == "string" and "anyOf" in schema:
            return "date | str"
        if kind == "number":
            return "int" if schema.get("multipleOf") == 1 else "float"
        return {"string": "str", "integer": "int", "boolean": "bool", "null": "None"}[kind]

    def alias_names(self) -> list[str]:
        """Return the names of the aliases."""
        return sorted(self._aliases.values())

    def aliases(self) -> str:
        """Return the definitions of the aliases."""
        values = {name: values for values, name in self._aliases.items()}
        return "".join(f"{name} = Literal[{', '.join(map(repr, sorted(values[name])))}]\n" for name in sorted(values))

    def models(self, names: list[str]) -> str:
        """Return the dataclasses of these schemas."""
        return "".join(self._model(name) for name in names)

    def inputs(self, names: list[str]) -> str:
        """Return the typed dicts of these schemas."""
        return "".join(self._input(name) for name in names)

    def reachable(self, roots: set[str]) -> list[str]:
        """Return the names of these schemas and of all that they contain, each after those that it needs."""
        found: list[str] = []

        def visit(name: str) -> None:
            if name in found or name in ("Money", "Amount"):
                return
            for other in references(self.resolve(self._schemas[name])):
                visit(other)
            found.append(name)

        for root in sorted(roots):
            visit(root)
        return found

    def _model(self, name: str) -> str:
        schema = self.resolve(self._schemas[name])
        required = schema.get("required", [])
        lines = [f"@dataclass(frozen=True, slots=True, kw_only=True)\nclass {model_name(name)}:", docstring(schema, 4)]
        for member, kind in schema.get("properties", {}).items():
            attribute, hint = argument_name(member), self.result(kind)
            is_required = member in required
            if not is_required:
                hint = _union([*hint.split(" | "), "None"])
            alias = f'metadata={{"name": {member!r}}}' if attribute != member else ""
            default = "" if is_required else "default=None"
            value = f" = field({', '.join(filter(None, [default, alias]))})" if alias else "" if is_required else " = None"
            lines.append(f"    {attribute}: {hint}{value}")
            if kind.get("description"):
                lines.append(docstring(kind, 4))
        return "\n".join(lines) + "\n\n\n"

    def _input(self, name: str) -> str:
        schema = self.resolve(self._schemas[name])
        required = schema.get("required", [])
        lines = [f"class {input_name(name)}(TypedDict):", docstring(schema, 4)]
        for member, kind in schema.get("properties", {}).items():
            hint = self._type(kind, is_input=True).replace("@", "")
            lines.append(f"    {member}: {hint if member in required else f'NotRequired[{hint}]'}")
            if kind.get("description"):
                lines.append(docstring(kind, 4))
        return "\n".join(lines) + "\n\n\n"


def model_name(schema: str) -> str:
    """Return the name of a result's class."""
    return _RENAMED.get(schema, schema)


def input_name(schema: str) -> str:
    """Return the name of an input's class."""
    return schema.removesuffix("Body")


def argument_name(member: str) -> str:
    """Return a member's name as Python writes it: snake_case, and with an underscore if it is a keyword."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", member).lower()
    return f"{snake}_" if keyword.iskeyword(snake) else snake


def references(schema: Any) -> Iterator[str]:
    """Yield the names of the schemas that this one contains, but not those of examples."""
    if isinstance(schema, list):
        for item in schema:
            yield from references(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rsplit("/", 1)[1]
        for key, value in schema.items():
            if key == "properties":
                yield from references(list(value.values()))
            elif key not in ("discriminator", "example", "examples", "not"):
                yield from references(value)


def docstring(schema: Schema, indent: int) -> str:
    """Return the description as an indented docstring."""
    return quoted(wrap(schema.get("description", "") or "No fields."), indent)


def wrap(text: str, later: str = "") -> str:
    """Wrap each paragraph of text, but keep the lines of a list. `later` indents what continues a line."""
    paragraphs = [text if "\n* " in f"\n{text}" else " ".join(text.split("\n")) for text in text.split("\n\n")]
    lines = "\n\n".join(paragraphs).splitlines()
    return "\n".join(textwrap.fill(line, 112, subsequent_indent=later, break_on_hyphens=False) for line in lines)


def quoted(text: str, indent: int) -> str:
    """Return text as an indented docstring."""
    margin = " " * indent
    escaped = text.strip().replace("\\", "\\\\").replace('"""', "'''")
    body = "\n".join(f"{margin}{line}".rstrip() for line in escaped.splitlines()).lstrip()
    end = f'\n{margin}"""' if "\n" in body or body.endswith('"') else '"""'
    return f'{margin}"""{body}{end}'


def _union(kinds: Any) -> str:
    """Return the union of types, without repetitions and with None last."""
    parts = dict.fromkeys(part for kind in kinds for part in _split(kind))
    if "Decimal" in parts or "Amount" in parts:
        parts.pop("str", None), parts.pop("int", None), parts.pop("float", None)
    names = [part for part in parts if part != "None"]
    return " | ".join([*names, *(["None"] if "None" in parts else [])])


def choices_of(schema: Schema) -> list[Schema]:
    """Return the choices of a schema, which has none if it is not a union."""
    found: list[Schema] = schema.get("oneOf") or schema.get("anyOf") or []
    return found


def _split(kind: str) -> list[str]:
    """Split a union at its outermost bars."""
    parts, depth, current = [], 0, ""
    for char in kind:
        depth += (char == "[") - (char == "]")
        if char == "|" and depth == 0:
            parts.append(current.strip())
            current = ""
            continue
        current += char
    return [*parts, current.strip()]


def _merged(choices: list[Schema]) -> Schema:
    """Return one object for the choices of a body: all their properties, and required what all require."""
    properties: dict[str, Schema] = {}
    for choice in choices:
        for name, schema in choice["properties"].items():
            if schema.get("type") == "null":
                continue
            before = properties.setdefault(name, schema)
            if before == schema:
                continue
            if values := [*_values(before), *_values(schema)]:
                properties[name] = {"enum": list(dict.fromkeys(values))}
            elif "$ref" in schema:
                choices_before = before.get("anyOf", [before])
                properties[name] = {"anyOf": [*choices_before, *([] if schema in choices_before else [schema])]}
    required = [name for name in properties if all(name in choice.get("required", []) for choice in choices)]
    return {"type": "object", "properties": properties, "required": required}


def _values(schema: Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", []))
