"""An application's clocks follow the merchant's clock, and its timers fire in order. Skipped without a C compiler."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from psp_sandbox.testing.one_clock import followers
from psp_sandbox.testing.one_clock.clock_file import ClockFile
from psp_sandbox.testing.one_clock.followers import Move, require_all_following
from psp_sandbox.testing.one_clock.library import VARIABLE, OneClockError, build, environment, require_following, why_not
from tests.harness.supervised import environment as clean_environment
from tests.harness.supervised import wait_for

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="one clock works on Linux only"),
    pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="one clock needs a C compiler"),
]

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
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
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


def test_programs_that_cannot_follow_are_refused_before_they_start(tmp_path: Path) -> None:
    python = Path(sys.executable).resolve()
    assert why_not(python) is None
    go = tmp_path / "go"
    go.write_bytes(python.read_bytes() + b"\xff Go buildinf:")
    static = _static(tmp_path)
    script = tmp_path / "script"
    script.write_text(f"#!{static}\n")
    for path in (go, script):
        path.chmod(0o755)
    for path, reason in ((go, "written in Go"), (static, "linked statically"), (script, "linked statically")):
        with pytest.raises(OneClockError, match=reason):
            require_following(str(path))


APPLICATION = """
import http.server, json, os, subprocess, sys, threading, time, urllib.request
def call(path, body=None):
    headers = {"X-API-KEY": os.environ["PSP_API_KEY"], "X-IDEMPOTENCY-KEY": str(time.time())}
    headers["content-type"] = "application/json"
    request = urllib.request.Request(os.environ["PSP_URL"] + path, None if body is None else json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request, timeout=30))
def sweep():
    time.sleep(25 * 3600)
    call("/api/v1/payouts", {"merchant_reference": "swept", "amount": "5.00", "dest_type": "BANK", "bank_code": "HBL",
                             "account_number": "12345678900001"})
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        ages.append(abs(time.time() - float(self.headers["webhook-timestamp"])))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
ages = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
call("/api/v1/webhook-endpoints", {"url": f"http://127.0.0.1:{server.server_address[1]}/"})
threading.Thread(target=sweep, daemon=True).start()
call("/sandbox/v1/clock/advance", {"seconds": 25 * 3600 + 60})
now = call("/sandbox/v1/clock")["now"]
call("/sandbox/v1/drain", {})
print(json.dumps({"now": now, "own": time.time(), "ages": ages,
                  "references": [p["merchant_reference"] for p in call("/api/v1/payouts")["data"]]}))
other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, "LD_PRELOAD": ""})
try:
    call("/sandbox/v1/clock/advance", {"seconds": 60})
except urllib.error.HTTPError as error:
    print(error.code, json.load(error)["detail"])
other.kill()
"""


@pytest.mark.slow
def test_an_advance_moves_the_application_too_and_webhooks_are_signed_with_its_time(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    command = [sys.executable, "-P", "-m", "sandbox.cli.entry", "run", "--ephemeral", "--one-clock", "--"]
    done = subprocess.run(
        [*command, sys.executable, "app.py"], cwd=tmp_path, env=clean_environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(first)
    assert "swept" in found["references"]
    assert abs(datetime.fromisoformat(found["now"]).timestamp() - found["own"]) < 1
    assert found["ages"]
    assert max(found["ages"]) <= 1.5, "timestamps are in whole seconds"
    assert second.startswith("409 ")
    assert "does not follow the merchant's clock" in second


SHOP = """
import http.server, json, os, threading, time, urllib.request
def call(path, body):
    headers = {"X-API-KEY": os.environ["PSP_API_KEY"], "X-IDEMPOTENCY-KEY": "sweep", "content-type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(os.environ["PSP_URL"] + path, json.dumps(body).encode(), headers), timeout=30)
def sweep():
    call("/api/v1/payouts", {"merchant_reference": "swept", "amount": "5.00", "dest_type": "BANK", "bank_code": "HBL",
                             "account_number": "12345678900001"})
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(str(time.time()).encode())
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        ages.append(abs(time.time() - int(self.headers["webhook-timestamp"])))
        self.answer(b"")
    def answer(self, body):
        self.send_response(200 if max(ages) < 2 else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
ages = [0]
threading.Timer(25 * 3600, sweep).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
TESTS = """
import sys
import pytest
from psp_sandbox.testing import AppError

@pytest.mark.parametrize("number", (1, 2))
@pytest.mark.psp(frozen=True)
def test_the_sweep_of_the_next_day(psp, live_process, number):
    psp.freeze("2031-01-01T00:00:00Z")
    shop = live_process([sys.executable, "shop.py"], one_clock=True)
    run = psp.advance("26h")
    payout = psp.next_payout(reference="swept")
    assert 24.9 * 3600 < (payout.created_at - run.now).total_seconds() + 26 * 3600 < 25.1 * 3600
    psp.webhooks.expect("payout.succeeded", payout=payout)
    assert abs(float(shop.client.get("/").text) - run.now.timestamp()) < 1.5

def test_a_program_that_cannot_follow(psp, live_process):
    with pytest.raises(AppError, match="linked statically"):
        live_process(["./static"], one_clock=True)
"""


@pytest.mark.slow
def test_a_test_fires_the_timers_of_its_application_in_parallel_with_others(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "test_sweep.py").write_text(TESTS)
    _static(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"], cwd=tmp_path, env=clean_environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def _static(folder: Path) -> Path:
    program = folder / "static"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    program.chmod(0o755)
    return program


def test_a_program_that_cannot_follow_ends_the_run_before_it_starts(tmp_path: Path) -> None:
    program = _static(tmp_path)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sandbox.cli.entry", "run", "--one-clock", "--", str(program)],
        env=clean_environment() | {VARIABLE: ""}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (126, "")
    assert "linked statically" in done.stderr
