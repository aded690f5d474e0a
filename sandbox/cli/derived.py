"""The commands that make one call and show its response. They are derived from the declarations of the operations.

`operations.json` is written from the OpenAPI document when the package is installed (`openapi/cli_operations.py`). An operation
whose command is not in a module of this folder gets one here: its arguments and options are those of the operation's line
(`sandbox/http/psp_line.py`), with the types, choices, limits and descriptions of the API's parameters and fields. A command of
a module can take the options that it does not name from there too.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from typer.models import OptionInfo

from sandbox.cli.app import App, Shown
from sandbox.cli.client import Client, Output, as_fields, as_table, with_client, with_operator
from sandbox.cli.dates import moment
from sandbox.cli.files import read_json
from sandbox.cli.filters import FILTER_HELP, filters
from sandbox.cli.options import BY_NAME, completion, multi_choice_option, pairs, path_part
from sandbox.cli.references import BY_PARAMETER, Reference
from sandbox.http.psp_line import FILE, REST, PspLine, Slot

Json = dict[str, Any]

_TYPES: Final[Mapping[str, type]] = {"integer": int, "number": float, "boolean": bool}
_METAVARS: Final = {"pairs": "KEY=VALUE", "filters": "FILTER", "list": "VALUE"}
"""Kind of an option that can be repeated → how the help writes its values."""
_LONG: Final = 200
"""The help shows only the first sentence of a description that is longer than this."""
_NAMES: Final = {REST: "file", "url": "target"}
"""Field → the name of its parameter, if that is not the field's: --url is the sandbox's."""
_WHOLE_BODY: Final[Json] = {
    "in": "body",
    "required": True,
    "description": "A JSON file with the body of the request.",
    "schema": {},
}


def add_derived(app: App, group: str) -> None:
    """Add the commands of a group that no module has."""
    written = {command.name for command in app.registered_commands}
    for words in operations():
        if words[0] == group and len(words) == 2 and words[1] not in written:
            app.command(words[1])(command_of(*words, shown=app.shown.get(words[1])))


@cache
def operations() -> Mapping[tuple[str, ...], Json]:
    """Return the operations that have a command, by the words of the command."""
    found = json.loads((Path(__file__).parent / "operations.json").read_text("utf-8"))
    return {tuple(PspLine(operation["line"]).words): operation for operation in found}


def command_of(*words: str, shown: Shown | None = None) -> Callable[..., None]:
    """Return the command with these words, as typer takes it. Raises KeyError if no operation has it."""
    operation = operations()[words]
    slots = {_name_of(slot): slot for slot in PspLine(operation["line"]).slots}

    def command(client: Client, **arguments: Any) -> Output:
        with client.waiting(shown.waiting) if shown is not None and shown.waiting else nullcontext():
            found = _call(client, operation, slots, arguments)
        if shown is not None:
            text = shown.text(found)
            return text if isinstance(text, Output) else Output(found, text)
        if operation["method"] == "DELETE":
            return _deleted(words[-1], *(arguments[name] for name in slots))
        return as_table(found, *operation["columns"]) if operation["columns"] else as_fields(found)

    client = inspect.Parameter("client", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Client)
    own = [_parameter(name, slot, _field(operation, slot)) for name, slot in slots.items()]
    command.__signature__ = inspect.Signature([client, *own])  # type: ignore[attr-defined]  # functions accept any attribute
    command.__name__ = words[-1].replace("-", "_")
    command.__doc__ = _escaped(f"{operation['help']} {shown.help if shown is not None else ''}".strip())
    return (with_operator if operation["is_operators"] else with_client)(command)


def with_options_of(*words: str) -> Callable[[Callable[..., Output]], Callable[..., Output]]:
    """Return a decorator that adds the options of the operation with these words to a command that has only some of them.

    The command gets the values of those that were given as `rest`, as fields of the body.
    """
    operation = operations()[words]

    def decorate(function: Callable[..., Output]) -> Callable[..., Output]:
        own = [parameter for parameter in inspect.signature(function).parameters.values() if parameter.name != "rest"]
        flags = set().union(*map(_flags, own))
        slots = {
            _name_of(slot): slot
            for slot in PspLine(operation["line"]).slots
            if slot.flag and slot.flag not in flags and _field(operation, slot)["in"] == "body"
        }

        @wraps(function)
        def command(client: Client, **arguments: Any) -> Output:
            given = {name: arguments.pop(name) for name in slots}
            return function(client, **arguments, rest=_parts(operation, slots, given)["body"])

        added = [_parameter(name, slot, _field(operation, slot)) for name, slot in slots.items()]
        command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]  # functions accept any attribute
        return command

    return decorate


def _flags(parameter: inspect.Parameter) -> set[str]:
    """Return the names of an option. typer's marker has the first of them as its default."""
    options = [marker for marker in getattr(parameter.annotation, "__metadata__", ()) if isinstance(marker, OptionInfo)]
    return {str(flag) for option in options for flag in (option.default, *(option.param_decls or ()))}


def _call(client: Client, operation: Json, slots: Mapping[str, Slot], arguments: Json) -> Any:
    """Make the call, and return the response's JSON; None if it has no body. Raises BadParameter if it would change nothing."""
    parts = _parts(operation, slots, arguments)
    method, url, body = operation["method"], operation["path"].format(**parts["path"]), parts["body"]
    if method == "GET":
        return client.get(url, **parts["query"])
    if method == "DELETE":
        return client.request_json(method, url)
    if method == "PATCH" and not body and any(field["in"] == "body" for field in operation["fields"].values()):
        raise typer.BadParameter("Give at least one option to change; see --help.")
    return client.write(method, url, body)


