"""Arrange the money that moved between a merchant's accounts as arrows: a row for each pair of accounts of a day. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

from sandbox.domain.ledger import AVAILABLE, FUNDING, LOCKED, SETTLEMENT
from sandbox.server.console.charts import short_number
from sandbox.server.console.texts import money

MAX_DRAWN: Final = 7
"""How many days are drawn. The table has all."""
TOP: Final = 48
"""The height of the accounts' names."""
_DAY: Final = 24
_ROW: Final = 32
_THICKEST: Final = 9.0
_INSET: Final = 1.4
"""How far from an account's line an arrow's shaft begins and ends, in percent of the width."""
_NAMES: Final = {FUNDING: "Funding", AVAILABLE: "Available", LOCKED: "Locked", SETTLEMENT: "Settlement"}
"""The accounts in the order of their columns. Users' wallets are only in the table."""
_PLACES: Final = {account: 12.5 + 25 * number for number, account in enumerate(_NAMES)}
_LONGEST: Final = 12
"""The longest balance that fits between two columns on a phone."""
_TONES: Final = {(LOCKED, SETTLEMENT): "good", (SETTLEMENT, AVAILABLE): "bad", (LOCKED, AVAILABLE): "warn"}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """An account's column: `x` is its middle, in percent of the width."""

    name: str
    x: float
    balance: str


@dataclass(frozen=True, slots=True)
class Arrow:
    """The transfers from one account to another on a day. `x` and the like are in percent, `y` and `thickness` in pixels."""

    start: float
    end: float
    y: int
    thickness: float
    label: str
    text: str
    tone: str
    href: str

    @property
    def left(self) -> float:
        """The left end of the arrow."""
        return min(self.start, self.end)

    @property
    def length(self) -> float:
        """The length of the arrow."""
        return round(abs(self.end - self.start), 2)


@dataclass(frozen=True, slots=True)
class FlowChart:
    """A drawing. `days` are their names and heights."""

    columns: Sequence[Column]
    days: Sequence[tuple[str, int]]
    arrows: Sequence[Arrow]
    height: int


def flow_chart(days: Sequence[Row], balance: Row, settled: Decimal | None = None) -> FlowChart:
    """Return the drawing of days with their flows, newest first, of which at most MAX_DRAWN are drawn.

    `settled` is the balance of Settlement, if it is known.
    """
    drawn = [(day["day"], [flow for flow in day["flows"] if flow["from_account"] in _NAMES]) for day in days[:MAX_DRAWN]]
    largest = max((float(flow["amount"]) for _, flows in drawn for flow in flows), default=1.0)
    heads, arrows, y = [], [], TOP
    for day, flows in drawn:
        heads.append((day, y))
        in_order = sorted(flows, key=lambda flow: (_PLACES[flow["from_account"]], _PLACES[flow["to_account"]]))
        arrows += [_arrow(flow, day, y + _DAY + _ROW * number + _ROW - 12, largest) for number, flow in enumerate(in_order)]
        y += _DAY + _ROW * len(flows)
    balances = {AVAILABLE: _balance(balance["available_balance"]), LOCKED: _balance(balance["locked_balance"])}
    if settled is not None:
        balances[SETTLEMENT] = _balance(f"{settled:.2f}")
    columns = [Column(name, _PLACES[account], balances.get(account, "")) for account, name in _NAMES.items()]
    return FlowChart(columns, heads, arrows, y + 6)


def _balance(amount: str) -> str:
    text = money(amount)
    return text if len(text) <= _LONGEST else short_number(float(amount))


def paid_out(days: Sequence[Row]) -> Decimal:
    """Return what the bank was paid in these days, less what came back."""
    flows = [flow for day in days for flow in day["flows"]]
    received = sum((Decimal(flow["amount"]) for flow in flows if flow["to_account"] == SETTLEMENT), Decimal())
    return received - sum((Decimal(flow["amount"]) for flow in flows if flow["from_account"] == SETTLEMENT), Decimal())


def flow_rows(days: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the flows as the rows of a table."""
    return [{"day": day["day"], **flow} for day in days for flow in day["flows"]]


def _arrow(flow: Row, day: str, y: int, largest: float) -> Arrow:
    source, target = flow["from_account"], flow["to_account"]
    inset = _INSET if _PLACES[source] < _PLACES[target] else -_INSET
    following = (date.fromisoformat(day) + timedelta(days=1)).isoformat()
    count = f"{flow['count']} {'transfer' if flow['count'] == 1 else 'transfers'}"
    return Arrow(
        start=round(_PLACES[source] + inset, 2),
        end=round(_PLACES[target] - inset, 2),
        y=y,
        thickness=round(2 + (_THICKEST - 2) * math.sqrt(float(flow["amount"]) / largest), 1),
        label=short_number(float(flow["amount"])),
        text=f"{day}: {money(flow['amount'])} from {_NAMES[source]} to {_NAMES[target]} in {count}",
        tone=_TONES.get((source, target), "neutral"),
        href=f"/ledger?created_from={day}T00:00&created_to={following}T00:00",
    )
