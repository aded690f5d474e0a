"""Shops in five languages that know nothing of the sandbox follow its clock: timers fire, connections survive.

Skipped for languages and PostgreSQL drivers that are not installed.
"""

import asyncio
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.harness.certificates import certificate
from tests.harness.one_clock import NEEDS_ONE_CLOCK
from tests.harness.proxy import Proxy
from tests.harness.supervised import environment as clean_environment
from tests.harness.world import Stack

pytestmark = [pytest.mark.slow, *NEEDS_ONE_CLOCK]

SHOPS: Final = Path(__file__).parent / "clocked_shops"
TIMES: Final = os.environ.get("PSP_SWEEPS", "1")
DEEP_JUMPS: Final = os.environ.get("PSP_JUMP")
SWEEP_SECONDS: Final = "90000" if "PSP_SWEEPS" in os.environ else "3600"
_JDBC: Final = Path("/usr/share/java/postgresql.jar")


@dataclass(frozen=True)
class Language:
    """How a shop is started, and the command that checks whether its PostgreSQL driver is installed."""

    command: tuple[str, ...]
    driver: tuple[str, ...]


LANGUAGES: Final = {
    "node": Language(("node", "shop.mjs"), ("node", "-e", "require('pg')")),
    "python": Language((sys.executable, "shop.py"), ("true",)),
    "java": Language(("java", "-cp", f".:{_JDBC}", "Shop"), ("test", "-f", str(_JDBC))),
    "ruby": Language(("ruby", "shop.rb"), ("ruby", "-e", 'require "pg"')),
    "php": Language(("php", "shop.php"), ("php", "-r", 'exit((int) !extension_loaded("pdo_pgsql"));')),
}

SWEEPS: Final = """
import os
import pytest

@pytest.mark.parametrize("number", range(int(os.environ["TIMES"])))
def test_an_advance_fires_the_sweep(psp, live_process, number):
    shop = live_process(COMMAND, cwd=FOLDER, one_clock=True)
    began = psp.now
    sweep = int(os.environ["SWEEP_SECONDS"])
    run = psp.advance(f"{sweep + 120}s")
    payout = psp.next_payout()
    swept_at, compared, apart = map(float, payout.merchant_reference.removeprefix("swept-").split("-"))
    assert -1 < swept_at - began.timestamp() - sweep < 120
    assert abs(swept_at - payout.created_at.timestamp()) < 1, "at the step that fires it, both clocks show the same"
    assert compared > 30, "it has a timer of a minute, so there were that many steps"
    assert apart < 1, "at every step, both clocks show the same"
    wall, _ = map(float, shop.client.get("/clocks").text.split())
    assert abs(wall - run.now.timestamp()) < 1
    psp.webhooks.expect("payout.succeeded", payout=payout)
"""

JUMPS: Final = """
import os, threading

def test_jumps_under_load(psp, live_process):
    shop = live_process(COMMAND, cwd=FOLDER, one_clock=True)
    answers, ends = [], threading.Event()
    def work():
        while not ends.is_set():
            found = shop.client.get("/work", timeout=60)
            answers.append((found.status_code, found.text))
    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers: worker.start()
    try:
        for _ in range(int(os.environ["JUMPS"])):
            run = psp.advance(os.environ["JUMP"])
            wall, _ = map(float, shop.client.get("/clocks", timeout=60).text.split())
            assert wall > run.now.timestamp() - 1
    finally:
        ends.set()
        for worker in workers: worker.join()
    assert [answer for answer in answers if answer[0] != 200] == []
"""


def shop(language: str, folder: Path, *, with_driver: bool = False) -> tuple[str, ...]:
    """Make a language's shop in a folder, and return the command that starts it."""
    command, driver = LANGUAGES[language].command, LANGUAGES[language].driver
    if shutil.which(command[0]) is None:
        pytest.skip(f"{language} is not installed")
    if with_driver and subprocess.run(driver, cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip(f"{language} has no driver of PostgreSQL here")
    for file in SHOPS.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    if language == "java":
        subprocess.run(["javac", "Shop.java"], cwd=folder, check=True)
    return command


def run(folder: Path, command: tuple[str, ...], test: str, **env: str) -> str:
    """Run a test of the plugin with a sandbox of its own, and return what it printed."""
    test_file = folder / "test_shop.py"
    test_file.write_text(f"COMMAND, FOLDER = {list(command)!r}, {str(folder)!r}\n{test}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "test_shop.py"], cwd=folder,
        env=clean_environment() | {"SWEEP_SECONDS": SWEEP_SECONDS} | env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_advance_fires_the_sweep_of_a_shop_and_the_clocks_never_diverge(language: str, tmp_path: Path) -> None:
    """The sweep is due after an hour. PSP_SWEEPS sets how many sweeps to try, which are then due after 25 hours."""
    assert f"{TIMES} passed" in run(tmp_path, shop(language, tmp_path), SWEEPS, TIMES=TIMES)


@contextmanager
def upstream(folder: Path) -> Iterator[str]:
    """Yield the URL of a TLS server that needs a moment for each answer, with its certificate in the folder."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(0.05)
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    context = certificate(folder, "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("language", LANGUAGES if DEEP_JUMPS else ["python"])
async def test_tls_timeouts_and_database_connections_survive_jumps_under_load(
    language: str, tmp_path: Path, stack: Stack
) -> None:
    """PSP_JUMP sets the length of each jump, such as 1m. Ten are then tried in every language, which takes minutes for each."""
    command = shop(language, tmp_path, with_driver=True)
    database = urlsplit(stack.database_url)
    socket = f"{parse_qs(database.query)['host'][0]}/.s.PGSQL.5432"
    async with Proxy(socket).serving() as proxy:
        user, name, port = database.username or "", database.path[1:], str(proxy.port)
        with upstream(tmp_path) as upstream_url:
            await asyncio.to_thread(
                run, tmp_path, command, JUMPS, UPSTREAM=upstream_url, UPSTREAM_CA=str(tmp_path / "cert.pem"),
                JUMP=DEEP_JUMPS or "5s", JUMPS="10" if DEEP_JUMPS else "3",
                PGHOST="127.0.0.1", PGPORT=port, PGDATABASE=name, PGUSER=user,
                DATABASE_DSN=f"pgsql:host=127.0.0.1;port={port};dbname={name}",
                JDBC_URL=f"jdbc:postgresql://127.0.0.1:{port}/{name}?user={user}",
            )  # fmt: skip