def _parts(operation: Json, slots: Mapping[str, Slot], arguments: Json) -> Json:
    """Return the path parameters, the query parameters and the body of the call."""
    parts: Json = {"path": {}, "query": {}, "body": {}}
    for name, slot in slots.items():
        if arguments[name] in (None, []):
            continue
        field = _field(operation, slot)
        value = _value(slot, arguments[name], field)
        if slot.field == REST:
            parts["body"] = value
        elif field["in"] == "query" and slot.kind == "pairs":
            parts["query"] |= {f"{slot.field}[{key}]": text for key, text in value.items()}
        else:
            parts[field["in"]][slot.field] = value
    return parts


def _escaped(text: str) -> str:
    """Return the text with its brackets escaped, so that rich does not take them for markup."""
    return text.replace("[", r"\[")


def _deleted(verb: str, id_: str) -> Output:
    done = f"{verb.removesuffix('e')}ed"
    return Output({done: id_}, f"{done.capitalize()} {id_}.")


def _name_of(slot: Slot) -> str:
    return _NAMES.get(slot.field, slot.field)


def _field(operation: Json, slot: Slot) -> Json:
    field: Json = _WHOLE_BODY if slot.field == REST else operation["fields"][slot.field]
    return field


def _parameter(name: str, slot: Slot, field: Json) -> inspect.Parameter:
    """Return the parameter of a command for an argument or an option."""
    reference = _reference(slot, field)
    kind, settings = _type_of(slot, field["schema"])
    default = _default(kind, slot, field)
    help_ = _help(name, slot, field, reference)
    if field["in"] == "query" and field["schema"].get("type") == "array":
        marker = multi_choice_option(slot.flag, _literal(field["schema"]["items"]), help_)
    else:
        settings |= {"callback": _callback(field, reference), "help": help_, **BY_NAME.get(slot.field, {})}
        marker = typer.Option(slot.flag, **settings) if slot.flag else typer.Argument(**settings)
    markers = (marker,) if reference is None else (marker, reference)
    annotation = kind | None if default is None else kind
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, *markers])


def _reference(slot: Slot, field: Json) -> Reference | None:
    """Return how to find the id of a thing that may be given by its owner's name, or None if the field is no such id."""
    found = BY_PARAMETER.get(slot.field) if field["schema"].get("format") == "uuid" else None
    return found if found is None or field["in"] == "path" else found.elsewhere()


def _callback(field: Json, reference: Reference | None) -> Callable[[str | None], str | None] | None:
    """Return what checks and converts a value."""
    if field["in"] == "path" and reference is None:
        return path_part
    return moment if field["schema"].get("format") == "date-time" else None


def _default(kind: Any, slot: Slot, field: Json) -> Any:
    """Return a parameter's default. One that only the API knows is None: then the command sends nothing."""
    if field["required"]:
        return inspect.Parameter.empty
    if field["in"] == "query":
        return field["schema"].get("default")
    return False if kind is bool and "/" not in slot.flag else None


def _type_of(slot: Slot, schema: Json) -> tuple[Any, Json]:
    """Return the type that typer parses, and the settings of the option or the argument that belong to it."""
    if slot.kind.startswith(FILE):
        return Path, {"dir_okay": False, "exists": True}
    if slot.kind in _METAVARS or schema.get("type") == "array":
        choices = schema.get("items", {}).get("enum", ())
        return list[str], {"metavar": _METAVARS.get(slot.kind), "autocompletion": completion(choices)}
    if slot.kind.endswith("-or-none"):
        return str, {}
    if "enum" in schema and slot.field not in BY_NAME:
        return _literal(schema), {}
    kind = _TYPES.get(schema.get("type", ""), str)
    return kind, {"min": schema.get("minimum"), "max": schema.get("maximum")} if kind in (int, float) else {}


def _literal(schema: Json) -> Any:
    return Literal.__getitem__(tuple(schema["enum"]))


def _help(name: str, slot: Slot, field: Json, reference: Reference | None) -> str:
    """Return the help of an argument or an option: the API's description, and how to write a value."""
    noun = name.removesuffix("_id").replace("_", " ")
    known = _escaped(field["description"]) or (f"The {noun}'s id." if name.endswith("_id") else f"The {noun}.")
    if len(known) > _LONG:
        known = known.partition(". ")[0] + "."
    if slot.kind == "filters":
        return FILTER_HELP
    if reference is not None:
        return reference.help if field["in"] == "path" else f"{known} By id or {reference.field}."
    if slot.kind.startswith(FILE) and slot.field != REST:
        return f"{known} A JSON file."
    return f"{known} Can be repeated." if slot.kind in _METAVARS else known


def _value(slot: Slot, given: Any, field: Json) -> Any:
    """Return the value that the API takes for what the user gave. Raises BadParameter."""
    if slot.kind.startswith(FILE):
        return read_json(given)
    if slot.kind == "pairs":
        return pairs(slot.flag, given)
    if slot.kind == "filters":
        return filters(given)
    if slot.kind == "list":
        choices = field["schema"]["items"].get("enum", ())
        return [_spelled(part.strip(), choices) for text in given for part in text.split(",")]
    if slot.kind.endswith("-or-none"):
        return None if given == "none" else _whole(slot.flag, given) if slot.kind.startswith("integer") else given
    return given


def _spelled(text: str, choices: list[str]) -> str:
    """Return the choice that equals the text, ignoring case; the API refuses any other text."""
    return next((choice for choice in choices if choice.lower() == text.lower()), text)


def _whole(flag: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{flag} must be a whole number, or none.") from None
