"""Start receiver tests, run them in the background, and show what they found.

A test runs in the process that accepted it, and stores its findings as it goes, so every process can show its progress. If that
process dies, its heartbeats stop, and the test is shown as failed. The secret is only kept in memory, while the test runs.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
from tenacity import stop_after_attempt

from sandbox.domain.clock import truncate
from sandbox.domain.errors import Problem
from sandbox.domain.fields import Uuid
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.http.operation import PAGE, get, post
from sandbox.http.paging import Page, PageWindow, page
from sandbox.http.responses import Response
from sandbox.infrastructure.backoff import backoff
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, RETRYABLE, connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.large_work import Turns
from sandbox.infrastructure.live_feed import Note
from sandbox.infrastructure.outages import Outage
from sandbox.infrastructure.tasks import end_tasks
from sandbox.unit_of_work.claim import RESERVE_NO_IDS
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.transaction import write_rows
from sandbox.webhooks.outbound.address_guard import Network
from sandbox.webhooks.outbound.sender import WebhookSender
from sandbox.webhooks.receiver_tests.checks import NAMES
from sandbox.webhooks.receiver_tests.events import WireFormat
from sandbox.webhooks.receiver_tests.judges import Limits
from sandbox.webhooks.receiver_tests.junit import junit
from sandbox.webhooks.receiver_tests.requests import ReceiverTestBody, check_receiver_test, receiver_test_errors
from sandbox.webhooks.receiver_tests.results import (
    StoredFinding,
)
from sandbox.webhooks.receiver_tests.runner import ReceiverRun, Target, new_id, target_of
from sandbox.webhooks.receiver_tests.views import ListedReceiverTest, ReceiverTest, TestStatus, to_listed_test, to_test, verdict

MAX_RUNNING: Final = 2
"""Maximum tests of a merchant that one process runs at a time."""
MAX_RUNNING_IN_PROCESS: Final = 16
_SENDING_SLOTS: Final = 2
"""How many of these may send at a time, each for a different merchant. A test's bursts occupy the event loop."""
KEPT: Final = 100
"""How many tests are kept per merchant."""
_SAVE_SECONDS: Final = 0.2
_HEARTBEAT_SECONDS: Final = 2.0
_SAVE_ATTEMPTS: Final = 20
_MAX_SAVE_PAUSE: Final = 5.0
_CLOSE_SECONDS: Final = 2.0
_log = structlog.get_logger()

_SQL: Final = read_statements(__name__)

_XML: Final = "application/xml"
_LINKS: Final = {"get": ("get_receiver_test", "test_id"), "junit": ("get_receiver_test_junit", "test_id")}


