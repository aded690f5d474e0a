"""Log lines and journal entries are written together, and a clean stop loses none of them."""

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
    """Standard output that counts how often it is written."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@contextlib.contextmanager
def logging_to() -> Iterator[Output]:
    """Log as a process does, to what this gives. A fixture would not do: pytest sets standard output after it."""
    before, output = structlog.get_config(), Output()
    with contextlib.redirect_stdout(output):
        configure_logs("info", "json", "api")
        try:
            yield output
        finally:
            end_log_buffering()
            structlog.configure(**before)


async def test_lines_are_written_together() -> None:
    with logging_to() as output:
        log = structlog.get_logger()
        for number in range(100):
            log.info("said", number=number)
        assert output.writes == 0
        await asyncio.to_thread(until, lambda: output.lines)
        assert ([line["number"] for line in output.lines], output.writes) == ([*range(100)], 1)
        assert {(line["event"], line["level"], line["process"]) for line in output.lines} == {("said", "info", "api")}


async def test_too_many_lines_do_not_wait() -> None:
    with logging_to() as output:
        log = structlog.get_logger()
        for number in range(1000):
            log.info("said", number=number)
        assert 0 < output.writes < 10


@pytest.mark.parametrize("level", ["warning", "error", "critical", "exception"])
async def test_a_warning_is_written_at_once_behind_what_came_before(level: str) -> None:
    with logging_to() as output:
        log = structlog.get_logger()
        log.info("before")
        getattr(log, level)("trouble")
        assert [line["event"] for line in output.lines] == ["before", "trouble"]


async def test_lines_of_threads_are_all_written() -> None:
    with logging_to() as output:

        def speak(thread: int) -> None:
            log = structlog.get_logger()
            for number in range(500):
                (log.warning if number % 50 == 0 else log.info)("said", thread=thread, number=number)

        await asyncio.gather(*(asyncio.to_thread(speak, thread) for thread in range(4)))
        found = [(line["thread"], line["number"]) for line in output.lines]
        assert sorted(found) == sorted(itertools.product(range(4), range(500)))
        assert all([n for t, n in found if t == thread] == [*range(500)] for thread in range(4))


def test_without_an_event_loop_a_line_is_written_at_once() -> None:
    with logging_to() as output:
        structlog.get_logger().info("said")
        assert [line["event"] for line in output.lines] == ["said"]


def test_a_clean_stop_under_load_loses_no_line_and_no_entry(stack: Stack, world: World, tmp_path: Path) -> None:
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
    answered: set[str] = set()
    numbers = itertools.count()

    def load() -> None:
        with httpx.Client(base_url=url, headers={"X-API-KEY": world.api_key}, timeout=60) as client:
            while process.poll() is None:
                request_id = f"load-{next(numbers)}"
                try:
                    answer = client.get("/api/v1/balance", headers={"X-Request-Id": request_id})
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200, answer.text
                answered.add(request_id)

    threads = [threading.Thread(target=load) for _ in range(6)]
    try:
        for thread in threads:
            thread.start()
        until(lambda: len(answered) > 100)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        process.wait(60)
    finally:
        end(process)
    logged = {line["request_id"] for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "request"}
    assert answered <= logged
    assert len(answered) < 900, "more than the journal keeps"
    journaled, cursor = set(), None
    while True:
        params: dict[str, Any] = {"limit": 100} | ({"cursor": cursor} if cursor else {})
        page = world.client.get("/sandbox/v1/requests", params=params).json()
        journaled |= {entry["request_id"] for entry in page["data"]}
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    assert answered <= journaled
