"""Render the documentation pages from the OpenAPI document alone."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from sandbox.domain.errors import CODES
from sandbox.domain.scenario_engine import Catalogue, Scenario
from sandbox.http.code_spans import code_spans
from sandbox.http.curl import OPERATOR_KEY, curl, json_body, uploaded_file
from sandbox.server.docs.openapi import problem_example
from sandbox.server.docs.problem_notes import NOTES

Json = Mapping[str, Any]

_HERE: Final = Path(__file__).parent
_MAX_LISTED_CHOICES: Final = 12
"""Maximum number of choices to list. A longer list is shortened to its first five."""
_MAX_LISTED_OPERATIONS: Final = 60
"""Maximum number of operations to list on a problem's page."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A document with a page: the sandbox's own, or a dialect's."""

    title: str
    page: str
    document: str


NATIVE: Final = Reference("PSP Sandbox", "/docs", "/openapi.json")


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, or a field of a body."""

    name: str
    place: str
    kind: str
    required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the possible shapes of a request or response body."""

    title: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class DocumentedResponse:
    """A response other than the shared problem responses."""

    status: str
    phrase: str
    variants: tuple[Variant, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """An operation, prepared for the template."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[Field, ...]
    body: tuple[Variant, ...]
    example: str
    curl: str
    responses: tuple[DocumentedResponse, ...]
    errors: tuple[tuple[int, str, str], ...]
    """Status, code and title."""
    can_try: bool
    """Whether the page can send it: it needs no file, and its response ends."""


@dataclass(frozen=True, slots=True)
class ScenarioRow:
    """A scenario: its selection rule, its steps in words, and its failure code."""

    name: str
    chosen_by: str
    steps: str
    failure_code: str


def docs_page(document: Json, catalogue: Catalogue, others: Sequence[Reference] = ()) -> str:
    """Return the HTML of `/docs`, which leads to the pages of others."""
    return _reference_page(
        document,
        NATIVE,
        [NATIVE, *others],
        scenarios=[_scenario_row(scenario) for scenario in catalogue.scenarios],
        events=list(document["webhooks"]),
        webhook=_Reader(document).webhook("payout.succeeded"),
        codes=CODES,
    )


def dialect_page(document: Json, shown: Reference, choices: Sequence[Reference]) -> str:
    """Return the HTML of a dialect's page, which leads to those of all `choices`."""
    return _reference_page(document, shown, choices, webhook=None)


def _reference_page(document: Json, shown: Reference, choices: Sequence[Reference], **native: Any) -> str:
    reader = _Reader(document)
    groups: dict[str, list[Card]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append(reader.card(path, method, operation))
    return (
        _templates()
        .get_template("docs.html")
        .render(
            title=document["info"]["title"],
            shown=shown,
            choices=choices,
            key_header=next(iter(document["components"]["securitySchemes"].values()))["name"],
            version=document["info"]["version"],
            base_url=reader.base_url,
            intro=_paragraphs(document["info"]["description"]),
            groups=[(tag["name"], _anchor(tag["name"]), tag["description"], groups[tag["name"]]) for tag in document["tags"]],
            **native,
        )
    )


def problems_page() -> str:
    """Return the HTML of `/problems`."""
    return _templates().get_template("problems.html").render(title="Problems", codes=CODES)


def problem_page(code: str, document: Json, has_guide: Callable[[str], bool]) -> str:
    """Return the HTML of `/problems/{code}` for a code of CODES. `has_guide` says whether the guide has a page."""
    kind, note = CODES[code], NOTES[code]
    reader = _Reader(document)
    return (
        _templates()
        .get_template("problem.html")
        .render(
            title=code,
            code=code,
            kind=kind,
            phrase=HTTPStatus(kind.status).phrase,
            note=note,
            example=_example("application/json", problem_example(code, reader.base_url)),
            operations=reader.operations_with(code),
            guide=note.guide if has_guide(note.guide) else "",
        )
    )


def missing_page(is_built: bool) -> str:
    """Return the HTML for a page of the guide that does not exist, or for a guide that was not built."""
    return _templates().get_template("missing.html").render(title="Not found", is_built=is_built)


class _Reader:
    """Reads operations from a document and resolves its references."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self.base_url: str = document["servers"][0]["url"]

    def card(self, path: str, method: str, operation: Json) -> Card:
        """Return an operation, prepared for the template."""
        parameters = [self._resolve(parameter) for parameter in operation.get("parameters", ())]
        content = operation.get("requestBody", {}).get("content", {})
        no_body: tuple[str, Json] = ("", {})
        media_type, media = next(iter(content.items()), no_body)
        example = media.get("example")
        return Card(
            id=operation["operationId"],
            method=method.upper(),
            path=path,
            summary=operation["summary"],
            description=operation.get("description", ""),
            parameters=tuple(self._field(p["name"], p["schema"], p.get("required", False), p) for p in parameters),
            body=self.variants(media["schema"]) if media else (),
            example=_example(media_type, example),
            curl=self._curl(path, method, operation, media_type, example),
            responses=tuple(self._responses(operation["responses"])),
            errors=tuple(self._errors(operation["responses"])),
            can_try=not _is_form(media_type) and "text/event-stream" not in json.dumps(operation["responses"]),
        )

    def operations_with(self, code: str) -> list[tuple[str, str]]:
        """Return the operations that document a problem code: (id, summary). Empty if nearly all do."""
        operations = [operation for methods in self._document["paths"].values() for operation in methods.values()]
        found = [
            (operation["operationId"], operation["summary"])
            for operation in operations
            if any(code == other for _, other, _ in self._errors(operation["responses"]))
        ]
        return found if len(found) <= _MAX_LISTED_OPERATIONS else []

    def webhook(self, event: str) -> tuple[tuple[Field, ...], str]:
        """Return the headers and an example body of a webhook for one event type."""
        operation = self._document["webhooks"][event]["post"]
        headers = tuple(self._field(p["name"], p["schema"], p["required"], p) for p in operation["parameters"])
        return headers, _example("application/json", operation["requestBody"]["content"]["application/json"]["example"])

    def variants(self, schema: Json) -> tuple[Variant, ...]:
        """Return the variants of a schema: itself, or its `oneOf` options."""
        name = schema.get("$ref", "").rpartition("/")[2]
        schema = self._resolve(schema)
        if "oneOf" in schema:
            return tuple(variant for option in schema["oneOf"] for variant in self.variants(option))
        required = schema.get("required", ())
        fields = tuple(self._field(name, found, name in required, {}) for name, found in schema.get("properties", {}).items())
        return (Variant(name or self._kind(schema), fields),) if fields or name or schema else ()

    def _field(self, name: str, schema: Json, required: bool, parameter: Json) -> Field:
        described = parameter.get("description") or self._resolve(schema).get("description", "")
        return Field(name, parameter.get("in", ""), self._kind(schema), required, described)

    def _kind(self, schema: Json) -> str:
        """Describe a schema in a few words."""
        if "$ref" in schema:
            name = str(schema["$ref"]).rpartition("/")[2]
            return name.lower() if name in ("Amount", "Money") else name
        if "const" in schema:
            return json.dumps(schema["const"])
        if "enum" in schema:
            choices = ["null" if choice is None else str(choice) for choice in schema["enum"]]
            if len(choices) > _MAX_LISTED_CHOICES:
                return f"one of {', '.join(choices[:5])} … ({len(choices)} in all)"
            return "one of " + ", ".join(choices)
        if "anyOf" in schema or "oneOf" in schema:
            kinds = [self._kind(option) for option in schema.get("anyOf", schema.get("oneOf"))]
            return " or ".join(dict.fromkeys(kinds))
        kind = schema.get("type", "any")
        kinds = kind if isinstance(kind, list) else [kind]
        text = " or ".join(self._single_kind(k, schema) for k in kinds)
        return text + _bounds(schema)

    def _single_kind(self, kind: str, schema: Json) -> str:
        if kind == "array":
            return f"list of {self._kind(schema.get('items', {}))}"
        if kind == "string" and "format" in schema:
            return "time" if schema["format"] == "date-time" else str(schema["format"])
        return kind

    def _curl(self, path: str, method: str, operation: Json, media_type: str, example: Any) -> str:
        url = self.base_url + re.sub(r"{(\w+)}", lambda found: f"${found[1].upper()}", path)
        arguments = [self._key(name) for scheme in operation["security"][:1] for name in scheme]
        if any("idempotency-key" in p.get("$ref", "") for p in operation.get("parameters", ())):
            arguments.append(f'-H "X-IDEMPOTENCY-KEY: {operation["operationId"]}-$(date +%s)"')
        if _is_form(media_type):
            arguments += uploaded_file(media_type)
        elif example is not None:
            arguments += json_body(example)
        return curl(method.upper(), f'"{url}"', *arguments)

    def _key(self, scheme: str) -> str:
        header = self._document["components"]["securitySchemes"][scheme]["name"]
        return OPERATOR_KEY if header in OPERATOR_KEY else f'-H "{header}: $PSP_API_KEY"'

    def _responses(self, responses: Json) -> Iterator[DocumentedResponse]:
        for status, response in responses.items():
            if "$ref" not in response:
                media = next(iter(response.get("content", {}).values()), None)
                variants = self.variants(media["schema"]) if media and "schema" in media else ()
                yield DocumentedResponse(status, HTTPStatus(int(status)).phrase, variants)

    def _errors(self, responses: Json) -> Iterator[tuple[int, str, str]]:
        for response in responses.values():
            if "$ref" in response:
                media = next(iter(self._resolve(response)["content"].values()))
                for code in media["schema"]["properties"]["code"]["enum"]:
                    yield CODES[code].status, code, CODES[code].title

    def _resolve(self, found: Json) -> Json:
        while "$ref" in found:
            target: Any = self._document
            for part in found["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            found = target
        return found


def _example(media_type: str, example: Any) -> str:
    """Return an example as text: JSON, or the file of a form."""
    if example is None:
        return ""
    return str(example["file"]) if _is_form(media_type) else json.dumps(example, indent=2, ensure_ascii=False)


def _is_form(media_type: str) -> bool:
    return media_type.startswith("multipart/")


def _bounds(schema: Json) -> str:
    minimum = schema.get("minimum", schema.get("minLength", schema.get("minItems")))
    maximum = schema.get("maximum", schema.get("maxLength", schema.get("maxItems", schema.get("maxProperties"))))
    if minimum is None:
        return "" if maximum is None else f", at most {maximum}"
    return f", {minimum} or more" if maximum is None else f", {minimum} to {maximum}"


def _scenario_row(scenario: Scenario) -> ScenarioRow:
    states = ["PENDING"]
    for step in scenario.steps:
        seconds = int(step.after.total_seconds())
        states.append((f"({seconds} s) " if seconds else "") + step.to)
        if step.wait:
            states.append("(waits for a decision)")
    if not scenario.steps:
        states.append("(waits for a decision)")
    codes = [step.failure_code for step in scenario.steps if step.failure_code]
    match = scenario.match
    chosen_by = f"…{match.suffix}" if match.suffix else f"amount ≥ {match.amount_from}"
    return ScenarioRow(scenario.name, chosen_by, " → ".join(states).replace("→ (waits", "(waits"), ", ".join(codes))


def _anchor(text: str) -> str:
    return "tag-" + re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _paragraphs(text: str) -> list[str]:
    """Return the lines of a description without list markers; the template adds its own."""
    return [line.removeprefix("* ") for line in text.splitlines() if line.strip()]


@cache
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["code"] = code_spans
    # Our own file for a <style> element; escaping would break its selectors.
    found.globals["style"] = Markup((_HERE / "style.css").read_text(encoding="utf-8"))  # noqa: S704 -- our own file
    return found
