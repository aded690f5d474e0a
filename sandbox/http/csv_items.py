"""Read items, such as the payouts of a batch, from CSV. Pure."""

import csv
from typing import Any, Final

_FLAGS: Final = {"true": True, "false": False}


def read_items(text: str) -> list[dict[str, Any]]:
    """Return the rows of CSV with a header of field names. `metadata.order` is the field `order` of an object `metadata`.

    Empty cells are left out. Raises ValueError, with the line, if the text is not valid CSV.
    """
    reader = csv.DictReader(text.removeprefix("\ufeff").splitlines(), strict=True)
    items = []
    try:
        for row in reader:
            item: dict[str, Any] = {}
            for name, value in row.items():
                if name is None or value is None:
                    raise ValueError(f"line {reader.line_num}: the row and the header have different numbers of values.")
                if value:
                    outer, dot, inner = name.partition(".")
                    place, key = (item.setdefault(outer, {}), inner) if dot else (item, name)
                    place[key] = _FLAGS.get(value, value) if key == "requires_approval" else value
            items.append(item)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}.") from error
    return items
