"""`psp explore -- COMMAND` explores a suite in any language."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from psp_sandbox.testing.explore.causes import cure
from psp_sandbox.testing.explore.own_merchants import OwnMerchantsExplorer, _listening, _Round
from psp_sandbox.testing.explore.results import Cause, Verdict
from psp_sandbox.testing.process import Address
from tests.harness.code_blocks import ROOT

SUITE = """
import json, os, pathlib, sys, urllib.request

def call(path, body=None):
    headers = {"X-API-KEY": os.environ["PSP_API_KEY"], "X-IDEMPOTENCY-KEY": "pay", "content-type": "application/json"}
    request = urllib.request.Request(os.environ["PSP_URL"] + path, body and json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request))

books = pathlib.Path(os.environ["PSP_RUN_DIR"], "books.jsonl")
if sys.argv[1] == "books":
    print(books.read_text() if books.exists() else "")
else:
    row = {"reference": "a", "status": "paid", "amount": "5.00"}
    books.write_text(json.dumps(row))
    account = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
    call("/api/v1/payouts", {"merchant_reference": "a", "amount": "5.00", **account})
"""


def run_psp_explore(folder: Path, sandbox: Address, *words: str) -> "subprocess.CompletedProcess[str]":
    (folder / "suite.py").write_text(SUITE)
    python = f"{sys.executable} suite.py"
    books = ("--books", f"{python} books", "--status", "paid=SUCCESS", "--point", "POST /payouts#1:request_lost")
    return run_words(folder, sandbox, *books, *words, "--", *python.split(), "pay")


def run_words(folder: Path, sandbox: Address, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "psp_sandbox", "explore", *words]
    env = {**os.environ, "PSP_URL": sandbox.url, "PSP_ADMIN_KEY": sandbox.admin_key or "", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_a_suite_that_is_a_command_is_explored_and_its_report_can_be_a_page(tmp_path: Path, sandbox: Address) -> None:
    done = run_psp_explore(tmp_path, sandbox, "--json", "--report-file", "evidence.html")
    assert done.returncode == 1, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    assert (point["verdict"], point["cause"]) == (Verdict.WRONG, Cause.NO_RETRY), point
    assert "--point 'POST /payouts#1:request_lost' -- " in point["repeat"]
    page = (tmp_path / "evidence.html").read_text(encoding="utf-8")
    assert "1 way tried: " in page
    assert cure(Cause.NO_RETRY) in page


def test_a_report_file_that_cannot_be_written_is_named(tmp_path: Path, sandbox: Address) -> None:
    (tmp_path / "file").touch()
    done = run_psp_explore(tmp_path, sandbox, "--report-file", "file/evidence.html")
    assert done.returncode == 2, done.stderr
    assert "Cannot write file/evidence.html" in done.stderr


def test_an_application_that_does_not_start_is_named_with_its_exit_code(tmp_path: Path, sandbox: Address) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/webhooks"
    done = run_psp_explore(tmp_path, sandbox, "--app", "sh -c 'exit 3'", "--webhook-url", url)
    assert done.returncode == 2, done.stderr
    assert f"sh -c 'exit 3' ended with exit code 3 before it listened at {url}." in done.stderr


OWN_MERCHANTS = """
import http.server, json, os, sys, threading, urllib.request

def call(url, body, key=None, **headers):
    headers |= {"content-type": "application/json", **({"X-API-KEY": key} if key else {})}
    return json.load(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)))

class Books(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps([{"reference": "a", "status": "SUCCESS", "amount": "5.00"}]).encode())

books = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Books)
threading.Thread(target=books.serve_forever, daemon=True).start()
psp, explore = os.environ["PSP_URL"], os.environ["PSP_EXPLORE_URL"]

def run(test, attempts):
    admin = {"X-ADMIN-KEY": os.environ["PSP_ADMIN_KEY"]}
    key = call(psp + "/sandbox/v1/merchants", {"name": test, "opening_balance": "10.00"}, **admin)["api_key"]
    call(explore + "/begin", {"test": test, "api_key": key})
    for _ in range(attempts):
        try:
            account = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
            payout = {"merchant_reference": "a", "amount": "5.00", **account}
            call(psp + "/api/v1/payouts", payout, key, **{"X-IDEMPOTENCY-KEY": "a"})
            break
        except OSError:
            pass
    if test != "endless":
        call(explore + "/rest", {"api_key": key, "failure": None, "books_url": f"http://127.0.0.1:{books.server_port}"})

run("repeats", 2)
run("gives up", 1)
run("endless", 1)
"""


def test_tests_that_make_a_merchant_each_are_explored_together(tmp_path: Path, sandbox: Address) -> None:
    (tmp_path / "own.py").write_text(OWN_MERCHANTS)
    words = ("--own-merchants", "--point", "POST /payouts#1:request_lost", "--json", "--", sys.executable, "own.py")
    done = run_words(tmp_path, sandbox, *words)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    verdicts = {point["test"]: (point["verdict"], point["cause"]) for point in found["points"]}
    assert verdicts == {"repeats": (Verdict.RIGHT, None), "gives up": (Verdict.WRONG, Cause.NO_RETRY)}, found
    assert [one["test"] for one in found["left_out"]] == ["endless"]
    assert found["has_books"]


def test_a_key_that_no_test_has_announced_is_refused_and_not_repeated() -> None:
    explorer, tests = object.__new__(OwnMerchantsExplorer), _Round({}, {})
    with _listening({"/rest": lambda told: explorer._end(tests, told)}) as url:
        refused = httpx.post(f"{url}/rest", json={"api_key": "sk_sandbox_nobody"}, trust_env=False)
    assert refused.status_code == 400
    assert "sk_sandbox_nobody" not in refused.text
