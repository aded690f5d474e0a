"""The console's first page: what the merchant has, what happens, and nothing broken while there is nothing."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from sandbox.server.console.ended_sessions import Visitor
from sandbox.server.console.session import Session
from sandbox.server.console.view import CSV_PAGE_SIZE, MAX_CSV_PARTS, MAX_CSV_ROWS, MAX_PARTS, View
from tests.harness.browser import Browsing, check_width
from tests.harness.receiver import Receiver
from tests.harness.world import Stack, World


def test_an_empty_merchant_has_an_overview(stack: Stack, browsing: Browsing) -> None:
    with World.create(stack) as empty:
        page = browsing.open("/console", empty.api_key)
        page.get_by_text("No payouts yet.").wait_for()
        check_width(page)
        assert page.get_by_role("link", name="Create the first one.").get_attribute("href") == f"{empty.console}/payouts/new"


def test_the_overview_changes_live(world: World, receiver: Receiver, browsing: Browsing) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
    page = browsing.open("/console", world.api_key)
    page.locator("body[data-listening]").wait_for()
    world.create_payout("0007", amount="1500.00")
    page.locator("#table-failures").get_by_text("ACCOUNT_CLOSED").wait_for()
    page.locator("#table-events").get_by_text("payout.failed").wait_for()
    page.locator("#attempt-chart").get_by_text("3 attempts succeeded").wait_for()


def test_a_search_passes_over_a_bounded_number_of_parts_without_a_match_also_for_a_csv() -> None:
    async def rows_of(parts: list[list[dict[str, str]]], **query: str) -> tuple[int, str | None]:
        async def send(call: Any, _: Any) -> Any:
            at = int(call.query.get("cursor", "0"))
            data = {"data": parts[at], "next_cursor": str(at + 1) if at + 1 < len(parts) else None}
            return SimpleNamespace(is_success=True, data=data)

        calls = SimpleNamespace(send=send, operation=lambda _: SimpleNamespace(query=[SimpleNamespace(name="cursor")]))
        kit: Any = SimpleNamespace(calls=calls, commands=SimpleNamespace(of=lambda *_, **__: "command"), is_local=True)
        visitor = Visitor(Session(id="", csrf="", started=0, seen=0))
        view = View(kit, SimpleNamespace(), visitor, "/console", {}, query)  # type: ignore[arg-type]  # a stand-in
        table = await view.table("found", "Found", [], "list_payouts")
        return len(table.rows), table.next_cursor

    async def check() -> None:
        row = {"id": "1"}
        assert await rows_of([[], [], [row], [row]]) == (1, "3")
        assert await rows_of([[row], []]) == (1, "1")
        assert await rows_of([[]] * (MAX_PARTS + 5)) == (0, str(MAX_PARTS))
        assert await rows_of([[], []]) == (0, None)
        assert await rows_of([[]] * (MAX_CSV_PARTS + 5), csv="found") == (0, str(MAX_CSV_PARTS))
        assert await rows_of([[], [row], [], [row]], csv="found") == (2, None)
        full = MAX_CSV_ROWS // CSV_PAGE_SIZE
        assert await rows_of([[row] * CSV_PAGE_SIZE] * (full + 5), csv="found") == (MAX_CSV_ROWS, str(full))

    # While a browser is open, Playwright's event loop counts as running in this thread.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, check()).result()
