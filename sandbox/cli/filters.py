"""Parse the `--filter` options of webhook endpoints: `FIELD OPERATOR VALUE`, or the API's JSON."""

import json
from typing import Annotated, Any, Final, get_args

import typer

from sandbox.domain.enumerations import FilterOperator

FILTER_HELP: Final = (
    "Send only events for which this holds, such as 'data.amount gte 1000', 'data.bank_code in HBL,MCB' or "
    "'data.failure_code exists'. Also accepts the API's JSON. Can be repeated; all must hold; `none` removes all filters."
)
FilterOptions = Annotated[list[str] | None, typer.Option("--filter", metavar="FILTER", help=FILTER_HELP)]


def filters(given: list[str] | None) -> list[Any] | None:
    """Return the filters as the API takes them, and an empty list for `none`. Raises BadParameter."""
    if given == ["none"]:
        return []
    return [one for text in given or [] for one in _parse(text)] or None


def _parse(text: str) -> list[Any]:
    if text.lstrip().startswith(("{", "[")):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise typer.BadParameter(f"--filter is not valid JSON: {error}.") from None
        return found if isinstance(found, list) else [found]
    field, operator, value = [*text.split(None, 2), "", "", ""][:3]
    if operator not in get_args(FilterOperator):
        raise typer.BadParameter(
            f"--filter must be FIELD OPERATOR VALUE; OPERATOR is one of {', '.join(get_args(FilterOperator))}."
        )
    if operator == "in":
        values = _value(value) if value.startswith("[") else [_value(one.strip()) for one in value.split(",")]
        return [{"field": field, "op": operator, "value": values}]
    return [{"field": field, "op": operator, **({"value": _value(value)} if value else {})}]


def _value(text: str) -> Any:
    """Parse JSON, and return anything else, such as 0012 or HBL, as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
