"""Write the methods, types and problems of the client for Node from openapi.json, into clients/typescript/src/generated.

Usage: python openapi/generate_typescript.py [FOLDER]. It needs only the standard library. Nouns and methods are those of the
Python client. Results, parameters and the parts of requests have the names that they have on the wire.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from client_methods import Argument, Method, Operations, class_name, noun_of
from client_types import Schema, Types, choices_of, input_name, model_name, wrap

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "clients/typescript/src/generated"
HEADER: Final = "// Generated from openapi/openapi.json by openapi/generate_typescript.py. Do not edit.\n"
EXTENDED: Final = ("clock", "payouts")
"""Nouns with methods written by hand, in src/extended.ts."""
_MOST_LITERALS: Final = 20
"""An enum with more values, such as the codes of all banks, is a string: its values come from data, not from source code."""
_PYTHON_HINTS: Final = {
    "str": "string",
    "None": "void",
    "FileContent": "FileContent",
    "Mapping[str, Any]": "JsonObject",
    "dict[str, Any]": "JsonObject",
}
"""The types that do not come from a schema."""


class TypeScriptTypes(Types):
    """Renders schemas as types of TypeScript. Values are as JSON has them: money is text, and so are times."""

    def argument(self, schema: Schema) -> str:
        """Return the type of a value in a request."""
        return self._type(schema, is_input=True)

    def _type(self, schema: Schema, *, is_input: bool) -> str:
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            if name in ("Money", "Amount"):
                return "Amount" if is_input else "Money"
            return f"inputs.{input_name(name)}" if is_input else f"models.{model_name(name)}"
        if "const" in schema:
            return json.dumps(schema["const"])
        if "enum" in schema:
            return self._literal(schema["enum"])
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not kinds:
            found = choices_of(schema)
            return union(self._type(choice, is_input=is_input) for choice in found) if found else "unknown"
        return union(self._simple(schema, kind, is_input=is_input) for kind in kinds)

    def _literal(self, values: list[Any]) -> str:
        known = [value for value in values if value is not None]
        null = ["null"] if None in values else []
        if set(known) == {0, "0", "0.00"}:
            return union(["Amount", *null])
        if alias := self._aliases.get(frozenset(known)):
            return union([f"literals.{alias}", *null])
        return union([*(["string"] if len(known) > _MOST_LITERALS else map(json.dumps, known)), *null])

    def _simple(self, schema: Schema, kind: str, *, is_input: bool) -> str:
        if kind == "array":
            item = self._type(schema.get("items", {}), is_input=is_input)
            return f"{'readonly ' if is_input else ''}{f'({item})' if ' ' in item else item}[]"
        if kind == "object":
            members = schema.get("additionalProperties")
            member = self._type(members, is_input=is_input) if isinstance(members, dict) else "unknown"
            return f"{'Readonly<' if is_input else ''}Record<string, {member}>{'>' if is_input else ''}"
        if is_input and kind == "string" and (schema.get("format") == "date-time" or "anyOf" in schema):
            return "Time"
        return {"integer": "number", "null": "null"}.get(kind, kind)

    def aliases(self) -> str:
        """Return the definitions of the aliases."""
        values = {name: sorted(values) for values, name in self._aliases.items()}
        return "".join(f"export type {name} = {union(map(json.dumps, values[name]))};\n" for name in sorted(values))

    def interface(self, name: str, schema: Schema, *, is_input: bool) -> str:
        """Return the interface of an object."""
        required = schema.get("required", [])
        lines = [comment(schema.get("description", ""), ""), f"export interface {name} {{"]
        for member, kind in schema.get("properties", {}).items():
            hint = self._type(kind, is_input=is_input)
            lines += [comment(kind.get("description", ""), "  "), _member(member, hint, is_required=member in required)]
        return "\n".join(filter(None, [*lines, "}"])) + "\n"


class Generator:
    """Reads the document and renders the generated files."""

    def __init__(self, document: Schema) -> None:
        self.types = TypeScriptTypes(document)
        self.operations = Operations(document, self.types)
        self.tags = {tag["name"]: tag["description"] for tag in document["tags"]}
        self.responses = document["components"]["responses"]
        self.schemas = document["components"]["schemas"]
        self.nouns: dict[str, list[Method]] = {}
        for method in self.operations.methods:
            self.nouns.setdefault(method.noun, []).append(method)

    def files(self) -> dict[str, str]:
        """Return the text of each generated file by its name."""
        return {
            "literals.ts": f"{HEADER}\n{self.types.aliases()}",
            "models.ts": self._objects({name for names in self.operations.models.values() for name in names}, is_input=False),
            "inputs.ts": self._objects(self.operations.inputs, is_input=True),
            "parameters.ts": self._parameters(),
            "nouns.ts": self._nouns(),
            "client.ts": self._client(),
            "problems.ts": self._problems(),
        }

    def _objects(self, roots: set[str], *, is_input: bool) -> str:
        named = input_name if is_input else model_name
        own = "inputs" if is_input else "models"
        parts = [
            self.types.interface(named(name), self.types.resolve(self.schemas[name]), is_input=is_input)
            for name in self.types.reachable(roots)
        ]
        text = "\n".join(parts).replace(f"{own}.", "")
        return f"{HEADER}\n{_imports(text)}\n{text}"

    def _parameters(self) -> str:
        parts = []
        for _, methods in sorted(self.nouns.items()):
            for method in methods:
                fields = _fields_of(method)
                if fields:
                    lines = [f"/** The parameters of `{_shown(method)}`. */", f"export interface {_parameters_name(method)} {{"]
                    for one in sorted(fields, key=lambda field: not field.is_required):
                        lines += [comment(one.text, "  "), _member(_own_name(one), _hint(one), is_required=one.is_required)]
                    parts.append("\n".join(filter(None, [*lines, "}"])) + "\n")
        text = "\n".join(parts)
        return f"{HEADER}\n{_imports(text)}\n{text}"

    def _nouns(self) -> str:
        parts = []
        for noun, methods in sorted(self.nouns.items()):
            tags = dict.fromkeys(method.operation["tags"][0] for method in methods)
            about = " ".join(self.tags.get(tag, "") for tag in tags) if noun else "The methods of the client itself."
            lines = [comment(about, ""), f"export class {class_name(noun) or 'Root'}Api {{"]
            lines += ["  /** @internal */", "  constructor(protected readonly caller: Caller) {}"]
            for method in methods:
                lines += ["", self._documentation(method), self._method(method)]
            parts.append("\n".join([*lines, "}"]) + "\n")
        text = "\n".join(parts)
        own = 'import { type Caller, type CallOptions, Pages, type WriteOptions, segment } from "../calls.js";'
        return f"{HEADER}\n{own}\n{_imports(text)}\n{text}"

    def _method(self, method: Method) -> str:
        result = _python(method.result)
        path = re.sub(r"\{(\w+)\}", lambda found: f"${{segment({camel(found[1])})}}", method.path)
        parts = [f'method: "{method.verb}"', f"path: {f'`{path}`' if path != method.path else json.dumps(path)}"]
        parts += [f"{place}: {found}" for place, found in _places(method)]
        if method.media_type and method.media_type not in ("application/json", "multipart/form-data"):
            parts.append(f'mediaType: "{method.media_type}"')
        if method.member:
            parts.append(f'member: "{method.member}"')
        if method.result == "str":
            parts.append("isText: true")
        waits = next((name for name in ("timeout", "wait_seconds") if any(a.name == name for a in method.arguments)), None)
        if waits:
            parts.append(f"waits: fields.{waits}")
        if method.takes_key:
            parts.append("isWrite: true")
        if method.auth != "merchant":
            parts.append(f'auth: "{method.auth}"')
        call = "\n".join(["{", *(f"      {part}," for part in [*parts, "...options"]), "    }"])
        lines = [
            f"  {camel(method.name)}({', '.join(_signature(method))}): {'Pages' if method.is_list else 'Promise'}<{result}> {{"
        ]
        headers = [a.name for a in method.arguments if a.place == "header"]
        if headers:
            lines.append(f"    const {{ {', '.join([*headers, '...body'])} }} = fields;")
        lines.append(f"    return {'new Pages(this.caller, ' if method.is_list else 'this.caller.send('}{call});")
        return "\n".join([*lines, "  }"])

    def _documentation(self, method: Method) -> str:
        paragraphs = [method.operation["summary"].rstrip(".") + ".", method.operation.get("description", "")]
        if method.is_list:
            paragraphs.append("Iterate over the items with `for await`: each page is requested when it is needed.")
        codes = list(dict.fromkeys(self._codes(method)))
        if codes:
            paragraphs.append(f"Problems: {', '.join(codes)}.")
        return comment("\n\n".join(filter(None, paragraphs)), "  ")

    def _codes(self, method: Method) -> Iterator[str]:
        for status, response in method.operation["responses"].items():
            if status in ("403", "404", "409", "422"):
                shared = self.responses.get(str(response.get("$ref", "")).rpartition("/")[2], {})
                found = shared.get("content", {}).get("application/problem+json", {}).get("examples", {})
                yield from (code for code in found if not code.startswith("IDEMPOTENCY_KEY_"))

    def _client(self) -> str:
        nouns = sorted(noun for noun in self.nouns if noun)
        texts = {noun_of(tag): text for tag, text in reversed(self.tags.items())}
        generated = ", ".join(f"{class_name(noun)}Api" for noun in ["root", *nouns] if noun not in EXTENDED)
        extended = ", ".join(f"{class_name(noun)}Api" for noun in EXTENDED)
        lines = [HEADER, 'import type { Caller } from "../calls.js";', f'import {{ {extended} }} from "../extended.js";']
        lines += [f'import {{ {generated} }} from "./nouns.js";', "", "/** The nouns of the client, and its own methods. */"]
        lines += ["export class Nouns extends RootApi {"]
        for noun in nouns:
            lines += [comment(texts[noun], "  "), f"  readonly {camel(noun)}: {class_name(noun)}Api;"]
        lines += ["", "  /** @internal */", "  constructor(caller: Caller) {", "    super(caller);"]
        lines += [f"    this.{camel(noun)} = new {class_name(noun)}Api(caller);" for noun in nouns]
        return "\n".join([*lines, "  }", "}"]) + "\n"

    def _problems(self) -> str:
        codes: dict[str, tuple[str, str]] = {}
        for name, response in self.responses.items():
            for match in re.finditer(r"`([A-Z_]+)`: (.*)", response["description"]):
                codes.setdefault(match[1], (name.removeprefix("Problem")[:3], match[2]))
        lines = [HEADER, 'import { ProblemError } from "../errors.js";', 'import type { Problem } from "./models.js";']
        for code, (status, text) in sorted(codes.items()):
            lines += ["", comment(f"{code} ({status}): {text}", ""), f"export class {_problem(code)} extends ProblemError {{"]
            lines += [f'  declare readonly code: "{code}";', "}"]
        lines += ["", "/** The error of each code, to switch over `code`. */"]
        lines += [f"export type KnownProblem = {' | '.join(map(_problem, sorted(codes)))};"]
        lines += ["", "const BY_CODE: Readonly<Record<string, new (problem: Problem) => ProblemError>> = {"]
        lines += [f"  {code}: {_problem(code)}," for code in sorted(codes)]
        lines += ["};", "", "/** Return the error of a problem. One with an unknown code is a plain ProblemError. */"]
        lines += ["export function problemError(problem: Problem): ProblemError {"]
        lines += ["  return new (BY_CODE[problem.code] ?? ProblemError)(problem);", "}"]
        return "\n".join(lines) + "\n"


def _fields_of(method: Method) -> list[Argument]:
    return [argument for argument in method.arguments if argument.place in ("query", "body", "header")]


def _signature(method: Method) -> list[str]:
    parts = [f"{camel(argument.name)}: string" for argument in method.arguments if argument.place == "path"]
    parts += [f"{a.name}: {_hint(a)}" for a in method.arguments if a.place in ("whole", "file")]
    fields = _fields_of(method)
    if fields:
        default = "" if any(field.is_required for field in fields) else " = {}"
        parts.append(f"fields: parameters.{_parameters_name(method)}{default}")
    return [*parts, f"options: {'WriteOptions' if method.takes_key else 'CallOptions'} = {{}}"]


def _places(method: Method) -> Iterator[tuple[str, str]]:
    """Yield the parts of a call with what they consist of."""
    of = {place: [a for a in method.arguments if a.place == place] for place in ("query", "body", "header", "whole", "file")}
    if of["query"]:
        yield "query", "fields"
    if method.body:
        yield "body", "body" if of["header"] else "fields" if of["body"] else "{}"
    if of["header"]:
        yield "headers", f"{{ {', '.join(f'{_key(a.wire)}: {a.name}' for a in of['header'])} }}"
    if of["whole"]:
        yield "body", of["whole"][0].name
    if of["file"]:
        yield "file", "file"


def _own_name(argument: Argument) -> str:
    """Return the name of a parameter: that on the wire, except for a header."""
    return argument.name if argument.place == "header" else argument.wire


def _hint(argument: Argument) -> str:
    hint = _python(argument.hint)
    if argument.place == "query" and hint.startswith("readonly "):
        hint = f"{hint.removeprefix('readonly ').removesuffix('[]')} | {hint}"
    return hint


def _python(hint: str) -> str:
    """Return a type that the reader of operations names in Python, as TypeScript has it."""
    return _PYTHON_HINTS.get(hint, hint.replace("list[", "").removesuffix("]") + "[]" if hint.startswith("list[") else hint)


def _parameters_name(method: Method) -> str:
    return class_name(method.noun) + class_name(method.name)


def _shown(method: Method) -> str:
    return ".".join(filter(None, [camel(method.noun), camel(method.name)]))


def _member(name: str, hint: str, *, is_required: bool) -> str:
    return f"  {_key(name)}{'' if is_required else '?'}: {hint}{'' if is_required else ' | undefined'};"


def _key(name: str) -> str:
    return name if re.fullmatch(r"\w+", name) else json.dumps(name)


def _problem(code: str) -> str:
    return class_name(code.lower())


def _imports(text: str) -> str:
    """Return the imports of the names that a file uses."""
    used = [name for name in ("inputs", "literals", "models", "parameters") if re.search(rf"\b{name}\.\w", text)]
    lines = [f'import type * as {name} from "./{name}.js";' for name in used]
    values = [name for name in ("Amount", "FileContent", "JsonObject", "Money", "Time") if re.search(rf"\b{name}\b", text)]
    return "\n".join([*([f'import type {{ {", ".join(values)} }} from "../values.js";'] if values else []), *lines, ""])


def camel(snake: str) -> str:
    """Return snake_case as camelCase. An underscore at the end is only there because of Python's keywords."""
    name = class_name(snake.rstrip("_"))
    return name[:1].lower() + name[1:]


def union(kinds: Iterable[str]) -> str:
    """Return the union of types, without repetitions and with null last."""
    parts = dict.fromkeys(part for kind in kinds for part in _split(kind))
    if "Amount" in parts or "Money" in parts:
        parts.pop("string", None), parts.pop("number", None)
    is_nullable = parts.pop("null", parts) is None
    return " | ".join([*parts, *(["null"] if is_nullable else [])])


def _split(kind: str) -> list[str]:
    """Split a union, unless it is inside of brackets."""
    return [kind] if any(mark in kind for mark in "(<{") else kind.split(" | ")


def comment(text: str, indent: str) -> str:
    """Return text as an indented documentation comment, or "" if there is none."""
    lines = wrap(text.replace("*/", "* /")).strip().splitlines()
    if len(lines) <= 1:
        return f"{indent}/** {lines[0]} */" if lines else ""
    return "\n".join([f"{indent}/**", *(f"{indent} * {line}".rstrip() for line in lines), f"{indent} */"])


def write(folder: Path) -> None:
    """Write the generated files into a folder, and remove those that are not generated any more."""
    files = Generator(json.loads((ROOT / "openapi/openapi.json").read_text())).files()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.ts"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
