"""Threads: one for each request, and one that sweeps. It compares clocks every minute, and looks whether the time is over."""

import asyncio
import http.client
import http.server
import json
import os
import ssl
import threading
import time
import urllib.request
from datetime import datetime
from typing import Any

import asyncpg

SWEEP = int(os.environ["SWEEP_SECONDS"])


def call(path: str, body: dict[str, str] | None = None) -> Any:
    headers = {"X-API-KEY": os.environ["PSP_API_KEY"], "content-type": "application/json"}
    if body is not None:
        headers["X-IDEMPOTENCY-KEY"] = body["merchant_reference"]
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["PSP_URL"] + path, data, headers)  # noqa: S310 (the sandbox's URL)
    return json.load(urllib.request.urlopen(request, timeout=10))  # noqa: S310 (the same)


def sweep() -> None:
    due = time.time() + SWEEP
    compared, apart = 0, 0.0
    while True:
        time.sleep(60)
        now = time.time()
        sandbox = datetime.fromisoformat(call("/sandbox/v1/clock")["now"])
        compared, apart = compared + 1, max(apart, abs(now - sandbox.timestamp()))
        if now < due:
            continue
        bank = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
        call("/api/v1/payouts", {"merchant_reference": f"swept-{now:.3f}-{compared}-{apart:.3f}", "amount": "5.00", **bank})
        due += SWEEP


class Work:
    """A pool of database connections on an event loop, and a TLS connection for each thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._pool = asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result()
        self._trusted = ssl.create_default_context(cafile=os.environ["UPSTREAM_CA"])

    async def _connect(self) -> "asyncpg.Pool[Any]":
        return await asyncpg.create_pool(min_size=0, max_size=4, timeout=10, command_timeout=10, ssl=False)

    def __call__(self) -> bytes:
        asyncio.run_coroutine_threadsafe(self._pool.execute("SELECT pg_sleep(0.02)"), self._loop).result(10)
        upstream = os.environ["UPSTREAM"].removeprefix("https://").rstrip("/")
        connection = http.client.HTTPSConnection(upstream, timeout=10, context=self._trusted)
        connection.request("GET", "/")
        return connection.getresponse().read()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            if self.path == "/clocks":
                self._answer(200, f"{time.time():.6f} {time.monotonic():.6f}".encode())
            else:
                self._answer(200, work() if self.path == "/work" else b"")
        except Exception as error:
            self._answer(500, repr(error).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


work = Work() if "UPSTREAM" in os.environ else bytes
threading.Thread(target=sweep, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
