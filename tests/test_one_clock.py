"""An application's clocks follow the merchant's clock, and its timers fire in order. Skipped without a C compiler."""

import errno
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from psp_sandbox.testing.one_clock import followers
from psp_sandbox.testing.one_clock.followers import Move, require_all_following
from psp_sandbox.testing.one_clock.library import OneClockError, compiler
from tests.harness.one_clock import NEEDS_ONE_CLOCK, Clocks, read
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


def test_a_wait_that_ends_soon_is_a_stop_even_if_steps_are_large(clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would end by itself between the moves of the sandbox's clock and the application's."""
    monkeypatch.setattr(followers, "_BUDGET_SECONDS", 0)
    monkeypatch.setattr(followers, "_SOON", timedelta(seconds=30))
    clocks.start(sys.executable, "-c", "import time\nwhile True: time.sleep(60)")
    wait_for(lambda: bool(list(clocks.file.waits())), "the wait to begin")
    move = Move(clocks.file, clocks.file.now + SWEEP)
    while (stop := move.next_stop()) - clocks.file.now < timedelta(hours=1):
        move.reach(stop)
    (wait,) = clocks.file.waits()
    clocks.file.move_to(clocks.file.now + wait.left - timedelta(seconds=20))
    assert move.next_stop() - clocks.file.now <= timedelta(seconds=20)


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


def test_a_thread_that_has_handed_its_work_to_one_seen_asleep_is_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    awake = "second"

    def look(thread: Path) -> str:
        nonlocal awake
        if thread.name == "second":  # just before the look at it, it wakes the first one, and falls asleep
            awake = "first"
        return "R" if thread.name == awake else "S"

    monkeypatch.setattr(followers, "_threads", lambda _: [Path("first"), Path("second")])
    monkeypatch.setattr(followers, "_state", look)
    assert followers.any_runs([1])


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


def test_a_timer_of_cpu_time_does_not_follow(clocks: Clocks) -> None:
    program = """
import ctypes, os, time
c = ctypes.CDLL(None)
timer, set, left = ctypes.c_void_p(), (ctypes.c_long * 4)(0, 0, int(time.process_time()) + 1000, 0), (ctypes.c_long * 4)()
for _ in range(70):  # more than the library can know at a time
    c.timer_create(2, (ctypes.c_long * 8)(0, 1 << 32), ctypes.byref(timer))  # SIGEV_NONE
    c.timer_settime(timer, 1, set, None)
    c.timer_gettime(timer, left)
    c.timer_delete(timer)
    print(left[2])
"""
    clocks.advance(SWEEP)
    said = clocks.start(sys.executable, "-c", program).communicate()[0].split()
    assert len(said) == 70
    assert all(int(seconds) > 900 for seconds in said)


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
