"""Whole applications under one clock: an advance fires their timers, and a program that cannot follow is refused."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from psp_sandbox.testing.one_clock.library import (
    VARIABLE,
    OneClockError,
    require_following,
    why_not,
)
from tests.harness.one_clock import NEEDS_ONE_CLOCK
from tests.harness.supervised import environment as clean_environment

pytestmark = NEEDS_ONE_CLOCK


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
