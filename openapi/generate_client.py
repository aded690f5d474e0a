"""Write the Python client's methods, models and problems from openapi.json, into psp_sandbox/client.

Usage: python openapi/generate_client.py [FOLDER]. FOLDER is psp_sandbox/client by default.
"""

import json
import keyword
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client_types import Schema, Types, argument_name, quoted, references, wrap

ROOT: Final = Path(__file__).parent.parent
HEADER: Final = "# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.\n"
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
    "report_results": "report",
}
"""The method of an operation, if its id does not say it."""
MOVED: Final = {"run_advances": "sales", "run_finals": "sales"}
"""Operations that belong to another noun than their tag says."""
BY_HAND: Final = ("stream",)
"""Operations whose methods are written by hand, because they return neither an object nor a list."""
EXTENDED: Final = ("clock", "payouts")
"""Nouns with methods written by hand, in _extended.py."""
HEADERS: Final = {"create_payout": {"scenario": "X-Sandbox-Scenario"}}
"""Headers of operations that are arguments of their methods."""
HEADER_TEXTS: Final = {"scenario": "The name of a scenario, instead of the one that the account number chooses."}
COMMON: Final = {"401", "406", "413", "415", "429", "500", "503"}
"""Statuses that any call can have; the docstrings do not repeat their codes."""
COMMON_CODES: Final = ("IDEMPOTENCY_KEY_", "INVALID_IDEMPOTENCY", "MISSING_IDEMPOTENCY", "MALFORMED_JSON", "VALIDATION_ERROR")


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