class ReceiverTestService:
    """Starts and shows receiver tests."""

    def __init__(
        self,
        work: UnitOfWorkRunner,
        allowed_networks: Sequence[Network],
        on_progress: Callable[[str, Sequence[Note]], None],
        formats: Mapping[str, WireFormat],
    ) -> None:
        """`allowed_networks` are the private networks in which receivers and probes may be.

        `on_progress` receives the merchant and a note for the live feed after each check and at the end. `formats` maps
        each signing whose events are not native to their format.
        """
        self._work = work
        self._allowed = tuple(allowed_networks)
        self._on_progress = on_progress
        self._formats = formats
        self._limits = Limits()
        self._sender: WebhookSender | None = None
        self._running: Counter[str] = Counter()
        self._turns = Turns(_SENDING_SLOTS)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Create the sender. Call it inside the event loop."""
        # A separate sender, which waits longer for answers than a delivery does, so that a late answer can be told from none.
        self._sender = WebhookSender(self._allowed, timeout=self._limits.give_up)

    async def close(self) -> None:
        """End the running tests, and store that they were interrupted."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
        await end_tasks(*self._tasks)
        if self._sender is not None:
            await self._sender.close()

    def running(self, merchant_id: str) -> int:
        """Return how many tests of the merchant this process is running."""
        return self._running[merchant_id]

    def _check(self, fields: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the validation errors in a test's fields that its schema cannot express."""
        return receiver_test_errors(fields, self._allowed)

    @post(
        "/sandbox/v1/receiver-tests",
        "Test a webhook receiver",
        {202: ReceiverTest},
        ReceiverTestBody,
        links=_LINKS,
        check=_check,
        example={
            "url": "http://127.0.0.1:9/webhooks",
            "secret": "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "probe_url": "http://127.0.0.1:9/probe",
        },
        description="Sends valid, damaged, repeated and late webhooks, and bursts of them, to your receiver, and judges its "
        "answers. It runs in the background; each finished check is an event `receiver_test.progressed` in the stream. A "
        "receiver accepts with 2xx and refuses with 4xx. `probe_url` shows the effects: it answers `GET "
        'probe_url?payout_id=...` with `{"status": "SUCCESS", "applied": 1}`, the receiver\'s state of that payout (null if '
        "unknown) and how many events it acted on. Without it, checks of effects are skipped. The payouts are made up. "
        "`secret` is the secret that the receiver verifies with (for `v1a` the private key, `whsk_`); it is not stored.",
        psp="certify {url} --secret! {secret} --custom-signing {custom_signing:file=signing.json}",
    )
    async def create_receiver_test(self, context: RequestContext, body: ReceiverTestBody) -> CommandResult:
        """Start a test. Responds with 202 and the ReceiverTest. Raises VALIDATION_ERROR.

        Raises RATE_LIMITED if the merchant or the process has too many running tests.
        """
        check_receiver_test(body, self._allowed)
        merchant_id = context.merchant_id
        if self.running(merchant_id) >= MAX_RUNNING or self._running.total() >= MAX_RUNNING_IN_PROCESS:
            raise Problem(
                "RATE_LIMITED",
                f"At most {MAX_RUNNING} receiver tests per merchant and {MAX_RUNNING_IN_PROCESS} in all run at a time; "
                "wait for one to finish.",
                headers={"Retry-After": "2"},
            )
        test_id = new_id()

        async def action(conn: Connection, _: UnitOfWork) -> CommandResult:
            now = truncate(datetime.now(UTC))
            record = await conn.fetchrow(_SQL["insert"], merchant_id, test_id, body.url, body.probe_url, body.signing, now)
            assert record is not None
            await conn.execute(_SQL["delete_old"], merchant_id, KEPT)
            return CommandResult(202, msgspec.json.encode(to_test(record)), f"/sandbox/v1/receiver-tests/{test_id}")

        self._running[merchant_id] += 1
        begun = False
        try:
            result = await self._work.run(context, action, RESERVE_NO_IDS)
            if result.status == 202 and not result.replayed:
                self._begin(merchant_id, test_id, target_of(body, self._formats))
                begun = True
        finally:
            if not begun:
                self._end(merchant_id)
        return result

    @get(
        "/sandbox/v1/receiver-tests",
        "List receiver tests, newest first",
        {200: list[ListedReceiverTest]},
        query=PAGE,
        description="Without their findings. The newest 100 tests of a merchant are kept.",
        psp="receiver-tests list",
        columns="id created_at status url",
    )
    async def list_receiver_tests(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of tests, newest first."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_SQL["list"], merchant_id, window.before, window.since, window.limit + 1)
        found = [to_listed_test(record) for record in records]
        return page(found, window.limit, [test.id for test in found])

    @get(
        "/sandbox/v1/receiver-tests/{test_id}",
        "Get a receiver test and its findings",
        {200: ReceiverTest},
        description="Each finding has the request that decided it, a curl command that repeats the request, the answer, why "
        "it matters, and how to fix it in five languages. Its outcome is `passed`, `failed`, `skipped`, or `advice`, which "
        "does not fail the test. The newest 100 tests of a merchant are kept.",
        psp="receiver-tests get",
    )
    async def get_receiver_test(self, merchant_id: str, test_id: Uuid) -> ReceiverTest:
        """Return a test with its findings so far. Raises NOT_FOUND."""
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_SQL["get"], merchant_id, test_id)
        if record is None:
            raise Problem("NOT_FOUND", f"Receiver test not found. The newest {KEPT} of a merchant are kept.")
        return to_test(record)

    @get(
        "/sandbox/v1/receiver-tests/{test_id}/junit",
        "Get a receiver test as JUnit XML",
        {200: str},
        errors=("INVALID_STATE",),
        media_type=_XML,
        description="One test case for each check. INVALID_STATE while the test runs.",
    )
    async def get_receiver_test_junit(self, merchant_id: str, test_id: Uuid) -> Response:
        """Return a finished test as JUnit XML. Raises NOT_FOUND, and INVALID_STATE while it runs."""
        test = await self.get_receiver_test(merchant_id, test_id)
        if test.status == "RUNNING":
            raise Problem("INVALID_STATE", "This receiver test is still running; wait until it has PASSED or FAILED.")
        return Response(200, junit(test.url, test.created_at, test.checks, test.error).encode(), _XML)

    def _begin(self, merchant_id: str, test_id: str, target: Target) -> None:
        task = asyncio.create_task(self._run(merchant_id, test_id, target))
        self._tasks.add(task)

        def ended(done: "asyncio.Task[None]") -> None:
            self._tasks.discard(done)
            self._end(merchant_id)
            if not done.cancelled() and done.exception() is not None:
                _log.error("receiver_test_failed", merchant_id=merchant_id, test_id=test_id, exc_info=done.exception())

        task.add_done_callback(ended)

    def _end(self, merchant_id: str) -> None:
        self._running[merchant_id] -= 1
        if not self._running[merchant_id]:
            del self._running[merchant_id]

    async def _run(self, merchant_id: str, test_id: str, target: Target) -> None:
        """Run a test, and store its findings and heartbeats. Stops if the merchant was deleted."""
        assert self._sender is not None, "start() was not called"
        findings: list[StoredFinding] = []

        def on_finding(finding: StoredFinding) -> None:
            findings.append(finding)
            self._notify(merchant_id, test_id, "RUNNING", findings, finding)

        sender = self._sender

        async def in_turn() -> list[StoredFinding]:
            async with self._turns.place(merchant_id):
                return await ReceiverRun(sender, target, self._limits).run(on_finding)

        run = asyncio.create_task(in_turn())
        try:
            saved, saved_at = 0, time.monotonic()
            while not (await asyncio.wait({run}, timeout=_SAVE_SECONDS))[0]:
                if len(findings) > saved or time.monotonic() - saved_at > _HEARTBEAT_SECONDS:
                    saved, saved_at = len(findings), time.monotonic()
                    if not await self._save(merchant_id, test_id, findings):
                        return
            findings = run.result()
            await self._save_end(merchant_id, test_id, findings)
        except BaseException:
            # The process is shutting down, or this is a bug. Either way, nobody runs the rest of the checks.
            with contextlib.suppress(*CONNECTION_ERRORS, *RETRYABLE):
                await _store(merchant_id, test_id, findings, is_finished=True, is_interrupted=True)
            raise
        finally:
            await end_tasks(run)
        self._notify(merchant_id, test_id, verdict([finding.outcome for finding in findings]), findings, None)

    async def _save(self, merchant_id: str, test_id: str, findings: Sequence[StoredFinding]) -> bool:
        """Store findings and a heartbeat. Return False if the test no longer exists."""
        try:
            return await _store(merchant_id, test_id, findings)
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            _not_saved(test_id).log(error)
            return True  # the next heartbeat saves it

    async def _save_end(self, merchant_id: str, test_id: str, findings: Sequence[StoredFinding]) -> None:
        """Store the end of a test. Raises the last error if PostgreSQL stays unavailable."""
        saving = backoff(_SAVE_SECONDS, _MAX_SAVE_PAUSE, (*CONNECTION_ERRORS, *RETRYABLE), _not_saved(test_id).log)
        save = saving.copy(stop=stop_after_attempt(_SAVE_ATTEMPTS), reraise=True)
        await save(_store, merchant_id, test_id, findings, is_finished=True)

    def _notify(
        self,
        merchant_id: str,
        test_id: str,
        status: TestStatus,
        findings: Sequence[StoredFinding],
        finding: StoredFinding | None,
    ) -> None:
        data = {
            "id": test_id,
            "status": status,
            "done": len(findings),
            "total": len(NAMES),
            "check": None if finding is None else {"name": finding.name, "outcome": finding.outcome},
        }
        self._on_progress(merchant_id, [Note("receiver_test.progressed", data)])


def _not_saved(test_id: str) -> Outage:
    return Outage("receiver_test_not_saved", test_id=test_id)


async def _store(
    merchant_id: str,
    test_id: str,
    findings: Sequence[StoredFinding],
    *,
    is_finished: bool = False,
    is_interrupted: bool = False,
) -> bool:
    """Store a test's findings and a heartbeat. Return False if the test no longer exists."""
    text, now = msgspec.json.encode(findings).decode(), truncate(datetime.now(UTC))
    arguments = (merchant_id, test_id, text, is_finished, is_interrupted, now)
    return bool(await write_rows(merchant_id, lambda conn: conn.fetchval(_SQL["update"], *arguments)))
