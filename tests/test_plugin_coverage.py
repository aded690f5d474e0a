"""`--psp-report` says what a suite exercised of the sandbox and what it did not, even with pytest-xdist."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from psp_sandbox.testing.coverage import AFTER_429, AFTER_ERROR, CATEGORIES, FAULTS, REPEATED, RETRIES, STATES, Coverage
from tests.harness.world import Stack

SUITE = """
import httpx
import pytest

BODY = {"merchant_reference": "r",
        "amount": "1.00", "dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}


def create(psp):
    headers = {"X-API-KEY": psp.api_key, "X-IDEMPOTENCY-KEY": "k"}
    return httpx.post(psp.url + "/api/v1/payouts", json=BODY, headers=headers).status_code


@pytest.mark.parametrize("scenario", ["returned", "failed"])
def test_scenario(psp, scenario):
    psp.pays(scenario)
    psp.advance("60s")


def test_retry_after_an_error(psp):
    with psp.fault("error", on="POST /payouts", status=503, count=1):
        assert [create(psp), create(psp)] == [503, 201]


def test_refusal(psp):
    assert [create(psp), create(psp)] == [201, 201]
    assert httpx.get(psp.url + "/api/v1/payouts/none", headers={"X-API-KEY": psp.api_key}).status_code == 404


def test_webhook_is_retried(psp):
    with psp.fault("drop", count=1) as fault:
        psp.pays("success")
    assert fault.hit
    psp.advance("1h")
"""


def run(stack: Stack, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the suite in a process of its own, against the running sandbox."""
    (folder / "test_suite.py").write_text(SUITE)
    environment = {**os.environ, "PSP_URL": stack.api_url, "PSP_ADMIN_KEY": stack.admin_key}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:schemathesis", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_report_adds_up_what_all_workers_exercised(stack: Stack, tmp_path: Path) -> None:
    options = ("-n", "2", "--psp-report", "--psp-report-file", "out/report.md", "--psp-report-min", "90", "--junitxml", "j.xml")
    ended = run(stack, tmp_path, *options)
    assert "5 passed" in ended.stdout, ended.stdout + ended.stderr
    # All tests passed, so it is the minimum that fails the run.
    assert ended.returncode == 1
    shown = [" ".join(line.split()) for line in ended.stdout.splitlines()]
    for line in (
        "Payout states: 5 of 11", "RETURNED 1 test", "CANCELLED -", "BANK_REJECTED 1 test", "TIMEOUT -", "NOT_FOUND 1 test",
        "UNAVAILABLE 1 test", "api: error 1 test", "webhooks: drop 1 test", "webhooks: wrong_key -",
        "call repeated with its idempotency key 2 tests", "call repeated after an error 1 test", "call repeated after a 429 -",
        "webhook accepted after a failed attempt 1 test",
    ):  # fmt: skip
        assert line in shown, ended.stdout
    (total,) = [line for line in shown if "exercised (" in line]
    assert f"PSP Sandbox: the tests exercised {percent(total)} %; --psp-report-min is 90 %." in ended.stdout

    markdown = (tmp_path / "out" / "report.md").read_text()
    assert markdown.startswith(f"### PSP Sandbox: {total}\n")
    assert "| Payout states | 5 of 11 | `REQUESTED`, `RETRY`, `ON_HOLD`, `IN_REVIEW`, `CANCELLED`, `REJECTED` |" in markdown
    assert "| Problem codes | `NOT_FOUND` | 1 |" in markdown

    found = ElementTree.parse(tmp_path / "j.xml").iter("property")  # noqa: S314 - the test made the file
    properties = {element.get("name"): element.get("value") for element in found}
    assert properties["psp.payout_states"] == "5/11"
    assert "TIMEOUT" in (properties["psp.failure_codes.not_exercised"] or "").split(", ")
    assert properties["psp.exercised_percent"] == percent(total)


def percent(total: str) -> str:
    exercised, _, of, *_ = total.split()
    return f"{100 * int(exercised) / int(of):.1f}"


def test_with_enough_coverage_the_run_passes(stack: Stack, tmp_path: Path) -> None:
    ended = run(stack, tmp_path, "--psp-report-min", "10", "-k", "returned or failed")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Payout states" not in ended.stdout  # only the option --psp-report prints the table


def test_a_minimum_that_is_no_percentage_is_refused(tmp_path: Path, stack: Stack) -> None:
    ended = run(stack, tmp_path, "--psp-report-min", "101")
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--psp-report-min is a percentage from 0 to 100, not 101" in ended.stderr


def test_coverages_of_several_processes_add_up() -> None:
    first, second = Coverage({STATES: ["PENDING", "SUCCESS"], FAULTS: ["api: error"]}), Coverage()
    first.tests[STATES] = Counter(PENDING=2)
    second.known = first.known
    second.tests[STATES] = Counter(PENDING=1, SUCCESS=1)
    second.tests[FAULTS] = Counter({"api: own": 1})  # a name that the sandbox does not describe
    total = Coverage()
    for one in (first, second, Coverage()):  # the last one is of a worker that ran no test with a sandbox
        total.add(Coverage.from_json(one.to_json()))
    assert list(total.rows()) == [
        (STATES, "PENDING", 3), (STATES, "SUCCESS", 1), (FAULTS, "api: error", 0), (FAULTS, "api: own", 1),
    ]  # fmt: skip
    assert (total.share(STATES), total.share(FAULTS), total.share(), total.percent) == ((2, 2), (1, 2), (3, 4), 75.0)


def test_without_tests_that_use_the_sandbox_there_is_nothing_to_report() -> None:
    assert (Coverage().as_text(), Coverage().percent) == (["No test used the sandbox."], 0.0)
    assert dict(Coverage().as_properties())["psp.exercised_percent"] == "0.0"
    assert set(Coverage().tests) == set(CATEGORIES)


def test_a_repeated_call_is_told_by_what_came_before_it() -> None:
    from psp_sandbox.testing.coverage import _repetitions

    def call(status: int, key: str | None = "k", path: str = "/p", fault: object = None) -> dict[str, object]:
        return {"method": "POST", "path": path, "idempotency_key": key, "status": status, "fault": fault}

    assert list(_repetitions([call(429), call(201)])) == [REPEATED, AFTER_429]
    assert list(_repetitions([call(503), call(201)])) == [REPEATED, AFTER_ERROR]
    # The journal shows the answer that the fault kept from the client.
    assert list(_repetitions([call(201, fault={"kind": "connection_reset"}), call(201)])) == [REPEATED, AFTER_ERROR]
    assert list(_repetitions([call(201), call(201)])) == [REPEATED]
    assert list(_repetitions([call(503), call(201, path="/q"), call(201, key=None), call(201, key=None)])) == []
    assert RETRIES in CATEGORIES