class Generator:
    """Reads the document and renders the client's generated files."""

    def __init__(self, document: Schema) -> None:
        self.document = document
        self.types = Types(document)
        self.model_roots = {"ProblemBody"}
        self.input_roots: set[str] = set()
        self.methods = [
            self._method(verb.upper(), path, operation)
            for path, item in document["paths"].items()
            for verb, operation in item.items()
            if verb != "parameters" and operation["operationId"] not in BY_HAND
        ]

    def files(self) -> dict[str, str]:
        """Return the text of each generated file by its path in the client's folder, before formatting."""
        by_noun: dict[str, list[Method]] = {}
        for method in self.methods:
            by_noun.setdefault(method.noun, []).append(method)
        found = {f"_generated/{noun or 'root'}.py": self._noun(noun, methods) for noun, methods in sorted(by_noun.items())}
        nouns = sorted(noun for noun in by_noun if noun)
        found["_generated/__init__.py"] = f'"""The methods of the client, by noun."""\n{HEADER}'
        found["_generated/nouns.py"] = self._nouns(nouns)
        found["models.py"] = self._models()
        found["inputs.py"] = self._inputs()
        found["problems.py"] = self._problems()
        return found

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
        hint = "str" if place == "path" else self.types.argument(schema)
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
        schema = self.types.resolve(entry["schema"])
        if method.media_type == "multipart/form-data":
            text = f"{schema['properties']['file']['description']} Bytes, text, or the path of a file."
            method.arguments.append(Argument("file", "file", "FileContent", "file", text, is_required=True, is_positional=True))
            return
        if method.media_type != "application/json":
            method.arguments.append(
                Argument("document", "", "Mapping[str, Any]", "whole", "", is_required=True, is_positional=True)
            )
            return
        self.input_roots.update(references(schema))
        if schema.get("type") == "array":
            hint = self.types.argument(schema)
            method.arguments.append(Argument("items", "", hint, "whole", "", is_required=True, is_positional=True))
            return
        method.body = "object"
        required = schema.get("required", [])
        for name, kind in schema.get("properties", {}).items():
            hint = self.types.argument(kind)
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
        found = self.types.resolve(schema)
        members = found["properties"]
        if {"data", "has_more", "next_cursor"} == set(members) and schema["$ref"].endswith("Page"):
            method.is_list, only = True, members["data"]["items"]
        elif len(members) == 1 and next(iter(members.values())).get("type") == "array":
            (method.member, only), *_ = members.items()
        else:
            only = schema
        method.result = self.types.result(only)
        self.model_roots.update(references(only))

    def _noun(self, noun: str, methods: list[Method]) -> str:
        title = class_name(noun) if noun else "Root"
        tags = dict.fromkeys(method.operation["tags"][0] for method in methods)
        texts = {tag["name"]: tag["description"] for tag in self.document["tags"]}
        text = wrap(" ".join(texts.get(tag, "") for tag in tags).strip()) if noun else "The methods of the client itself."
        lines = [quoted(text, 0), "", HEADER, *_imports("_generated")]
        for is_async in (False, True):
            caller = "AsyncCaller" if is_async else "Caller"
            lines += [f"class {'Async' if is_async else ''}{title}Api:", quoted(text, 4), ""]
            lines += [f"    def __init__(self, caller: {caller}) -> None:", "        self._caller = caller", ""]
            has_list = any(method.name == "list" for method in methods)
            for method in methods:
                lines += [self._render(method, is_async=is_async, qualify=has_list), ""]
        return "\n".join(lines)

    def _render(self, method: Method, *, is_async: bool, qualify: bool) -> str:
        positional = [a for a in method.arguments if a.is_positional]
        named = sorted((a for a in method.arguments if not a.is_positional), key=lambda a: not a.is_required)
        parts = ["self", *(a.declaration() for a in positional)]
        rest = [a.declaration() for a in named] + (["idempotency_key: str | None = None"] if method.takes_key else [])
        parts += ["*", *rest] if rest else []
        result = method.result
        if method.is_list:
            result = f"{'Async' if is_async else ''}Iterator[{method.result}]"
        if qualify:  # the class has a method `list`
            result = re.sub(r"\blist\[", "builtins.list[", result)
        prefix = "async def" if is_async and not method.is_list else "def"
        lines = [f"    {prefix} {method.name}({', '.join(parts)}) -> {result}:", self._docstring(method)]
        send = "self._caller.pages" if method.is_list else "await self._caller.send" if is_async else "self._caller.send"
        lead = "" if method.result == "None" else "return "
        lines.append(f"        {lead}{send}({self._call(method)})")
        return "\n".join(lines)

    def _call(self, method: Method) -> str:
        of = {
            place: [a for a in method.arguments if a.place == place] for place in ("query", "body", "file", "whole", "header")
        }
        path = re.sub(r"\{(\w+)\}", lambda match: f"{{segment({argument_name(match[1])})}}", method.path)
        parts = [
            "type(None)" if method.result == "None" else method.result,
            f'"{method.verb}"',
            f'{"f" * (path != method.path)}"{path}"',
        ]
        if of["query"]:
            parts.append(f"query=query({_mapping(of['query'])})")
        if method.body:
            nullable = [a for a in of["body"] if a.is_nullable]
            plain = [a for a in of["body"] if not a.is_nullable]
            parts.append(f"body=given({_mapping(plain)}{', ' + _mapping(nullable) if nullable else ''})")
        if of["whole"]:
            parts.append(f"body={of['whole'][0].name}")
            if method.media_type != "application/json":
                parts.append(f'media_type="{method.media_type}"')
        if of["file"]:
            parts.append("file=file")
        if of["header"]:
            parts.append(f"headers={_mapping(of['header'])}")
        if method.member:
            parts.append(f'member="{method.member}"')
        if any(a.name in ("timeout", "wait_seconds") for a in method.arguments):
            name = next(a.name for a in method.arguments if a.name in ("timeout", "wait_seconds"))
            parts.append(f"waits={name} or 0.0")
        if method.takes_key:
            parts.append("idempotency_key=idempotency_key or new_key()")
        if method.auth != "merchant":
            parts.append(f'auth="{method.auth}"')
        return f"Call({', '.join(parts)})"

    def _docstring(self, method: Method) -> str:
        operation = method.operation
        paragraphs = [operation["summary"].rstrip(".") + ".", operation.get("description", "")]
        if method.is_list:
            paragraphs.append("Requests each page when it is needed; `limit` is the number of items per page.")
        arguments = [a for a in method.arguments if a.text and not (method.is_list and a.name == "limit")]
        wrapped = [wrap(paragraph) for paragraph in paragraphs if paragraph]
        if arguments:
            wrapped.append("\n".join(wrap(f"{a.name}: {a.text}", "    ") for a in arguments))
        codes = [
            code
            for status, response in operation["responses"].items()
            if status >= "400" and status not in COMMON
            for code in response.get("$ref", "").rsplit("/", 1)[-1].split(".")[1:]
            if code != "stored" and not code.startswith(COMMON_CODES)
        ]
        if codes:
            wrapped.append(wrap(f"Raises {', '.join(class_name(code.lower()) for code in codes)}."))
        return quoted("\n\n".join(wrapped), 8)

    def _nouns(self, nouns: list[str]) -> str:
        texts = {noun_of(tag["name"]): tag["description"] for tag in reversed(self.document["tags"])}
        lines = ['"""The nouns of both clients. Each is loaded when it is first used."""', "", HEADER]
        lines += ["from functools import cached_property", "from typing import TYPE_CHECKING", ""]
        lines += ["from psp_sandbox.client._generated.root import AsyncRootApi, RootApi", "", "if TYPE_CHECKING:"]
        places = {noun: "_extended" if noun in EXTENDED else f"_generated.{noun}" for noun in nouns}
        for noun in nouns:
            lines.append(f"    from psp_sandbox.client.{places[noun]} import Async{class_name(noun)}Api, {class_name(noun)}Api")
        for prefix in ("", "Async"):
            lines += [
                "",
                "",
                f"class {prefix}Nouns({prefix}RootApi):",
                f'    """The nouns of {prefix}Client, and its own methods."""',
            ]
            for noun in nouns:
                name = f"{prefix}{class_name(noun)}Api"
                load = f"        from psp_sandbox.client.{places[noun]} import {name}"
                lines += ["", "    @cached_property", f'    def {noun}(self) -> "{name}":', quoted(texts[noun], 8)]
                lines += [load, "", f"        return {name}(self._caller)"]
        return "\n".join(lines) + "\n"

    def _models(self) -> str:
        lines = ['"""The results of calls: frozen dataclasses. Amounts are Decimal, times are datetime in UTC."""', "", HEADER]
        lines += ["from dataclasses import dataclass, field", "from datetime import datetime", "from decimal import Decimal"]
        lines += ["from typing import Any, Literal", "", self.types.aliases(), "", self.types.models(self.model_roots)]
        return "\n".join(lines)

    def _inputs(self) -> str:
        lines = ['"""The parts of requests, as typed dicts."""', "", HEADER, *_imports("inputs")]
        return "\n".join([*lines, self.types.inputs(self.input_roots)])

    def _problems(self) -> str:
        codes: dict[str, tuple[str, str]] = {}
        for name, response in self.document["components"]["responses"].items():
            for match in re.finditer(r"`([A-Z_]+)`: (.*)", response["description"]):
                codes.setdefault(match[1], (name.split(".")[0], match[2]))
        lines = [
            '"""One exception for each code of the API."""',
            "",
            HEADER,
            "from psp_sandbox.client.errors import ProblemError",
            "",
            "",
        ]
        for code in sorted(codes):
            status, text = codes[code]
            lines += [
                f"class {class_name(code.lower())}(ProblemError):",
                quoted(wrap(f"{code} ({status}): {text}"), 4),
                "",
                "",
            ]
        lines += [
            "BY_CODE: dict[str, type[ProblemError]] = {",
            *(f'    "{c}": {class_name(c.lower())},' for c in sorted(codes)),
            "}",
        ]
        return "\n".join(lines) + "\n"


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


