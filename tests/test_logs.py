"""Log lines and journal entries are written in batches, and a clean stop loses none of them."""

import asyncio
import base64
import contextlib
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from sandbox.infrastructure.logs import configure_logs, end_log_buffering
from tests.harness.supervised import end
from tests.harness.waiting import until
from tests.harness.world import Stack, World


class Output(io.StringIO):
    """Standard output that counts its writes."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@contextlib.contextmanager
def captured_logs() -> Iterator[Output]:
    """Configure logging as a process does, and yield its output.

    This cannot be a fixture: pytest replaces standard output after fixtures have run.
    """
    before, output = structlog.get_config(), Output()
    with contextlib.redirect_stdout(output):
        configure_logs("info", "json", "api")
        try:
            yield output
        finally:
            end_log_buffering()
            structlog.configure(**before)


async def test_lines_are_written_in_batches() -> None:
    with captured_logs() as output:
        log = structlog.get_logger()
        for number in range(100):
            log.info("message", number=number)
        assert output.writes == 0
        await asyncio.to_thread(until, lambda: output.lines)
        assert ([line["number"] for line in output.lines], output.writes) == ([*range(100)], 1)
        assert {(line["event"], line["level"], line["process"]) for line in output.lines} == {("message", "info", "api")}


async def test_a_full_buffer_is_written_at_once() -> None:
    with captured_logs() as output:
        log = structlog.get_logger()
        for number in range(1000):
            log.info("message", number=number)
        assert 0 < output.writes < 10


@pytest.mark.parametrize("level", ["warning", "error", "critical", "exception"])
async def test_a_warning_is_written_at_once_after_earlier_lines(level: str) -> None:
    with captured_logs() as output:
        log = structlog.get_logger()
        log.info("before")
        getattr(log, level)("problem")
        assert [line["event"] for line in output.lines] == ["before", "problem"]


async def test_lines_logged_by_threads_are_all_written_in_order() -> None:
    with captured_logs() as output:

        def write_lines(thread: int) -> None:
            log = structlog.get_logger()
            for number in range(500):
                (log.warning if number % 50 == 0 else log.info)("message", thread=thread, number=number)

        await asyncio.gather(*(asyncio.to_thread(write_lines, thread) for thread in range(4)))
        await asyncio.to_thread(until, lambda: len(output.lines) >= 2000)  # the last ones may wait for the timer
        found = [(line["thread"], line["number"]) for line in output.lines]
        assert sorted(found) == sorted(itertools.product(range(4), range(500)))
        assert all([n for t, n in found if t == thread] == [*range(500)] for thread in range(4))


def test_a_line_is_written_at_once_without_an_event_loop() -> None:
    with captured_logs() as output:
        structlog.get_logger().info("message")
        assert [line["event"] for line in output.lines] == ["message"]


def test_a_clean_stop_under_load_loses_no_log_line_and_no_journal_entry(stack: Stack, world: World, tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as stdout:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.server.serve"],
            env={
                **os.environ,
                "DATABASE_URL": stack.database_url,
                "REDIS_URL": stack.redis_url,
                "SANDBOX_SECRET_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
                "SANDBOX_LISTEN_FD": str(listener.fileno()),
            },
            pass_fds=[listener.fileno()],
            stdout=stdout,
        )
    completed: set[str] = set()
    numbers = itertools.count()

    def load() -> None:
        with httpx.Client(base_url=url, headers={"X-API-KEY": world.api_key}, timeout=60) as client:
            while process.poll() is None:
                request_id = f"load-{next(numbers)}"
                try:
                    response = client.get("/api/v1/balance", headers={"X-Request-Id": request_id})
                except httpx.HTTPError:
                    return
                assert response.status_code == 200, response.text
                completed.add(request_id)

    threads = [threading.Thread(target=load) for _ in range(6)]
    try:
        for thread in threads:
            thread.start()
        until(lambda: len(completed) > 100, seconds=120)  # with the start of the process
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        process.wait(60)
    finally:
        end(process)
    logged = {line["request_id"] for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "request"}
    assert completed <= logged
    assert len(completed) < 900, "there must be fewer requests than the journal keeps"
    journaled, cursor = set(), None
    while True:
        params: dict[str, Any] = {"limit": 100} | ({"cursor": cursor} if cursor else {})
        page = world.client.get("/sandbox/v1/requests", params=params).json()
        journaled |= {entry["request_id"] for entry in page["data"]}
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    assert completed <= journaled
