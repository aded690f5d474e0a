"""Only an unavailable store counts as an outage. The 503 response names the store, and the log names the cause."""

import contextlib
import errno
import io
import socket
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import structlog

from sandbox.domain.errors import Problem
from sandbox.domain.ids import MIN_ID
from sandbox.http.middleware import PARSING
from sandbox.http.operation import get, operations_of, post
from sandbox.http.request import Request
from sandbox.http.routes import create_litestar
from sandbox.infrastructure.db.engine import (
    CONNECTION_ERRORS,
    DatabaseUnavailableError,
    connection,
    database_unavailable,
    db_errors_as_503,
    transaction,
)
from sandbox.infrastructure.logs import configure_logs
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.server.request_log import RequestLog
from sandbox.server.runtime.listening_sockets import Probe
from sandbox.users.aggregator.feed_clients import FetchFailedError, HttpVendor, PageRequest
from sandbox.users.bulk_credit.upload import Upload, UploadForm, receive_file
from tests.harness.raw_server import LOOPBACK, OK, responding_with, sending, serving
from tests.harness.waiting import until
from tests.harness.work import pooled
from tests.harness.world import Stack

NO_SPACE = OSError(errno.ENOSPC, "No space left on device", "/secret/folder")


@contextlib.asynccontextmanager
async def client_of(api: object) -> AsyncIterator[httpx.AsyncClient]:
    app = create_litestar(operations_of(api), PARSING, "http://sandbox.test", 2_000_000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(RequestLog(app)), base_url="http://sandbox.test") as client:
        yield client


@pytest.mark.parametrize("store", [CONNECTION_ERRORS, REDIS_ERRORS])
def test_local_os_errors_are_not_outages_of_a_store(store: tuple[type[Exception], ...]) -> None:
    for error in (NO_SPACE, PermissionError(), FileNotFoundError(), EOFError(), OSError(errno.EMFILE, "too many open files")):
        assert not isinstance(error, store)


async def test_an_oserror_is_a_500_and_is_logged() -> None:
    class Api:
        @get("/", "Fail", {200: None}, access="public")
        async def fail(self, request: Request) -> None:
            raise NO_SPACE

    with structlog.testing.capture_logs() as logs:
        async with client_of(Api()) as client:
            response = await client.get("/")
    assert (response.status_code, response.json()["code"]) == (500, "INTERNAL_ERROR")
    assert "/secret/folder" not in response.text
    (logged,) = [entry for entry in logs if entry["event"] == "request_failed"]
    assert logged["exc_info"] is NO_SPACE


@pytest.mark.parametrize("acquire", [connection, transaction])
async def test_an_unreachable_database_is_an_outage_and_the_log_names_the_cause(acquire: Any, closed_port: int) -> None:
    class Api:
        @get("/", "Query", {200: int}, access="public")
        async def query(self, request: Request) -> Any:
            async with db_errors_as_503(), acquire(MIN_ID) as conn:
                return await conn.fetchval("SELECT 1")

    async with pooled(f"postgresql://u@127.0.0.1:{closed_port}/x", 1):
        with structlog.testing.capture_logs() as logs:
            async with client_of(Api()) as client:
                response = await client.get("/")
    assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (503, "UNAVAILABLE", "1")
    assert response.json()["detail"] == "The database does not respond. Nothing was lost: retry."
    (logged,) = [entry for entry in logs if entry["event"] == "unavailable"]
    assert "ConnectionRefusedError" in logged["cause"]


async def test_a_database_without_its_socket_is_an_outage(tmp_path: Any) -> None:
    async with pooled(f"postgresql://u@/x?host={tmp_path}", 1):
        with pytest.raises(DatabaseUnavailableError, match="FileNotFoundError"):
            async with connection(MIN_ID):
                pass


@pytest.mark.parametrize("acquire", [connection, transaction])
@pytest.mark.parametrize("error", [NO_SPACE, ValueError("a defect")])
async def test_an_error_raised_between_statements_is_not_changed(stack: Stack, acquire: Any, error: Exception) -> None:
    async def fail() -> None:
        async with db_errors_as_503(), acquire(MIN_ID) as conn:
            await conn.execute("SELECT 1")
            raise error

    async with pooled(stack.database_url, 1):
        with pytest.raises(type(error)) as caught:
            await fail()
        assert caught.value is error
        async with acquire(MIN_ID) as conn:  # the connection is still usable
            assert await conn.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("acquire", [connection, transaction])
