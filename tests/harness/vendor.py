"""A vendor for tests: an HTTP server on loopback with a feed of transactions, and with faults that the test chooses."""

import json
import threading
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from tests.harness.loopback import LoopbackServer, QuietHandler

Fault = Literal["slow", "500", "429", "repeat", "break off", "short", "not json", "redirect", "huge", "drop"]
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row(number: int, kind: str = "earned", amount: object = "1.00", user: str = "074092", at: datetime | None = None) -> Any:
    """Return a row of a vendor's feed. Without `at`, row n is created one second after row n - 1."""
    created_at = (at or START + timedelta(seconds=number)).isoformat().replace("+00:00", "Z")
    return {"id": f"row-{number}", "userId": user, "createdAt": created_at, "type": kind, "amount": amount}


class Vendor:
    """Serves pages of `rows` in order. Each call uses up one of `faults`; None means a correct response."""

    def __init__(self, rows: list[Any] | None = None, faults: list[Fault | None] | None = None) -> None:
        self.rows: list[Any] = rows or []
        self.faults = deque(faults or [])
        self.calls: list[tuple[float, dict[str, str], dict[str, str]]] = []
        """Each received call: (Unix time of arrival, query, headers with names in lower case)."""
        self.released = threading.Event()
        vendor = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = dict(parse_qsl(urlsplit(self.path).query))
                vendor.calls.append((time.time(), query, {n.lower(): v for n, v in self.headers.items()}))
                fault = vendor.faults.popleft() if vendor.faults else None
                body = b"{}"
                status = {"500": 500, "429": 429, "redirect": 302}.get(str(fault), 200)
                if fault == "slow":
                    vendor.released.wait(30)
                if fault == "drop":
                    self.close_connection = True
                    return
                if status == 200:
                    body = vendor.page(query, fault)
                self.send_response(status)
                if fault == "429":
                    self.send_header("retry-after", "90")
                if fault == "redirect":
                    self.send_header("location", "/elsewhere")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if fault == "break off" else body)
                self.close_connection = True

        self._server = LoopbackServer(Handler)

    @property
    def url(self) -> str:
        """The URL of the transaction feed."""
        return f"{self._server.url}/vendor/v1/transactions"

    def page(self, query: dict[str, str], fault: Fault | None) -> bytes:
        """Return the page as JSON, or the body that the fault produces instead."""
        if fault == "not json":
            return b"<html>Back soon</html>"
        if fault == "huge":
            return b'{"items": [' + b" " * (3 * 1024 * 1024) + b"]}"
        since, number, limit = query.get("startDate"), int(query["page"]), int(query["limit"])
        found = list(self.rows)
        if since is not None:
            begin = datetime.fromisoformat(since)
            found = [r for r in found if datetime.fromisoformat(r["createdAt"]) >= begin]
        items = found[(number - 1) * limit : number * limit]
        if fault == "repeat":
            items = items + items[: len(items) // 2]
        if fault == "short":
            items = items[:-1]
        pages = -(-len(found) // limit)
        meta = {"totalItems": len(found), "itemCount": len(items), "itemsPerPage": limit, "totalPages": pages}
        return json.dumps({"items": items, "meta": {**meta, "currentPage": number}}).encode()

    def __enter__(self) -> "Vendor":
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.__exit__()
