"""What a version promises: the terms of its API, read from its OpenAPI document, and a world bundle with every kind of row.

`python -m tests.harness.published VERSION` writes both into tests/published, where tests/test_published.py reads them.
"""

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.harness.full_world import fill_with_every_kind_of_row
from tests.harness.own_sandbox import start_sandbox
from tests.harness.supervised import end
from tests.harness.world import World

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "openapi/openapi.json"
FOLDER = ROOT / "tests/published"
Schema = dict[str, Any]
Terms = Mapping[str, frozenset[str]]
"""An operation, a schema, or `events` → its terms. A term that starts with `!` is a demand, all others are promises."""


def terms_of(document: Schema) -> Terms:
    """Return the terms of an OpenAPI document."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            found[f"{method.upper()} {path}"].update(_operation(document, operation))
    given = _given(document)
    for name, schema in document["components"]["schemas"].items():
        found[name].update(_schema(schema, "!" if name in given else "always "))
    found["events"].update(document["webhooks"])
    return {name: frozenset(terms) for name, terms in found.items()}


def broken(promised: Terms, now: Terms) -> list[str]:
    """Return what a later version breaks: promises that it does not keep, and new demands where there was no such demand.

    What is new altogether, such as an operation, may demand what it likes.
    """
    found = []
    for name, terms in promised.items():
        later = now.get(name)
        if later is None:
            found.append(f"{name} is gone")
            continue
        found += [f"{name}: no longer {term}" for term in sorted(terms - later) if not term.startswith("!")]
        found += [f"{name}: newly required {term[1:]}" for term in sorted(later - terms) if term.startswith("!")]
    return found


def read(path: Path) -> Terms:
    """Return the terms that a file has."""
    lines = (line.partition(": ") for line in path.read_text().splitlines())
    return {name: frozenset(terms.split("; ")) - {""} for name, _, terms in lines}


def _operation(document: Schema, operation: Schema) -> Iterator[str]:
    for given in operation.get("parameters", ()):
        parameter = _resolved(document, given)
        yield f"{parameter['in']} {parameter['name']}"
        if parameter.get("required"):
            yield f"!{parameter['in']} {parameter['name']}"
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield f"takes {_type(content.get('schema', {}))}"
    for status, given in operation["responses"].items():
        contents = _resolved(document, given).get("content", {}).values() if status.startswith("2") else ()
        yield from (f"{status} {_type(content.get('schema', {}))}" for content in contents)


def _schema(schema: Schema, required: str) -> Iterator[str]:
    yield from (f"= {value}" for value in schema.get("enum", ()))
    for name, described in schema.get("properties", {}).items():
        yield f"{name} {_type(described)}"
        yield from (f"{name} = {value}" for value in described.get("enum", ()))
    yield from (f"{required}{name}" for name in schema.get("required", ()))


def _given(document: Schema) -> set[str]:
    """Return the names of the schemas that clients send."""
    schemas = document["components"]["schemas"]
    found: set[str] = set()
    left = [operation.get("requestBody", {}) for path in document["paths"].values() for operation in path.values()]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            left += one.values()
            if (name := str(one.get("$ref", "")).rpartition("/")[2]) in schemas and name not in found:
                found.add(name)
                left.append(schemas[name])
    return found


def _type(schema: Schema) -> str:
    """Return a short name of a type: its reference, or its JSON types, format and items."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for name in ("oneOf", "anyOf", "allOf"):
        if name in schema:
            return "|".join(sorted(_type(one) for one in schema[name]))
    kinds = schema.get("type", "any")
    text = "|".join(sorted({kinds} if isinstance(kinds, str) else set(kinds)))
    text += f" {schema['format']}" if "format" in schema else ""
    return f"{text} of {_type(schema['items'])}" if "items" in schema else text


def _resolved(document: Schema, described: Schema) -> Schema:
    if "$ref" not in described:
        return described
    found: Any = document
    for name in described["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)


def bundle() -> str:
    """Return a world bundle of this version, one row of a table per line."""
    with tempfile.TemporaryDirectory() as name:
        process, stack = start_sandbox(Path(name), "--ephemeral")
        try:
            with World.create(stack, opening_balance="1000000.00", seed=11, frozen_at="2031-01-01T00:00:00.000Z") as world:
                fill_with_every_kind_of_row(world)
                text: str = world.get("/sandbox/v1/world").text
        finally:
            end(process)
    return text.replace("],[", "],\n[") + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    terms = terms_of(json.loads(DOCUMENT.read_text()))
    lines = (f"{name}: {'; '.join(sorted(terms[name]))}\n" for name in sorted(terms))
    (FOLDER / f"{sys.argv[1]}.txt").write_text("".join(lines))
    (FOLDER / f"{sys.argv[1]}.world.json").write_text(bundle())