async def test_a_statement_timeout_is_an_outage(stack: Stack, acquire: Any) -> None:
    async with pooled(stack.database_url, 1):
        with pytest.raises(DatabaseUnavailableError, match="TimeoutError"):
            async with acquire(MIN_ID) as conn:
                await conn.fetchval("SELECT pg_sleep(60)", timeout=0.05)
        async with acquire(MIN_ID) as conn:
            assert await conn.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("acquire", [connection, transaction])
async def test_a_terminated_connection_is_an_outage(stack: Stack, acquire: Any) -> None:
    async def lose_connection() -> None:
        async with db_errors_as_503(), acquire(MIN_ID) as conn:
            pid = await conn.fetchval("SELECT pg_backend_pid()")
            other = await asyncpg.connect(stack.database_url)
            await other.execute("SELECT pg_terminate_backend($1)", pid)
            await other.close()
            await conn.fetchval("SELECT 1")

    async with pooled(stack.database_url, 1):
        with pytest.raises(Problem, match="does not respond"):
            await lose_connection()


def test_an_outage_includes_the_database_error() -> None:
    assert "no space left" in str(database_unavailable(asyncpg.DiskFullError("could not extend file")))
    assert "too many connections" in str(database_unavailable(asyncpg.TooManyConnectionsError("sorry")))
    assert "does not respond" in str(database_unavailable(DatabaseUnavailableError(TimeoutError())))


class UploadApi:
    @post("/", "Upload", {200: int}, UploadForm, access="public", receive=receive_file)
    async def upload(self, request: Request, body: Upload) -> int:
        with body.file as file:
            return len(file.read())


@pytest.mark.parametrize("failure", ["disk full", "missing folder", "disk full at the end"])
async def test_an_upload_that_cannot_be_stored_is_refused_with_the_reason_and_logged(
    monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    # /dev/full refuses writes as a full disk does. A small file is written to disk only when it is complete.
    size = 10 if failure == "disk full at the end" else 1_000_000
    if failure == "missing folder":
        monkeypatch.setattr(tempfile, "tempdir", "/secret/folder")
    else:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: io.open("/dev/full", "w+b"))  # noqa: SIM115, UP020
    if failure == "disk full at the end":
        monkeypatch.setattr("sandbox.users.bulk_credit.upload._MAX_SIZE_IN_MEMORY", 5)
    with structlog.testing.capture_logs() as logs:
        async with client_of(UploadApi()) as client:
            response = await client.post("/", files={"file": b"x" * size})
    problem = response.json()
    assert (response.status_code, problem["code"], response.headers["retry-after"]) == (503, "UNAVAILABLE", "30")
    reason = "No such file or directory" if failure == "missing folder" else "No space left on device"
    assert reason in problem["detail"]
    assert "database" not in problem["detail"]
    assert "/" not in problem["detail"]
    (logged,) = [entry for entry in logs if entry["event"] == "unavailable"]
    assert reason in logged["cause"]


async def test_an_upload_is_stored_if_the_disk_has_space() -> None:
    async with client_of(UploadApi()) as client:
        response = await client.post("/", files={"file": b"x" * 1_000_000})
    assert (response.status_code, response.json()) == (200, 1_000_000)


def test_a_log_write_error_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise NO_SPACE

    before = structlog.get_config()
    try:
        monkeypatch.setattr("sys.stdout", Full())
        configure_logs("info", "json", "api")
        structlog.get_logger().info("message")
    finally:
        structlog.configure(**before)


async def test_a_local_socket_error_is_logged_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_files(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    vendor = HttpVendor(LOOPBACK)
    try:
        async with serving(responding_with(OK)) as peer, sending() as sender:
            monkeypatch.setattr("sandbox.webhooks.outbound.sockets.socket.socket", no_files)
            with structlog.testing.capture_logs() as logs:
                result = await sender.send(peer.url, b"{}", {})
                with pytest.raises(FetchFailedError, match="oo many open files"):
                    await vendor.fetch(PageRequest("m", peer.url, {}, None, 1))
            monkeypatch.undo()
    finally:
        await vendor.close()
    assert result.error == "connection failed: too many open files"
    assert [entry["event"] for entry in logs] == ["no_socket"] * 2
    assert all("Too many open files" in entry["error"] for entry in logs)


def test_a_readiness_probe_reports_why_the_sandbox_is_not_ready() -> None:
    def http_response(status: int, body: bytes) -> bytes:
        return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)

    for body, expected in (
        (b'{"detail": "Not ready: no worker."}', "status 503, Not ready: no worker."),
        (b"no", "status 503"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            probe = Probe("127.0.0.1", listener.getsockname()[1], "/health/ready")
            try:
                assert not probe.succeeded()
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(http_response(503, body))
                until(lambda probe=probe: probe.succeeded() or probe.last_result != "no response")
                assert probe.last_result == expected
            finally:
                probe.close()
