"""An application's clocks follow the merchant's clock, and its timers fire in order. Skipped without a C compiler."""

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from psp_sandbox.testing.one_clock import followers
from psp_sandbox.testing.one_clock.clock_file import ClockFile
from psp_sandbox.testing.one_clock.followers import Move, require_all_following
from psp_sandbox.testing.one_clock.library import OneClockError, build, compiler, environment
from tests.harness.one_clock import NEEDS_ONE_CLOCK
from tests.harness.supervised import wait_for

pytestmark = NEEDS_ONE_CLOCK
SWEEP = timedelta(hours=25)
TIMERS = {
    "asyncio": [sys.executable, "-c", """
import asyncio, time
async def main():
    print("began", time.time(), time.monotonic(), flush=True)
    asyncio.get_running_loop().call_later(25 * 3600, lambda: print("swept", time.time(), time.monotonic(), flush=True))
    while True:
        await asyncio.sleep(3600)
        print("ticked", time.time(), time.monotonic(), flush=True)
asyncio.run(main())
"""],
    "threads": [sys.executable, "-c", """
import threading, time
def say(word): print(word, time.time(), time.monotonic(), flush=True)
def tick():
    while not threading.Event().wait(3600): say("ticked")
say("began")
threading.Thread(target=tick, daemon=True).start()
time.sleep(25 * 3600)
say("swept")
time.sleep(1e6)
"""],
    "node": ["node", "-e", """
const say = word => console.log(word, Date.now() / 1000, performance.now() / 1000);
say("began");
setTimeout(() => say("swept"), 25 * 3600e3);
setInterval(() => say("ticked"), 3600e3);
"""],
}  # fmt: skip


class Clocks:
    """A clock file, and the processes that follow it."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        self.file = ClockFile.create(folder / "clock")
        self.library = build(folder)
        self._closing = closing

    def start(self, *command: str, **env: str) -> "subprocess.Popen[str]":
        """Start a process that follows, unless `env` says otherwise. It ends with the test."""
        variables = {**os.environ, **environment(self.library, self.file.path), **env}
        process = subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._closing.enter_context(process)
        self._closing.callback(process.kill)
        return process

    def advance(self, distance: timedelta) -> list[datetime]:
        """Move the clocks, and return the time after each step."""
        self.file.set_moving(True)
        target, stops = self.file.now + distance, []
        move = Move(self.file, target)
        while not stops or stops[-1] < target:
            stops.append(move.next_stop())
            move.reach(stops[-1])
        return stops


@pytest.fixture
def clocks(tmp_path: Path) -> Iterator[Clocks]:
    """Clocks of this test's own."""
    with ExitStack() as closing:
        yield Clocks(tmp_path, closing)


def read(process: "subprocess.Popen[str]") -> tuple[str, float, float]:
    """Read a line: a word, the wall clock and the monotonic clock."""
    assert process.stdout is not None
    word, wall, monotonic = process.stdout.readline().split()
    return word, float(wall), float(monotonic)


@pytest.mark.parametrize("kind", TIMERS)
def test_timers_that_began_before_a_move_fire_in_order_at_their_times(clocks: Clocks, kind: str) -> None:
    if shutil.which(TIMERS[kind][0]) is None:
        pytest.skip(f"{kind} is not installed")
    process = clocks.start(*TIMERS[kind])
    _, wall, monotonic = read(process)
    threads = 2 if kind == "threads" else 1
    wait_for(lambda: sum(wait.length > timedelta(minutes=30) for wait in clocks.file.waits()) == threads, "the timers to begin")
    clocks.advance(SWEEP + timedelta(minutes=10))
    lines = [read(process) for _ in range(26)]
    assert sorted(word for word, _, _ in lines[:-2]) == ["ticked"] * 24
    assert sorted(word for word, _, _ in lines[-2:]) == ["swept", "ticked"]
    for number, (_, then, _) in enumerate(lines[:-1], 1):
        assert abs(then - wall - 3600 * number) < 120, "each fires at its hour, or within the shortest step and a real delay"
    assert all(abs((then - wall) - (passed - monotonic)) < 1 for _, then, passed in lines), "both clocks move alike"


