"""Tables of a page: their columns, and their rows as cells or as CSV. Pure."""

import csv
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, Final, Literal
from urllib.parse import quote

Kind = Literal["text", "id", "money", "number", "status", "time", "journal_time", "code", "url", "list"]
"""How a cell is shown. Money and numbers are aligned on the right; an id can be copied; a URL is broken anywhere.

`time` is the merchant's, `journal_time` that of the journal."""
Row = Mapping[str, Any]

_FORMULA: Final = ("=", "+", "-", "@")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the field that it shows (dots for nested fields), its heading, and the page that its cells link to."""

    field: str
    heading: str
    kind: Kind = "text"
    link: str = ""
    """A page of the merchant with fields in braces, such as `/payouts/{payout_id}`. No link if one of them is empty."""
    is_csv_only: bool = False
    """Whether only the CSV has the column: the page shows the same in another way, such as an id as a link."""
    value: Callable[[Row], Any] | None = None
    """Computes the cell if it is not simply a field."""

    def cell(self, row: Row) -> Any:
        """Return the value that the cell shows; None for an empty cell."""
        return value_at(row, self.field) if self.value is None else self.value(row)

    def href(self, row: Row, home: str) -> str:
        """Return the path that the cell links to, or an empty string. `home` is the path of the merchant's first page."""
        if not self.link:
            return ""
        start, *rest = self.link.split("{")
        path = home + start
        for part in rest:
            name, _, text = part.partition("}")
            value = value_at(row, name)
            if value is None or value == "":
                return ""
            path += quote(str(value), safe="") + text
        return path


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its rows. `name` is unique in the page, and names the CSV file."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    empty: str = "Nothing here yet."
    """The text if there are no rows: what to do then."""
    next_cursor: str | None = None
    is_cut: bool = False
    """Whether the CSV leaves out rows because there are too many."""

    def csv(self) -> str:
        """Return the table as CSV with a header. Cells that a spreadsheet would run as a formula begin with an apostrophe."""
        text = StringIO()
        writer = csv.writer(text)
        writer.writerow([column.heading for column in self.columns])
        for row in self.rows:
            writer.writerow([_csv_cell(column, row) for column in self.columns])
        if self.is_cut:
            writer.writerow([f"Cut after {len(self.rows)} rows: use a filter, or the API."])
        return text.getvalue()


def value_at(row: Any, path: str) -> Any:
    """Return a nested field, such as `destination.bank_code`; None if any part is missing."""
    for name in path.split("."):
        if not isinstance(row, Mapping):
            return None
        row = row.get(name)
    return row


def _csv_cell(column: Column, row: Row) -> str:
    value = column.cell(row)
    if value is None:
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"'{text}" if column.kind not in ("money", "number") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    """Return whether a spreadsheet could run a text. Some skip invisible characters and read full-width signs."""
    visible = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c)[0] not in "ZC")
    return next(visible, "") in _FORMULA or text.startswith(("\t", "\r"))
