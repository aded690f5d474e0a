"""`live_process`: an application in any language, as a process of its own, with its webhooks, its output and its crashes."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from psp_sandbox.testing import AppError, LiveProcess, StartProcess, UsageError, World
from tests.harness.plugin import Project
from tests.harness.supervised import is_over, wait_for
from tests.harness.world import Stack

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
SUCCEEDED = ["payout.created", "payout.processing", "payout.succeeded"]
SELLER = {"id": "ali", "bank_code": "HBL", "account_number": "12345678900001"}
# Keeps what it gets in the file `got`, prints it, and answers with it.
SCRIPT = """
import http.server, os, pathlib, sys
got = pathlib.Path("got")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        with got.open("a") as file:
            file.write(f"{self.path} {self.headers.get('webhook-id')}\\n")
        print("got", os.environ["PSP_WEBHOOK_SECRET"], self.path, flush=True)
        self.send_response(204)
        self.end_headers()
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def start(live_process: StartProcess, tmp_path: Path) -> Callable[..., LiveProcess]:
    """Start the script above in a folder of its own."""
    (tmp_path / "app.py").write_text(SCRIPT)
    return lambda **options: live_process([sys.executable, "app.py", "{port}"], cwd=tmp_path, **options)


def test_a_shop_in_node_pays_gets_its_webhooks_and_survives_a_crash(
    psp: World, live_process: StartProcess, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("There is no Node.")
    shop = live_process(
        [node, "examples/node/server.js"], cwd=ROOT, path="/webhooks/psp", env={"SHOP_FILE": str(tmp_path / "shop.json")}
    )
    shop.client.post("/sellers", json=SELLER).raise_for_status()
    shop.client.post("/orders", json={"seller": "ali", "total": "250.00"}).raise_for_status()
    shop.kill()
    assert shop.exit_code == -signal.SIGKILL
    shop.restart()
    shop.client.post("/payouts", json={}).raise_for_status()
    payout = psp.next_payout()
    assert psp.webhooks(payout).types == SUCCEEDED
    assert {one.status for one in psp.webhooks.received} == {200}
    assert shop.client.get("/sellers/ali").json()["payouts"] == [{"amount": "250.00", "status": "SUCCESS"}]


def test_webhooks_that_no_running_process_takes_come_again(
    psp: World, start: Callable[..., LiveProcess], tmp_path: Path
) -> None:
    shop = start(ready="/health", endpoint={"event_types": ["payout.created", "payout.succeeded"]})
    shop.kill()
    psp.pays("success", reference="A-1")
    assert [one.status for one in psp.webhooks.received if one.status != 502] == []
    shop.restart()
    psp.advance("1h")
    arrived = psp.webhooks
    assert arrived.types == ["payout.created", "payout.succeeded"]
    # Retries come in any order.
    assert {*(tmp_path / "got").read_text().splitlines()} == {f"/webhooks {one.id}" for one in arrived}


def test_a_second_process_has_an_endpoint_of_its_own(psp: World, start: Callable[..., LiveProcess], tmp_path: Path) -> None:
    first, second = start(), start(path="/hooks", endpoint={"event_types": ["payout.succeeded"]})
    assert first.webhook_secret == psp.webhook_secret != second.webhook_secret
    psp.pays("success")
    assert [len(one.received) for one in psp.webhooks] == [1, 1, 2]
    paths = sorted(line.split()[0] for line in (tmp_path / "got").read_text().splitlines())
    assert paths == ["/hooks", "/webhooks", "/webhooks", "/webhooks"]
    assert f"got {second.webhook_secret} /hooks" in second.output
    with pytest.raises(UsageError, match="Use either it or live_app"):
        psp.forward_webhooks("http://127.0.0.1:3000/webhooks")


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        ("print('no database'); raise SystemExit(3)", {}, r"(?s)ended with exit code 3. It printed:.*no database"),
        (
            "import time; print('starting', flush=True); time.sleep(600)",
            {"timeout": 0.3},
            r"(?s)did not answer within 0.3 s at port \d+.*PORT",
        ),
    ],
)
def test_an_application_that_does_not_start_says_why(
    psp: World, live_process: StartProcess, code: str, options: dict[str, float], message: str
) -> None:
    with pytest.raises(AppError, match=message):
        live_process([sys.executable, "-c", code], **options)  # type: ignore[arg-type]  # only `timeout`


def test_a_command_that_is_not_there_or_not_a_list_is_explained(psp: World, live_process: StartProcess) -> None:
    with pytest.raises(AppError, match="`no-such-program` cannot be started"):
        live_process(["no-such-program"])
    with pytest.raises(UsageError, match=r'a list, such as \["node", "app.js"\]'):
        live_process("node app.js")


def test_the_report_of_a_failed_test_has_the_applications_output_without_secrets(
    pytester: pytest.Pytester, stack: Stack
) -> None:
    result = Project(pytester, stack).run(f"""
        import sys

        def test_fails(psp, live_process):
            shop = live_process([sys.executable, "-c", {SCRIPT!r}, "{{port}}"])
            psp.pays("success")
            psp.drain()
            shop.kill()
            assert False
    """)
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r"-+ PSP Sandbox: output of .*\(ended with exit code -9\) -+", r"got \*\*\* /webhooks"])
    result.stdout.no_fnmatch_line("*whsec_*")


def test_a_process_ends_with_the_test_and_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    """Also what the process has started itself: `npm start` runs a shell that runs the server."""
    (tmp_path / "app.py").write_text(SCRIPT)
    (tmp_path / "run.py").write_text(f"""
import sys, time
from psp_sandbox.testing.live_process import LiveProcess, free_port
port = free_port()
url = f"http://127.0.0.1:{{port}}"
command = ("/bin/sh", "-c", f"{{sys.executable}} app.py {{port}} & wait")
app = LiveProcess(command, url, port, "", "", "", {{"PSP_WEBHOOK_SECRET": ""}}, {str(tmp_path)!r}, None, 30)
app.start()
print(app.url, flush=True)
if sys.argv[1] == "killed": time.sleep(1000)
app.close()
""")
    for how in ("killed", "closed"):
        with subprocess.Popen([sys.executable, tmp_path / "run.py", how], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
            assert run.stdout is not None
            url = run.stdout.readline().strip()
            if how == "killed":
                started = psutil.Process(run.pid).children(recursive=True)
                assert len(started) == 3  # with the shell that watches
                run.kill()
                wait_for(lambda started=started: all(map(is_over, started)), "the end of all processes")
            assert run.wait(60) == (-signal.SIGKILL if how == "killed" else 0)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
