"""`psp listen` under load, interrupted ten times: every event arrives, and none twice except those in flight."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.harness.listener import Gate, Listener
from tests.harness.own_sandbox import start_sandbox
from tests.harness.receiver import Received, Receiver
from tests.harness.supervised import child_of, end, wait_for
from tests.harness.waiting import until
from tests.harness.world import World

INTERRUPTIONS = (
    "stop listener", "kill api", "receiver down", "restart sandbox", "kill listener", "stop listener for long", "kill worker",
    "receiver down", "kill listener", "kill api",
)  # fmt: skip
MAY_REPEAT = ("receiver down", "kill listener", "stop listener for long")
"""Interruptions after which an event that was in flight can arrive again."""
EVENTS_PER_PAYOUT = 3
PAUSE = 3.0
"""Seconds of undisturbed load between interruptions."""


class Sandbox:
    """A sandbox with its own store, on a fixed port, that can be restarted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        arguments = ("--data", str(self._folder / "data"), "--port", str(self._port))
        self.process, self.stack = start_sandbox(self._folder, *arguments)

    def restart(self) -> None:
        """Stop it, and start it again with its data."""
        end(self.process)
        self.start()

    def kill(self, program: str) -> None:
        """SIGKILL one of its processes. The supervisor restarts it."""
        supervisor = psutil.Process(self.process.pid)
        os.kill(wait_for(lambda: child_of(supervisor, program), program).pid, signal.SIGKILL)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """Run a sandbox during the test."""
    found = Sandbox(tmp_path)
    yield found
    end(found.process)


class Load:
    """Creates payouts, about fifteen per second, until it is stopped. Repeats each request until it gets a 201."""

    def __init__(self, world: World) -> None:
        self.created: list[str] = []
        self.is_stopped = threading.Event()
        self._world = world
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with httpx.Client(base_url=self._world.stack.api_url, headers={"X-API-KEY": self._world.api_key}) as client:
            while not self.is_stopped.wait(0.06):
                body, headers = self._world.payout_body("0001", amount="1.00"), {"X-IDEMPOTENCY-KEY": str(uuid.uuid4())}
                while True:
                    with contextlib.suppress(httpx.HTTPError):
                        response = client.post("/api/v1/payouts", json=body, headers=headers, timeout=10)
                        if response.status_code == 201:
                            self.created.append(response.json()["id"])
                            break
                    time.sleep(0.1)

    def stop(self) -> None:
        """Stop, and wait for the last request."""
        self.is_stopped.set()
        self._thread.join()


@pytest.mark.slow
def test_no_event_is_lost_or_repeated_when_anything_is_interrupted(sandbox: Sandbox, receiver: Receiver) -> None:
    world = World.create(sandbox.stack, opening_balance="900000.00")
    arrivals: dict[str, list[float]] = {}

    def respond(received: Received) -> tuple[int, dict[str, str], bytes]:
        arrivals.setdefault(received.headers["webhook-id"], []).append(time.monotonic())
        return 200, {}, b""

    receiver.respond = respond
    gate = Gate(receiver.url)

    def listen() -> Listener:
        arguments = ("--name", "stress", "--retry-profile", "fast")
        return Listener(sandbox.stack.api_url, world.api_key, gate.url, *arguments)

    listener, load = listen(), Load(world)
    moments: list[tuple[float, str]] = []
    for kind in INTERRUPTIONS:
        time.sleep(PAUSE)
        moments.append((time.monotonic(), kind))
        if kind.startswith("stop listener"):
            listener.process.send_signal(signal.SIGSTOP)
            time.sleep(35 if kind.endswith("long") else 4)  # a lease lasts 30 s
            listener.process.send_signal(signal.SIGCONT)
        elif kind == "kill listener":
            listener.process.kill()
            listener.stop()
            listener = listen()
        elif kind == "receiver down":
            gate.close()
            time.sleep(2)
            gate.open()
        elif kind == "restart sandbox":
            sandbox.restart()
        else:
            sandbox.kill("worker" if kind == "kill worker" else "ipn.with_api")
    time.sleep(PAUSE)
    load.stop()
    expected = EVENTS_PER_PAYOUT * len(load.created)
    with contextlib.suppress(AssertionError):
        until(lambda: len(arrivals) >= expected, seconds=240)
    time.sleep(PAUSE)  # for anything that arrives again
    assert listener.stop() == 0

    repeated = {event: times[0] for event, times in arrivals.items() if len(times) > 1}
    may_repeat = [(at, kind) for at, kind in moments if kind in MAY_REPEAT]
    causes = Counter(min(may_repeat, key=lambda moment: abs(moment[0] - first))[1] for first in repeated.values())
    sys.stdout.write(f"sent {expected}, received {len(arrivals)}, arrived twice {len(repeated)}: {dict(causes)}\n")
    assert len(arrivals) == expected
    for first in repeated.values():
        # It was being posted, or its result was being reported, when that happened.
        assert min(abs(at - first) for at, _ in may_repeat) < 2
