"""A failed test of an application becomes a test that fails while the application has the mistake, and passes without it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest

from examples.broken_shops import variants as declared
from psp_sandbox.testing.process import Address
from psp_sandbox.testing.recording import Recorded

ROOT: Final = Path(__file__).parent.parent
LOST: Final = "test_lost_answers.py::test_a_lost_answer_is_asked_for_again_with_the_same_key"
FORGOTTEN: Final = "test_lost_answers.py::test_a_payout_is_found_when_its_key_is_forgotten"
NO_ANSWER: Final = "test_lost_answers.py::test_without_any_answer_nobody_is_paid_twice"
LATE: Final = "test_webhooks.py::test_a_late_webhook_does_not_undo_a_newer_one"
TWICE: Final = "test_webhooks.py::test_a_webhook_that_arrives_twice_counts_once"
BUSY: Final = "test_lost_answers.py::test_a_payout_is_sent_again_while_the_psp_is_unavailable"
FORGED: Final = "test_webhooks.py::test_a_forged_webhook_is_refused"
FAILING: Final = (
    ("allows_only_the_expected_change", LATE),
    ("answers_a_duplicate_with_an_error", TWICE),
    ("body_changes_with_each_attempt", f"{LOST}[connection_reset]"),
    ("body_changes_with_each_attempt", f"{LOST}[truncated_body]"),
    ("checks_only_the_form_of_a_signature", f"{FORGED}[tampered_body]"),
    ("checks_only_the_form_of_a_signature", f"{FORGED}[wrong_key]"),
    ("credits_each_failure", "test_paying.py::test_a_reinitiated_payout_takes_the_money_again"),
    ("duplicate_reference_is_a_refusal", FORGOTTEN),
    ("event_applied_twice", TWICE),
    ("expects_every_version", LATE),
    ("finds_payouts_by_the_psps_id", NO_ANSWER),
    ("half_an_answer_is_a_failure", f"{LOST}[truncated_body]"),
    ("last_event_wins", LATE),
    ("lost_answer_is_a_failure", f"{LOST}[connection_reset]"),
    ("lost_answer_is_a_failure", f"{LOST}[truncated_body]"),
    ("lost_answer_is_a_failure", FORGOTTEN),
    ("lost_answer_is_a_failure", NO_ANSWER),
    ("new_key_for_each_attempt", f"{LOST}[connection_reset]"),
    ("new_key_for_each_attempt", f"{LOST}[truncated_body]"),
    ("new_reference_for_each_attempt", f"{LOST}[connection_reset]"),
    ("no_signature_check", f"{FORGED}[tampered_body]"),
    ("no_signature_check", f"{FORGED}[wrong_key]"),
    ("parks_payouts_after_a_429", f"{BUSY}[rate_limit]"),
    ("status_code_is_not_checked", f"{BUSY}[error]"),
    ("success_is_final", TWICE),
)
"""The shop with one mistake → a test of the shop's own suite that fails."""

# Pays on request and notes the statuses of events.
APP: Final = """
import http.server, json, os, urllib.request
status = "none"
def pay():
    body = {"merchant_reference": "17", "amount": "250.00", "dest_type": "BANK", "bank_code": "HBL",
            "account_number": "12345678900001"}
    headers = {"X-API-KEY": os.environ["PSP_API_KEY"], "X-IDEMPOTENCY-KEY": "17", "Content-Type": "application/json"}
    url = os.environ["PSP_URL"] + "/api/v1/payouts"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)).read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global status
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        if self.path == "/pay":
            pay()
        else:
            event = json.loads(body)
            if event["type"] in WANTED:
                status = event["data"]["status"]
        self.answer(b"")
    def do_GET(self):
        self.answer(status.encode())
    def answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
MISTAKEN: Final = 'WANTED = ["payout.created", "payout.processing"]\n'
CORRECT: Final = 'WANTED = ["payout.created", "payout.processing", "payout.succeeded"]\n'
FAILS: Final = """
import sys

def test_the_order_is_paid(psp, live_process):
    app = live_process([sys.executable, "app.py"])
    app.client.post("/pay").raise_for_status()
    psp.drain()
    app.restart()
    psp.pays("success", reference="other")
    psp.drain()
    assert app.client.get("/").text == "SUCCESS"
"""

# The webhooks reach the application between the two requests, and nothing that the test does to the sandbox makes them.
SEES_TOO_LITTLE: Final = """
import sys, threading, time

def test_the_order_is_paid(psp, live_process):
    app = live_process([sys.executable, "app.py"])
    may_come = threading.Event()
    psp.received.gate = lambda received: may_come.is_set()
    try:
        app.client.post("/pay").raise_for_status()
        assert app.client.get("/").text == "none"
    finally:
        may_come.set()
    deadline = time.monotonic() + 60
    while len([one for one in psp.received.all() if one.answered_at]) < 3:
        assert time.monotonic() < deadline, psp.received.all()
        time.sleep(0.01)
    assert app.client.get("/").text == "SUCCESS"
"""


Outcomes = dict[str, str]
"""Class name (the module with its packages) and name of a test → how it ended: `passed`, or its failure."""


def run_tests(folder: Path, sandbox: Address, *arguments: str) -> Outcomes:
    """Run tests, and return how they ended."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(folder),
        "--psp-url", sandbox.url, "--psp-admin-key", sandbox.admin_key or "", "--junitxml=results.xml", *arguments,
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    cases = ElementTree.parse(folder / "results.xml").iter("testcase")  # noqa: S314 (written by our own pytest)
    return {f"{one.get('classname')}::{one.get('name')}": _outcome(one) for one in cases}


