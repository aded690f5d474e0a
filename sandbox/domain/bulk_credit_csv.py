"""The rows of a bulk credit's CSV file, `uuid,amount`, each looked at on its own. Pure but for the file that it reads."""

import csv
from collections.abc import Iterator
from typing import BinaryIO, Final

import msgspec

from sandbox.domain.errors import Problem, invalid
from sandbox.domain.ids import is_uuid
from sandbox.domain.money import InvalidAmountError, parse_amount

HEADER: Final = ["uuid", "amount"]
MOST_ROWS: Final = 1_000_000
_LONGEST_LINE: Final = 1000
_SKIPPED_AT_ONCE: Final = 64 * 1024
_SHOWN: Final = 100

PENDING: Final = "PENDING"
INVALID: Final = "INVALID"
DUPLICATE: Final = "DUPLICATE"


class Row(msgspec.Struct, frozen=True):
    """A line of the file: the texts as they will be shown, its status (PENDING, INVALID, DUPLICATE), and why."""

    line: int
    user_id: str
    amount: str
    status: str
    error: str | None


def read_rows(file: BinaryIO) -> Iterator[Row | None]:
    """The rows behind the header, None for each blank line: whoever reads many can pause, however the lines look.

    A row that is there twice, the same user and amount, is one credit and one duplicate. Raises VALIDATION_ERROR if there is
    no header, PAYLOAD_TOO_LARGE past MOST_ROWS, blank lines counted.
    """
    first = _read_line(file)
    header = first.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").strip()
    if len(first) > _LONGEST_LINE or [cell.strip().lower() for cell in _cells(header)] != HEADER:
        raise invalid("file", "must begin with the header uuid,amount")
    seen: dict[int, int] = {}
    number = 1
    while raw := _read_line(file):
        number += 1
        if number > MOST_ROWS + 1:
            raise Problem("PAYLOAD_TOO_LARGE", f"The file has more than {MOST_ROWS} rows, blank lines counted; split it.")
        text = raw.decode("utf-8", "replace").strip()
        if len(raw) > _LONGEST_LINE:
            # What was cut off may be part of the amount: nothing of the line counts.
            yield _invalid(number, [text], f"is longer than {_LONGEST_LINE} bytes")
        elif text:
            yield _row(number, text, seen)
        else:
            yield None


def _read_line(file: BinaryIO) -> bytes:
    """The next line with its end, cut behind one byte more than a line may have; empty at the end of the file."""
    line = rest = file.readline(_LONGEST_LINE + 1)
    while len(line) > _LONGEST_LINE and rest and not rest.endswith(b"\n"):
        rest = file.readline(_SKIPPED_AT_ONCE)
    return line


def _row(number: int, text: str, seen: dict[int, int]) -> Row:
    cells = _cells(text)
    if not cells:
        return _invalid(number, [text], "is not valid CSV: a quote is not closed, or text follows the closing quote")
    if len(cells) != 2:
        return _invalid(number, cells, f"must have two cells, uuid and amount, not {len(cells)}")
    user_id = cells[0].strip().lower()
    if not is_uuid(user_id):
        return _invalid(number, cells, "uuid: must be the id of a user")
    try:
        amount = str(parse_amount(b'"' + cells[1].strip().encode() + b'"'))
    except InvalidAmountError:
        return _invalid(number, cells, "amount: must be more than 0, at most 999999999999.99, with at most two decimal places")
    # One number for the user and the paisas keeps a million rows in some 100 MB.
    twin = int(user_id.replace("-", ""), 16) << 48 | int(amount.replace(".", ""))
    first = seen.setdefault(twin, number)
    status, error = (PENDING, None) if first == number else (DUPLICATE, f"is the same as line {first}")
    return Row(number, user_id, amount, status, error)


def _invalid(number: int, cells: list[str], error: str) -> Row:
    shown = [_shown(cell) for cell in cells[:2]] + ["", ""]
    return Row(number, shown[0], shown[1], INVALID, error)


def _cells(text: str) -> list[str]:
    """The cells of a line, as they stand there; none if its quotes do not add up."""
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error:
        return []


def _shown(cell: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in cell.strip()[:_SHOWN])