def _imports(folder: str) -> list[str]:
    """Return all imports that a file can need. Ruff removes the others."""
    lines = ["import builtins", "from collections.abc import AsyncIterator, Iterator, Mapping, Sequence"]
    lines += ["from datetime import date, datetime", "from typing import Any, Literal, NotRequired, TypedDict", ""]
    names = "OMITTED, Amount, Call, FileContent, Omitted, given, new_key, query, segment"
    lines += [f"from psp_sandbox.client._calls import {names}"]
    return [*lines, "MODELS", ""]


def _mapping(arguments: list[Argument]) -> str:
    return "{" + ", ".join(f'"{a.wire}": {a.name}' for a in arguments) + "}"


def write(folder: Path) -> None:
    """Write the generated files into `folder`, formatted, and remove those of nouns that no longer exist."""
    generator = Generator(json.loads((ROOT / "openapi/openapi.json").read_text()))
    files = generator.files()
    models = re.findall(r"^(?:class )?(\w+)(?:\(|:| =)", files["models.py"], re.M)
    models = sorted({name for name in models if name[0].isupper()})
    for name, text in files.items():
        own = [f"from psp_sandbox.client.models import {', '.join(models)}"]
        if name.startswith("_generated"):
            own = [
                "from psp_sandbox.client._callers import AsyncCaller, Caller",
                "from psp_sandbox.client import inputs",
                *own,
            ]
        else:
            defined = set(re.findall("^class (.+?)[(:]", text, re.M))
            own = [f"from psp_sandbox.client.models import {', '.join(set(models) - defined)}"]
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("MODELS", "\n".join(own)))
    for path in (folder / "_generated").glob("*.py"):
        if f"_generated/{path.name}" not in files:
            path.unlink()
    paths = [str(folder / name) for name in files]
    for arguments in (["check", "--fix", "--select", "F401,I,UP"], ["format"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--quiet", "--config", str(ROOT / "pyproject.toml"), *paths]
        subprocess.run(command, check=True)  # noqa: S603 - our own command


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "psp_sandbox/client")
