"""The first page of a merchant: balance, payouts, webhooks, what happens next and what just happened."""

import asyncio
from typing import Final

from sandbox.http.responses import Response
from sandbox.server.console.charts import bar_chart, line_chart, share
from sandbox.server.console.data_table import Column, Table
from sandbox.server.console.endpoint_health import COLUMNS as ENDPOINTS
from sandbox.server.console.endpoint_health import in_short
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
MAX_ENDPOINTS: Final = 5
"""How many endpoints the page shows, the sickest. The page of endpoints has all."""
DUE: Final = (
    Column("due_at", "Due", "time"),
    Column("description", "What", link="/webhooks/deliveries/{delivery_id}"),
    Column("payout_id", "Payout", "id", link="/payouts/{payout_id}"),
)
EVENTS: Final = (
    Column("created_at", "At", "time"),
    Column("type", "Event", "code", link="/webhooks/events/{id}"),
    Column("payout_id", "Payout", "id", link="/payouts/{payout_id}"),
)
BY_STATUS: Final = (
    Column("status", "Status", "status", link="/payouts?status={status}"),
    Column("count", "Payouts", "number"),
    Column("amount", "Amount", "money"),
)
FAILURES: Final = (
    Column("failure_code", "Failure code", "code", link="/catalogue"),
    Column("count", "Payouts", "number"),
    Column("amount", "Amount", "money"),
)
BALANCES: Final = (Column("at", "At", "time"), Column("available", "Available", "money"), Column("locked", "Locked", "money"))
ATTEMPTS: Final = (
    Column("at", "From", "time"),
    Column("succeeded", "Succeeded", "number"),
    Column("failed", "Failed", "number"),
    Column("latency.p50_ms", "p50 ms", "number"),
    Column("latency.p95_ms", "p95 ms", "number"),
)


@pages.page("")
async def overview(view: View) -> Response:
    """Show the merchant's statistics, and live what happens."""
    healths, clock, found, balance, due, events = await asyncio.gather(
        view.call("list_endpoint_health"),
        view.clock(),
        view.call("get_overview"),
        view.call("get_balance"),
        view.table("due", "What happens next", DUE, "list_due", empty="Nothing is scheduled.", limit=8),
        view.table("events", "Just happened", EVENTS, "list_events", empty="Nothing has happened yet.", limit=8),
    )
    payouts, attempts = found["payouts"], found["deliveries"]["attempts"]
    by_status = [row for row in payouts["by_status"] if row["count"]]
    most = max((row["count"] for row in by_status), default=0)
    points = found["balance"]["points"]
    return await view.render(
        "overview.html",
        overview=found,
        balance=balance,
        in_progress=[row for row in payouts["open"] if row["count"]],
        bars=[{**row, "length": share(row["count"], most, 300)} for row in by_status],
        balance_chart=line_chart(
            [row["at"] for row in points], [row["available"] for row in points], [row["locked"] for row in points]
        ),
        attempt_chart=bar_chart(
            [row["succeeded"] for row in attempts["buckets"]], [row["failed"] for row in attempts["buckets"]]
        ),
        endpoint_count=len(healths["data"]),
        tables=[
            Table(
                "endpoints", "Webhook endpoints, the sickest first", ENDPOINTS,
                [in_short(row, clock["now"]) for row in healths["data"][:MAX_ENDPOINTS]],
                "No endpoint yet, so no event is sent anywhere.",
            ),
            due,
            events,
            Table("by-status", "Payouts by status", BY_STATUS, by_status),
            Table("failures", "Failures", FAILURES, payouts["by_failure_code"], "No payout has failed."),
            Table("balance", "Balance over time", BALANCES, points),
            Table("attempts", "Delivery attempts over time", ATTEMPTS, attempts["buckets"], "No webhook has been sent yet."),
        ],
    )  # fmt: skip