def test_a_move_that_takes_too_long_still_stops_often_before_its_end(clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that has been late on the way fires at a time of its own, not at the end."""
    monkeypatch.setattr(followers, "_BUDGET_SECONDS", 0)
    clocks.start(sys.executable, "-c", "import time\nwhile True: time.sleep(60)")
    wait_for(lambda: bool(list(clocks.file.waits())), "the wait to begin")
    stops = clocks.advance(SWEEP)
    assert len(stops) < 50, "most of the way is one step"
    assert sum(stops[-1] - stop < timedelta(minutes=8) for stop in stops) > 5


def test_a_process_has_the_time_of_the_clock_file_from_its_first_moment(clocks: Clocks) -> None:
    clocks.file.follow("key", datetime(2031, 5, 1, tzinfo=UTC))
    process = clocks.start("date", "-u", "+%Y-%m-%d x 0")
    assert process.communicate()[0] == "2031-05-01 x 0\n"


def test_the_monotonic_clock_never_goes_back(clocks: Clocks) -> None:
    program = "import time; [print('at', time.time(), time.monotonic(), flush=True) for _ in iter(input, 'end')]"
    process = clocks.start(sys.executable, "-c", program)
    assert process.stdin is not None
    found = []
    for year in (2031, 2020, 2025):
        clocks.file.follow("key", datetime(year, 1, 1, tzinfo=UTC))
        process.stdin.write("next\n")
        process.stdin.flush()
        found.append(read(process))
    assert [datetime.fromtimestamp(wall, UTC).year for _, wall, _ in found] == [2031, 2020, 2025]
    assert found[0][2] <= found[1][2] <= found[2][2]


def test_an_answer_on_a_connection_has_its_time_limit_in_real_time(clocks: Clocks) -> None:
    """A client that waits for an answer would otherwise time out at each move."""
    program = (
        "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 600); print(s.recv(9).decode())"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = clocks.start(sys.executable, "-c", program, str(server.getsockname()[1]))
        connection, _ = server.accept()
        with connection:
            clocks.advance(timedelta(hours=25))
            connection.sendall(b"an answer")
            assert process.communicate()[0] == "an answer\n"


def test_after_a_request_that_had_no_answer_in_time_the_next_one_is_awaited(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slow answer would otherwise let the clocks pass the time limits of later requests."""
    monkeypatch.setattr(followers, "_MAX_REQUEST_SECONDS", 0.05)
    program = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for _ in range(2):
    connection.sendall(b"asks")
    connection.recv(9)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = clocks.start(sys.executable, "-c", program, str(server.getsockname()[1]))
        connection, _ = server.accept()
        with connection:
            connection.recv(9)
            assert clocks.file.open_requests() == {process.pid: 1}
            clocks.advance(timedelta(minutes=1))
            assert clocks.file.open_requests() == {process.pid: 0}, "it is given up"
            connection.sendall(b"answers")
            connection.recv(9)
            assert clocks.file.open_requests() == {process.pid: 1}
            connection.sendall(b"answers")
            assert process.wait() == 0
    assert clocks.file.open_requests() == {process.pid: 0}


def test_the_wait_for_requests_shrinks_after_one_in_vain_and_grows_again(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, the later steps of a long move would give up requests that are only a little slow."""
    monkeypatch.setattr(followers, "_MAX_REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(followers, "_MIN_STEP_SECONDS", 0.01)
    waits: list[float] = []
    monkeypatch.setattr(clocks.file, "hold_requests", waits.append)
    is_busy = True
    move = Move(clocks.file, clocks.file.now + timedelta(hours=1), lambda: is_busy)
    move.next_stop()
    is_busy = False
    for _ in range(9):
        move.next_stop()
    waits = [wait for wait in waits if wait]
    assert waits[:2] == [0.1, 0.05]
    assert waits[1:] == sorted(waits[1:])
    assert waits[-1] == 0.1


def test_a_step_waits_for_the_work_that_a_timer_starts(clocks: Clocks) -> None:
    program = """
import time
print("began 0 0", flush=True)
time.sleep(3600)
until = time.thread_time() + 0.03  # a busy machine gives no more within the two seconds that a step waits
while time.thread_time() < until: pass
print("worked", time.time(), 0, flush=True)
time.sleep(1e6)
"""
    process = clocks.start(sys.executable, "-c", program)
    read(process)
    wait_for(lambda: bool(list(clocks.file.waits())), "the wait to begin")
    end = clocks.file.now + timedelta(minutes=61)
    clocks.advance(timedelta(hours=2))
    assert read(process)[1] < end.timestamp(), "the clock did not move on while the timer's work was in progress"


def test_a_process_that_sets_an_alarm_says_once_that_it_does_not_follow(clocks: Clocks) -> None:
    program = "import signal; [signal.setitimer(signal.ITIMER_REAL, seconds) for seconds in (0, 0.5, 60, 70)]"
    said = clocks.start("sh", "-c", 'exec "$@" 2>&1', "sh", sys.executable, "-c", program).communicate()[0]
    assert said.count("psp: process") == 1
    assert "a timer of 60 s" in said


def test_an_alarm_without_a_time_is_refused_and_one_in_the_past_fires(clocks: Clocks) -> None:
    program = """
import ctypes, os, select
c = ctypes.CDLL(None, use_errno=True)
timer, file = ctypes.c_void_p(), c.timerfd_create(1, 0)
c.timer_create(0, None, ctypes.byref(timer))
for call in (lambda: c.timer_settime(timer, 0, None, None), lambda: c.timerfd_settime(file, 0, None, None)):
    assert call() == -1 and ctypes.get_errno()
    print(os.strerror(ctypes.get_errno()))
set = (ctypes.c_long * 4)(0, 0, 0, 5)  # the fifth nanosecond since the clock began
print(c.timerfd_settime(file, 1, set, None), len(select.select([file], [], [], 30)[0]))
"""
    clocks.advance(SWEEP)
    said = clocks.start(sys.executable, "-c", program).communicate()[0]
    assert said.splitlines() == [os.strerror(errno.EINVAL), os.strerror(errno.EFAULT), "0 1"]


def test_a_library_that_prefers_its_own_functions_follows_too(clocks: Clocks, tmp_path: Path) -> None:
    """PHP loads its extensions so; a request by curl was not awaited, so the clocks moved past it."""
    source, library = tmp_path / "reads.c", tmp_path / "reads.so"
    source.write_text("#include <time.h>\nlong reads(void) { return time(0); }\n")
    subprocess.run([str(compiler()), "-shared", "-fPIC", "-o", library, source], check=True)
    program = f"""
import ctypes, os
print(ctypes.CDLL({str(library)!r}, os.RTLD_NOW | os.RTLD_DEEPBIND).reads())
"""
    clocks.advance(SWEEP)
    said = clocks.start(sys.executable, "-c", program).communicate()[0]
    assert abs(int(said) - clocks.file.now.timestamp()) < 60


def test_a_process_that_does_not_follow_is_an_error(clocks: Clocks) -> None:
    follower = clocks.start(sys.executable, "-c", "print('began 0 0', flush=True); input()")
    read(follower)
    require_all_following(clocks.file)
    other = clocks.start(sys.executable, "-c", "print('began 0 0', flush=True); input()", LD_PRELOAD="")
    read(other)
    with pytest.raises(OneClockError, match=rf"process {other.pid}\) does not follow .*not preloaded"):
        require_all_following(clocks.file)
    other.kill()
    other.wait()
    require_all_following(clocks.file)