def _outcome(case: ElementTree.Element) -> str:
    found = next((one for kind in ("failure", "error") if (one := case.find(kind)) is not None), None)
    return "passed" if found is None else f"{found.get('message')}\n{found.text}"


def to_test(bundle: Path, output: Path) -> None:
    """Write the test of a bundle with the command."""
    command = [sys.executable, "-m", "psp_sandbox", "world", "to-test", str(bundle), "-o", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_a_failed_test_of_a_process_becomes_a_test_that_fails_until_the_mistake_is_corrected(
    tmp_path: Path, sandbox: Address
) -> None:
    (tmp_path / "app.py").write_text(MISTAKEN + APP)
    (tmp_path / "test_order.py").write_text(FAILS)
    (failed,) = run_tests(tmp_path, sandbox, "test_order.py").values()
    assert "assert 'PROCESSING' == 'SUCCESS'" in failed
    (bundle,) = (tmp_path / ".psp-failures").glob("*.psp-world.json")
    assert "whsec_" not in bundle.with_name(bundle.name.replace("psp-world", "psp-application")).read_text()
    to_test(bundle, tmp_path / "test_red.py")

    (red,) = run_tests(tmp_path, sandbox, "test_red.py").values()
    assert "The application still does what it did when the test failed." in red
    timeline = [line.split("  ", 2)[-1] for line in red.splitlines() if "→" in line]
    order = [
        "test → application: POST /pay", "application → sandbox: POST /api/v1/payouts",
        "sandbox → application: payout.succeeded (version 3) → 200", "test → application: restart",
        "test → sandbox: POST /api/v1/payouts", "test → application: GET / → 200 PROCESSING",
    ]  # fmt: skip
    places = [next(place for place, line in enumerate(timeline) if text in line) for text in order]
    assert sorted(places) == places, red

    (tmp_path / "app.py").write_text(CORRECT + APP)
    assert list(run_tests(tmp_path, sandbox, "test_red.py").values()) == ["passed"]
    # Another mistake in its place is not a correction.
    (tmp_path / "app.py").write_text(CORRECT + APP.replace("send_response(200)", "send_response(204 if status else 500)"))
    (tmp_path / "app.py").write_text((tmp_path / "app.py").read_text().replace('status = "none"', 'status = ""'))
    (broken,) = run_tests(tmp_path, sandbox, "test_red.py").values()
    assert "The application behaves differently now, but it still fails:" in broken


@pytest.mark.slow
def test_webhooks_come_between_the_same_requests_again(tmp_path: Path, sandbox: Address) -> None:
    (tmp_path / "app.py").write_text(MISTAKEN + APP)
    (tmp_path / "test_order.py").write_text(SEES_TOO_LITTLE)
    (failed,) = run_tests(tmp_path, sandbox, "test_order.py").values()
    assert "assert 'PROCESSING' == 'SUCCESS'" in failed
    (bundle,) = (tmp_path / ".psp-failures").glob("*.psp-world.json")
    to_test(bundle, tmp_path / "test_red.py")
    (red,) = run_tests(tmp_path, sandbox, "test_red.py").values()
    assert "The application still does what it did when the test failed." in red
    (tmp_path / "app.py").write_text(CORRECT + APP)
    assert list(run_tests(tmp_path, sandbox, "test_red.py").values()) == ["passed"]


@pytest.mark.slow
def test_failing_tests_of_broken_shops_become_tests_that_fail_there_and_pass_with_the_correct_shop(
    tmp_path: Path, sandbox: Address
) -> None:
    changes = {one.name: one.changes for one in declared.variants()}
    for name in ("correct", *{name for name, _ in FAILING}):
        _make_shop(tmp_path / name, changes.get(name, ()))
    outcomes = run_tests(tmp_path, sandbox, *(f"{name}/tests/{test}" for name, test in FAILING))
    # A few mistakes show only if webhooks arrive in another order, or before an answer, which happens nearly always.
    failed = [test for test, outcome in outcomes.items() if outcome != "passed"]
    assert len(failed) >= 20
    bundles = sorted((tmp_path / ".psp-failures").glob("*.psp-world.json"))
    assert len(bundles) == len(failed)
    written = []
    for number, bundle in enumerate(bundles):
        written.append(tmp_path / bundle.name.partition(".")[0] / "tests" / f"test_red_{number:02}.py")
        to_test(bundle, written[-1])
        shutil.copy(written[-1], tmp_path / "correct" / "tests")
    red = run_tests(tmp_path, sandbox, *map(str, written))
    assert len(red) == len(failed)
    reasons = {test: outcome for test, outcome in red.items() if "does what it did when the test failed" not in outcome}
    assert reasons == {}
    green = run_tests(tmp_path, sandbox, *(f"correct/tests/{one.name}" for one in written))
    assert {test: outcome for test, outcome in green.items() if outcome != "passed"} == {}


def _make_shop(folder: Path, changes: Sequence[declared.Change]) -> None:
    """Copy the shop with all its tests, as a package, and make the changes."""
    shutil.copytree(declared.EXAMPLES / "shop", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for one in changes:
        path = folder / one.file
        path.write_text(path.read_text().replace(one.old, one.new))


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "psp.application", "version": 1, "steps": [{"x": 1}]}', "nothing"])
def test_what_is_not_a_failed_test_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not the recording of a failed test|Expecting value"):
        Recorded.from_json(text)
