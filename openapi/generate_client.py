"""Write the Python client's methods, models and problems from openapi.json, into psp_sandbox/client.

Usage: python openapi/generate_client.py [FOLDER]. Without a folder, it also writes the operations of the command line.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import cli_operations
from client_methods import Argument, Method, Operations, class_name, noun_of
from client_types import Schema, Types, argument_name, model_name, quoted, wrap

ROOT: Final = Path(__file__).parent.parent
HEADER: Final = "# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.\n"
EXTENDED: Final = ("clock", "payouts")
"""Nouns with methods written by hand, in _extended.py."""
IMPORTS: Final = (
    "import builtins",
    "from collections.abc import AsyncIterator, Iterator, Mapping, Sequence",
    "from datetime import date, datetime",
    "from decimal import Decimal",
    "from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict",
    "from psp_sandbox.client._calls import OMITTED, Amount, Call, FileContent, Omitted, given, new_key, query, segment",
)
"""All imports that a file can need. Ruff removes the others."""
LAZY: Final = """
if not TYPE_CHECKING:  # it would hide misspelt names from type checkers

    def __getattr__(name: str) -> Any:
        # To define a dataclass takes a millisecond, so those that nobody uses are not loaded.
        if name in _MODULES:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
"""
COMMON: Final = {"401", "406", "413", "415", "429", "500", "503"}
"""Statuses that any call can have; the docstrings do not repeat their codes."""
COMMON_CODES: Final = ("IDEMPOTENCY_KEY_", "INVALID_IDEMPOTENCY", "MISSING_IDEMPOTENCY", "MALFORMED_JSON", "VALIDATION_ERROR")


class Generator:
    """Reads the document and renders the client's generated files."""

    def __init__(self, document: Schema) -> None:
        self.types = Types(document)
        self.operations = Operations(document, self.types)
        self.tags = {tag["name"]: tag["description"] for tag in document["tags"]}
        self.responses = document["components"]["responses"]
        needed = {noun: self.types.reachable(roots) for noun, roots in self.operations.models.items()}
        self.models = self.types.reachable({name for names in needed.values() for name in names})
        nouns = {name: [noun for noun in needed if name in needed[noun]] for name in self.models}
        self.places = {name: found[0] if len(found) == 1 else "shared" for name, found in nouns.items()}

    def files(self) -> dict[str, str]:
        """Return the text of each generated file by its path in the client's folder, before formatting."""
        by_noun: dict[str, list[Method]] = {}
        for method in self.operations.methods:
            by_noun.setdefault(method.noun, []).append(method)
        found = {
            f"_generated/{'async_' if is_async else ''}{noun or 'root'}.py": self._noun(noun, methods, is_async=is_async)
            for noun, methods in sorted(by_noun.items())
            for is_async in (False, True)
        }
        nouns = sorted(noun for noun in by_noun if noun)
        found["_generated/__init__.py"] = f'"""The methods of the client, by noun."""\n{HEADER}'
        found["_generated/nouns.py"] = self._nouns(nouns)
        found |= self._models()
        found["literals.py"] = self._literals()
        found["inputs.py"] = self._inputs()
        found["problems.py"] = self._problems()
        return found

    def _noun(self, noun: str, methods: list[Method], *, is_async: bool) -> str:
        title = class_name(noun) if noun else "Root"
        tags = dict.fromkeys(method.operation["tags"][0] for method in methods)
        text = wrap(" ".join(self.tags.get(tag, "") for tag in tags).strip()) if noun else "The methods of the client itself."
        lines = [quoted(text, 0), "", HEADER, *IMPORTS, "MODELS", ""]
        prefix = "Async" if is_async else ""
        lines += [f"class {prefix}{title}Api:", quoted(text, 4), ""]
        lines += [f"    def __init__(self, caller: {prefix}Caller) -> None:", "        self._caller = caller", ""]
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
        if self._is_own(method):
            result = f'"{result}"'
        prefix = "async def" if is_async and not method.is_list else "def"
        lines = [f"    {prefix} {method.name}({', '.join(parts)}) -> {result}:", self._docstring(method)]
        if self._is_own(method):
            # The client is made of these methods, and most programs call none of them.
            lines += [f"        from psp_sandbox.client.models import {method.result}", ""]
        send = "self._caller.pages" if method.is_list else "await self._caller.send" if is_async else "self._caller.send"
        lead = "" if method.result == "None" else "return "
        lines.append(f"        {lead}{send}({self._call(method)})")
        return "\n".join(lines)

    def _is_own(self, method: Method) -> bool:
        """Return whether a method is the client's own, with a result of its own."""
        return not method.noun and method.result in map(model_name, self.models)

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
            for code in self._codes_of(response)
            if not code.startswith(COMMON_CODES)
        ]
        if codes:
            wrapped.append(wrap(f"Raises {', '.join(class_name(code.lower()) for code in codes)}."))
        return quoted("\n\n".join(wrapped), 8)

    def _codes_of(self, response: dict[str, object]) -> list[str]:
        """Return the problem codes of a response that operations share."""
        shared = self.responses.get(str(response.get("$ref", "")).rpartition("/")[2], {})
        return list(shared.get("content", {}).get("application/problem+json", {}).get("examples", {}))

    def _nouns(self, nouns: list[str]) -> str:
        texts = {noun_of(tag): text for tag, text in reversed(self.tags.items())}
        lines = ['"""The nouns of both clients. Each is loaded when it is first used."""', "", HEADER]
        lines += ["from functools import cached_property", "from typing import TYPE_CHECKING", ""]
        lines += ["from psp_sandbox.client._generated.async_root import AsyncRootApi"]
        lines += ["from psp_sandbox.client._generated.root import RootApi", "", "if TYPE_CHECKING:"]
        imports = {
            (prefix, noun): f"from psp_sandbox.client.{'_extended' if noun in EXTENDED else f'_generated.{file}{noun}'} "
            f"import {prefix}{class_name(noun)}Api"
            for prefix, file in (("", ""), ("Async", "async_"))
            for noun in nouns
        }
        lines += [f"    {line}" for line in imports.values()]
        for prefix in ("", "Async"):
            lines += [
                "",
                "",
                f"class {prefix}Nouns({prefix}RootApi):",
                f'    """The nouns of {prefix}Client, and its own methods."""',
            ]
            for noun in nouns:
                name = f"{prefix}{class_name(noun)}Api"
                lines += ["", "    @cached_property", f'    def {noun}(self) -> "{name}":', quoted(texts[noun], 8)]
                lines += [f"        {imports[prefix, noun]}", "", f"        return {name}(self._caller)"]
        return "\n".join(lines) + "\n"

    def _models(self) -> dict[str, str]:
        """Return a module for each noun with the models that only it has, one with the others, and one that has them all."""
        found = {}
        for place in sorted(set(self.places.values())):
            names = [name for name in self.models if self.places[name] == place]
            lines = ['"""Results."""', "", HEADER, "from dataclasses import dataclass, field", *IMPORTS, "MODELS", ""]
            found[f"models/{place}.py"] = "\n".join([*lines, self.types.models(names)])
        found["models/__init__.py"] = self._all_models({model_name(name): place for name, place in self.places.items()})
        return found

    def _all_models(self, places: dict[str, str]) -> str:
        text = """The results of calls: frozen dataclasses. Amounts are Decimal, times are datetime in UTC."""
        lines = [quoted(text, 0), "", HEADER, "from typing import TYPE_CHECKING, Any", ""]
        lines += [f"from psp_sandbox.client.literals import {', '.join(self.types.alias_names())}", "", "if TYPE_CHECKING:"]
        for place in sorted(set(places.values())):
            names = [name for name in sorted(places) if places[name] == place]
            lines.append(f"    from psp_sandbox.client.models.{place} import {', '.join(names)}")
        lines += ["", f"_MODULES = {dict(sorted(places.items()))!r}", ""]
        lines += [f"__all__ = {sorted([*places, *self.types.alias_names()])!r}", "", LAZY]
        return "\n".join(lines)

    def _literals(self) -> str:
        lines = ['"""Names for the values that several fields have."""', "", HEADER, "from typing import Literal", ""]
        return "\n".join([*lines, self.types.aliases()])

    def _inputs(self) -> str:
        lines = ['"""The parts of requests, as typed dicts."""', "", HEADER, *IMPORTS, "MODELS", ""]
        return "\n".join([*lines, self.types.inputs(self.types.reachable(self.operations.inputs))])

    def _problems(self) -> str:
        codes: dict[str, tuple[str, str]] = {}
        for name, response in self.responses.items():
            for match in re.finditer(r"`([A-Z_]+)`: (.*)", response["description"]):
                codes.setdefault(match[1], (name.removeprefix("Problem")[:3], match[2]))
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


