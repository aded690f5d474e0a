"""Many payouts with one request, from CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

from sandbox.domain.clock import parse, render
from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column, Table
from sandbox.server.console.forms import body_of
from sandbox.server.console.pages.payouts import drawn
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import PAGE_SIZE, View

pages = Pages()

FORM: Final = "payout-batch"
EXAMPLE: Final = """\
merchant_reference,amount,dest_type,bank_code,wallet_code,account_number,account_title,metadata.order
BATCH-1,1500.00,BANK,HBL,,12345678900001,AYESHA KHAN,17
BATCH-2,250.50,BANK,MCB,,12345678900007,ALI RAZA,18
BATCH-3,99.00,WALLET,,JAZZCASH,03001234560012,SANA MALIK,19
"""
COLUMNS: Final = (
    Column("row", "Row", "number"),
    Column("reference", "Reference", link="/payouts/{id}"),
    Column("amount", "Amount", "money"),
    Column("status", "Status", "status"),
    Column("problem", "Problem"),
)


@pages.page("/payouts/batch")
async def payout_batch(view: View) -> Response:
    """Show the form and, once it was submitted, the result of each row."""
    result = view.fields(FORM).result
    table, refused, created = None, "", []
    if result is not None and view.form is not None:
        items = body_of((name, value) for name, given in view.form.values.items() for value in given)["payouts"]
        rows = [_row(number, item, found) for number, (item, found) in enumerate(zip(items, result["results"], strict=True), 1)]
        # The rows to correct come first.
        rows.sort(key=lambda row: row["is_created"])
        table = Table("results", "Results", COLUMNS, rows)
        created = [found["payout"] for found in result["results"] if "payout" in found]
        refused = _csv([items[row["row"] - 1] for row in rows if not row["is_created"]])
    return await view.render(
        "payout_batch.html",
        tables=[] if table is None else [table],
        form_id=FORM,
        example=EXAMPLE,
        result=table,
        refused_csv=refused,
        drawing=await drawn(view, created[:PAGE_SIZE]),
        followed=_period(created),
    )


def _period(created: Sequence[Mapping[str, Any]]) -> str:
    """Return the query of the list that has the payouts that one request created, drawn; empty without any."""
    if not created:
        return ""
    times = sorted(payout["created_at"] for payout in created)
    end = render(parse(times[-1]) + timedelta(milliseconds=1))
    return urlencode({"created_from": times[0], "created_to": end, "drawn": "yes"})


def _csv(items: Sequence[Mapping[str, Any]]) -> str:
    """Return items as CSV; the opposite of `csv_items.read_items`."""
    rows = []
    for item in items:
        row: dict[str, Any] = {}
        for name, value in item.items():
            row |= {f"{name}.{key}": text for key, text in value.items()} if isinstance(value, dict) else {name: value}
        rows.append({name: str(value).lower() if isinstance(value, bool) else value for name, value in row.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(number: int, item: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of an item: the payout, or the errors."""
    if "payout" in found:
        payout = found["payout"]
        shown = {name: payout[name] for name in ("id", "amount", "status")}
        return {"row": number, "reference": payout["merchant_reference"], "problem": "", "is_created": True, **shown}
    problem = found["problem"]
    prefix = f"payouts[{number - 1}]."
    errors: Sequence[Mapping[str, str]] = problem.get("errors") or ()
    return {
        "row": number,
        "id": "",
        "reference": item.get("merchant_reference", ""),
        "amount": item.get("amount", ""),
        "status": "REFUSED",
        "problem": "; ".join(f"{error['field'].removeprefix(prefix)}: {error['message']}" for error in errors)
        or f"{problem['detail']} ({problem['code']})",
        "is_created": False,
    }
