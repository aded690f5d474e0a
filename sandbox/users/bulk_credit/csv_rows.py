"""Read a bulk credit's CSV file, with the columns `uuid,amount`, and validate each row. Pure: the caller opens it."""

import csv
from collections.abc import Iterator
from typing import BinaryIO, Final

import msgspec

from sandbox.domain.errors import Problem, invalid
from sandbox.domain.ids import is_uuid
from sandbox.domain.money import InvalidAmountError, parse_amount

HEADER: Final = ["uuid", "amount"]
MAX_ROWS: Final = 1_000_000
_MAX_LINE_LENGTH: Final = 1000
_SKIP_CHUNK_SIZE: Final = 64 * 1024
_SHOWN: Final = 100

PENDING: Final = "PENDING"
INVALID: Final = "INVALID"


class Row(msgspec.Struct, frozen=True):
    """A line of the file: its cells as the API shows them, its status (PENDING or INVALID), and the reason.

    `same_as_line` is the first earlier line with the same user and amount, if any. That does not affect the status.
    """

    line: int
    user_id: str
    amount: str
    status: str
    error: str | None
    same_as_line: int | None = None


def read_rows(file: BinaryIO) -> Iterator[Row | None]:
    """Yield the rows after the header, and None for a blank line, so that the caller can pause after any number of lines.

    Raises VALIDATION_ERROR if the header is missing, PAYLOAD_TOO_LARGE for more than MAX_ROWS lines, including blank ones.
    """
    first = _read_line(file)
    header = first.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").strip()
    if len(first) > _MAX_LINE_LENGTH or [cell.strip().lower() for cell in _cells(header)] != HEADER:
        raise invalid("file", "must begin with the header uuid,amount")
    first_lines: dict[int, int] = {}
    number = 1
    while raw := _read_line(file):
        number += 1
        if number > MAX_ROWS + 1:
            raise Problem("PAYLOAD_TOO_LARGE", f"The file has more than {MAX_ROWS} rows, including blank lines. Split it.")
        text = raw.decode("utf-8", "replace").strip()
        if len(raw) > _MAX_LINE_LENGTH:
            # The cut may fall inside the amount, so do not use any part of the line.
            yield _invalid(number, [text], f"is longer than {_MAX_LINE_LENGTH} bytes")
        elif text:
            yield _row(number, text, first_lines)
        else:
            yield None


def _read_line(file: BinaryIO) -> bytes:
    """Return the next line with its line end, cut one byte past the limit; empty at the end of the file."""
    line = rest = file.readline(_MAX_LINE_LENGTH + 1)
    while len(line) > _MAX_LINE_LENGTH and rest and not rest.endswith(b"\n"):
        rest = file.readline(_SKIP_CHUNK_SIZE)
    return line


def _row(number: int, text: str, first_lines: dict[int, int]) -> Row:
    cells = _cells(text)
    if not cells:
        return _invalid(number, [text], "is not valid CSV: a quote is not closed, or text follows the closing quote")
    if len(cells) != 2:
        return _invalid(number, cells, f"must have two columns, uuid and amount, not {len(cells)}")
    user_id = cells[0].strip().lower()
    if not is_uuid(user_id):
        return _invalid(number, cells, "uuid: must be the id of a user")
    try:
        amount = str(parse_amount(b'"' + cells[1].strip().encode() + b'"'))
    except InvalidAmountError:
        return _invalid(number, cells, "amount: must be more than 0, at most 999999999999.99, with at most two decimal places")
    # One integer for user and paisas: a million rows take about 100 MB.
    user_and_amount = int(user_id.replace("-", ""), 16) << 48 | int(amount.replace(".", ""))
    first = first_lines.setdefault(user_and_amount, number)
    return Row(number, user_id, amount, PENDING, None, None if first == number else first)


def _invalid(number: int, cells: list[str], error: str) -> Row:
    shown = [_shown(cell) for cell in cells[:2]] + ["", ""]
    return Row(number, shown[0], shown[1], INVALID, error)


def _cells(text: str) -> list[str]:
    """Return the cells of a line, or none if its quotes are unbalanced."""
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error:
        return []


def _shown(cell: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in cell.strip()[:_SHOWN])