def _mapping(arguments: list[Argument]) -> str:
    return "{" + ", ".join(f'"{a.wire}": {a.name}' for a in arguments) + "}"


def write(folder: Path) -> None:
    """Write the generated files into `folder`, formatted, and remove those of nouns that no longer exist."""
    generator = Generator(json.loads((ROOT / "openapi/openapi.json").read_text()))
    files = generator.files()
    modules = {
        model: name.removesuffix(".py").replace("/", ".")
        for name, text in files.items()
        for model in re.findall(r"^class (\w+):" if name.startswith("models/") else r"^(\w+) = Literal", text, re.M)
    }
    for name, text in files.items():
        own = name.removesuffix(".py").replace("/", ".")
        imports = [f"from psp_sandbox.client.{module} import {model}" for model, module in modules.items() if module != own]
        if name.startswith("_generated"):
            imports += ["from psp_sandbox.client._callers import AsyncCaller, Caller", "from psp_sandbox.client import inputs"]
        if name in ("_generated/root.py", "_generated/async_root.py"):
            imports += ["if TYPE_CHECKING:", *(f"    {line}" for line in imports if ".models" in line)]
            imports = [line for line in imports if not line.startswith("from psp_sandbox.client.models")]
        elif name == "inputs.py":
            imports = [line for line in imports if ".literals" in line]
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("\nMODELS\n", "\n".join(["", *imports, ""])))
    for path in (path for part in ("_generated", "models") for path in (folder / part).glob("*.py")):
        if str(path.relative_to(folder)) not in files:
            path.unlink()
    paths = [str(folder / name) for name in files]
    for arguments in (["check", "--fix", "--select", "F401,I,UP"], ["format"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--quiet", "--config", str(ROOT / "pyproject.toml"), *paths]
        subprocess.run(command, check=True)  # noqa: S603 - our own command


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(Path(sys.argv[1]))
    else:
        write(ROOT / "psp_sandbox/client")
        cli_operations.write(ROOT / "sandbox/cli/operations.json")
