"""Write the part of openapi.json that the command line needs: a line for each command, and the fields of its call.

Usage: python openapi/cli_operations.py FILE.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

ROOT: Final = Path(__file__).parent.parent
METHODS: Final = ("get", "post", "put", "patch", "delete")
_KEPT: Final = ("type", "format", "enum", "minimum", "maximum", "default", "items")
_NULL: Final = {"type": "null"}


def operations_of(document: Json) -> list[Json]:
    """Return the operations that a `psp` command calls (`x-psp`), with the parameters and body fields by name."""
    components = document["components"]["schemas"]
    found = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in METHODS and "x-psp" in operation:
                description = operation.get("description", "")
                found.append(
                    {
                        **operation["x-psp"],
                        "method": method.upper(),
                        "path": path,
                        "is_operators": operation["security"] == [{"OperatorKey": []}],
                        "help": f"{operation['summary']}.\n\n{description}".strip(),
                        "fields": _fields(operation, components),
                    }
                )
    return found


def _fields(operation: Json, components: Json) -> Json:
    fields = {
        parameter["name"]: _field(parameter["schema"], components, parameter["in"], parameter.get("required", False))
        | ({"description": parameter["description"]} if "description" in parameter else {})
        for parameter in operation.get("parameters", ())
        if "$ref" not in parameter
    }
    content = operation.get("requestBody", {}).get("content", {})
    body = _plain(content.get("application/json", {}).get("schema", {}), components)
    # A body of several forms, such as payouts to banks and to wallets, has the fields of all.
    forms = [_plain(form, components) for form in body.get("oneOf", [body])]
    for form in forms:
        for name, schema in form.get("properties", {}).items():
            is_required = all(name in other.get("required", ()) for other in forms)
            fields[name] = _field(schema, components, "body", is_required)
    return fields


def _field(schema: Json, components: Json, place: str, is_required: bool) -> Json:
    schema = _plain(schema, components)
    kept = {name: value for name, value in schema.items() if name in _KEPT}
    return {"in": place, "required": is_required, "description": schema.get("description", ""), "schema": kept}


def _plain(schema: Json, components: Json) -> Json:
    """Return a schema without its reference, and without null."""
    if "$ref" in schema:
        component = components[schema["$ref"].rpartition("/")[2]]
        # What is written beside a reference is more precise than what it refers to.
        return _plain({**component, **{name: value for name, value in schema.items() if name != "$ref"}}, components)
    others = [option for option in schema.get("anyOf", ()) if option != _NULL]
    if len(others) == 1:
        return _plain({**others[0], **{name: value for name, value in schema.items() if name != "anyOf"}}, components)
    kinds = schema.get("type")
    if isinstance(kinds, list):
        schema = {**schema, "type": next(kind for kind in kinds if kind != "null")}
    if "enum" in schema:
        schema = {**schema, "enum": [value for value in schema["enum"] if value is not None]}
    return schema


def write(file: Path) -> None:
    """Write the operations of the committed document."""
    file.write_text(json.dumps(operations_of(json.loads((ROOT / "openapi/openapi.json").read_text())), indent=1))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
