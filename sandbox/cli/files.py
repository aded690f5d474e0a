"""Read the files passed to commands: one JSON body, or many items as JSON or CSV."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import typer

from sandbox.cli.client import Output
from sandbox.cli.failures import refused
from sandbox.http import csv_items

_MAX_FILE_SIZE: Final = 64 * 2**20


def read_json(file: Path) -> Any:
    """Return the JSON of a file. Raises BadParameter."""
    try:
        return json.loads(_text(file))
    except ValueError as error:
        raise typer.BadParameter(f"{file} is not valid JSON: {error}") from error


def read_items(file: Path, field: str) -> list[Any]:
    """Return the items of a CSV or JSON file. JSON is a list, or an object with the list as `field`.

    Raises BadParameter.
    """
    if file.suffix.lower() == ".csv":
        return _rows(file)
    found = read_json(file)
    items = found.get(field) if isinstance(found, dict) and set(found) == {field} else found
    if not isinstance(items, list):
        raise typer.BadParameter(f'{file} must contain a list, or {{"{field}": list}}.')
    return items


def batch_output(found: dict[str, Any], field: str, line: Callable[[dict[str, Any]], str]) -> Output:
    """Format the results of a batch, one line per item. The command fails if an item was refused."""
    lines, bad = [], 0
    for number, result in enumerate(found["results"], 1):
        if "problem" in result:
            bad += 1
            lines.append(f"{number}: {result['status']} {result['problem']['code']}: {result['problem']['detail']}")
        else:
            lines.append(f"{number}: {line(result[field])}")
    failure = refused(f"{bad} of {len(found['results'])} items were refused.") if bad else None
    return Output(found, "\n".join(lines), failure)


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        return csv_items.read_items(_text(file))
    except ValueError as error:
        raise typer.BadParameter(f"{file}, {error}") from error


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _MAX_FILE_SIZE:
            raise typer.BadParameter(f"{file} is larger than {_MAX_FILE_SIZE // 2**20} MB.")
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}") from error
