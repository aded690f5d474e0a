"""A merchant for a single test, used over HTTP as an integrator would."""

import asyncio
import atexit
import functools
import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import asyncpg
import httpx

from tests.harness.waiting import until

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Stack:
    """A running sandbox: its URLs, keys and stores, as in its ready file."""

    api_url: str
    ipn_url: str
    console_url: str
    api_key: str
    member_api_key: str
    admin_key: str
    merchant_id: str
    webhook_secret: str
    ipn_secret: str
    database_url: str
    redis_url: str

    def execute(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        """Run SQL as the owner of the database, bypassing the application, and return its rows."""
        return owner_of(self.database_url).execute(statement, *arguments)


class _Owner:
    """A connection as the owner of the database. It stays open, because connecting costs more than most statements."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        # Of its own, because the caller's thread may run an event loop: that of a test, or of Playwright.
        self._thread = ThreadPoolExecutor(1)
        self._loop = asyncio.new_event_loop()
        self._conn: asyncpg.Connection[asyncpg.Record] | None = None
        atexit.register(self._close)

    def execute(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        """Run a statement and return its rows. Reconnects if the connection was lost."""
        return self._thread.submit(lambda: self._loop.run_until_complete(self._execute(statement, *arguments))).result()

    async def _execute(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        if self._conn is not None:
            try:
                await self._conn.fetchval("SELECT 1")
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                self._conn.terminate()
                self._conn = None
        if self._conn is None:
            # Tests alter tables, after which PostgreSQL rejects statements that were prepared earlier.
            self._conn = await asyncpg.connect(self._url, statement_cache_size=0)
        return [dict(record) for record in await self._conn.fetch(statement, *arguments)]

    def _close(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
        self._loop.close()


@functools.cache
def owner_of(database_url: str) -> _Owner:
    """Return a connection to the database as its owner, which this process shares."""
    return _Owner(database_url)


class World:
    """A merchant, its keys and secrets, and an HTTP client with its admin API key."""

    def __init__(self, stack: Stack, created: dict[str, Any]) -> None:
        self.stack = stack
        self.merchant_id: str = created["merchant_id"]
        self.api_key: str = created["api_key"]
        self.webhook_secret: str = created["webhook_secret"]
        self.ipn_secret: str = created["ipn_secret"]
        self.client = httpx.Client(base_url=stack.api_url, headers={"X-API-KEY": self.api_key}, timeout=60)

    @property
    def console(self) -> str:
        """The path of its first page in the console."""
        return f"/console/m/{self.merchant_id}"

    @classmethod
    def create(cls, stack: Stack, **body: Any) -> "World":
        """Create a merchant. `body` has further fields for `POST /sandbox/v1/merchants`."""
        response = httpx.post(
            f"{stack.api_url}/sandbox/v1/merchants",
            json={"name": "test", **body},
            headers={"X-ADMIN-KEY": stack.admin_key},
            timeout=60,
        )
        assert response.status_code == 201, response.text
        return cls(stack, response.json())

    def post(self, path: str, body: Any = None, key: str | None = None, **options: Any) -> httpx.Response:
        """Send a POST with an idempotency key: `key`, or a new one."""
        headers = {"X-IDEMPOTENCY-KEY": key or str(uuid.uuid4()), **options.pop("headers", {})}
        return self.client.post(path, json={} if body is None else body, headers=headers, **options)

    def patch(self, path: str, body: Any = None, key: str | None = None) -> httpx.Response:
        """Send a PATCH with an idempotency key: `key`, or a new one."""
        return self.client.patch(
            path, json={} if body is None else body, headers={"X-IDEMPOTENCY-KEY": key or str(uuid.uuid4())}
        )

    def get(self, path: str, **params: Any) -> httpx.Response:
        """Send a GET with these query parameters."""
        # httpx drops the query of the path if `params` is an empty mapping.
        return self.client.get(path, params=params or None)

    def payout_body(self, suffix: str = "0001", **fields: Any) -> dict[str, Any]:
        """Return the body to create a payout to an account with this suffix, which selects the scenario."""
        return {
            "merchant_reference": f"ref-{next(_numbers)}-{uuid.uuid4().hex[:8]}",
            "amount": "100.00",
            "dest_type": "BANK",
            "bank_code": "HBL",
            "account_number": f"1234567890{suffix}",
            **fields,
        }

    def create_payout(self, suffix: str = "0001", **fields: Any) -> dict[str, Any]:
        """Create a payout and return it. Fails unless the response is 201."""
        response = self.post("/api/v1/payouts", self.payout_body(suffix, **fields))
        assert response.status_code == 201, response.text
        created: dict[str, Any] = response.json()
        return created

    def payout(self, payout_id: str) -> dict[str, Any]:
        """Return the payout's current state."""
        found: dict[str, Any] = self.get(f"/api/v1/payouts/{payout_id}").json()
        return found

    def wait_for(self, payout_id: str, *statuses: str, seconds: float = 30) -> dict[str, Any]:
        """Wait until the payout has one of these statuses, and return it."""
        return until(lambda: (p := self.payout(payout_id))["status"] in statuses and p, seconds) or {}

    def path_of(self, payout_id: str) -> list[str]:
        """Return the payout's statuses from its timeline, in order."""
        return [entry["to"] for entry in self.get(f"/api/v1/payouts/{payout_id}/timeline").json()["data"]]

    def balance(self) -> tuple[str, str]:
        """Return the available and the locked balance."""
        found = self.get("/api/v1/balance").json()
        return found["available_balance"], found["locked_balance"]

    def shift_clock(self, seconds: float) -> None:
        """Move the merchant's clock forward by changing the database, without running due work."""
        self.stack.execute(
            "UPDATE worlds SET clock_offset = clock_offset + make_interval(secs => $2) WHERE merchant_id = $1",
            self.merchant_id,
            seconds,
        )

    def assert_clean(self) -> None:
        """Fail unless every check of the audit passes."""
        report = self.get("/sandbox/v1/audit").json()
        assert report["ok"], [check for check in report["checks"] if not check["ok"]]

    def __enter__(self) -> "World":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.client.close()
