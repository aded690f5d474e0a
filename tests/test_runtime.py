"""The supervisor and the embedded stores, as real processes: what is started is ended, however the run ends."""

import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox.cli.doctor import examine
from sandbox.runtime.child import Child, Command
from tests.harness.supervised import KEYS, SERVER, Run, command, environment, is_over, wait_for

Starter = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts runs, ephemeral ones unless told otherwise; none outlives the test."""
    runs: list[Run] = []

    def start_one(user: str | None = None, **options: Any) -> Run:
        ready_file = Path(options.setdefault("ready_file", str(tmp_path / f"ready-{len(runs)}.json")))
        options.setdefault("data", None)
        process = subprocess.Popen(
            command(options),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tempfile.gettempdir(),
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
        )
        runs.append(Run(process, ready_file))
        return runs[-1]

    yield start_one
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
            try:
                run.output()
            except subprocess.TimeoutExpired:
                run.process.kill()
        if run.process.stdout is not None:
            run.process.stdout.close()
        run.process.wait()
        run.assert_nothing_left()


@pytest.fixture
def data_parent() -> Iterator[Path]:
    """A directory that PostgreSQL's system user can enter, unlike pytest's own."""
    place = Path(tempfile.mkdtemp(prefix="psp-test-", dir="/tmp"))
    place.chmod(0o711)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def ephemeral_directory(ready: dict[str, Any]) -> Path:
    return Path(ready["redis_url"].removeprefix("unix://")).parent.parent


def select_one(ready: dict[str, Any]) -> str:
    """One query with psql's own protocol library's twin: asyncpg, in a process of its own."""
    text = (
        "import asyncio, asyncpg, sys\n"
        "async def main():\n"
        "    connection = await asyncpg.connect(sys.argv[1], timeout=5)\n"
        "    print(await connection.fetchval('SELECT 1'))\n"
        "    await connection.close()\n"
        "asyncio.run(main())\n"
    )
    asked = subprocess.run([sys.executable, "-c", text, ready["database_url"]], capture_output=True, text=True, check=False)
    return asked.stdout.strip()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 (our own URL)
        return str(response.read().decode())


def test_an_ephemeral_run_says_where_it_is_and_leaves_nothing(start: Starter) -> None:
    run = start(api_processes=2, workers=2)
    ready = run.ready()
    assert set(ready) == {
        "api_url", "ipn_url", "console_url", "api_key", "member_api_key", "admin_key", "merchant_id",
        "webhook_secret", "ipn_secret", "database_url", "redis_url",
    }  # fmt: skip
    assert {name: ready[name] for name in KEYS} == KEYS
    assert stat.S_IMODE(run.ready_file.stat().st_mode) == 0o600
    assert get(ready["api_url"] + "/health/ready").isdigit()
    assert ready["console_url"] == ready["api_url"] + "/console"
    assert select_one(ready) == "1"
    assert len(psutil.Process(run.process.pid).children()) == 8  # guardian, two stores, 2 API, IPN, 2 workers
    directory = ephemeral_directory(ready)
    assert directory.is_dir()
    sockets = Path(ready["database_url"].split("host=")[1])
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700

    code, text = run.end()

    assert code == 0
    assert text.splitlines()[-1] == "stopped"
    assert json.loads(text.splitlines()[0]) == ready
    assert all(is_over(process) for process in run.seen.values())
    assert not directory.exists()
    assert not run.ready_file.exists()


def test_a_killed_supervisor_leaves_no_process_and_no_directory(start: Starter) -> None:
    # A worker that does not follow the lifeline is ended by the guardian.
    run = start(programs={"worker": "import time; time.sleep(1000)"})
    ready = run.ready()
    run.process.kill()
    run.process.wait()
    run.assert_nothing_left()
    wait_for(lambda: not ephemeral_directory(ready).exists(), "the end of the directory")
    assert not run.ready_file.exists()


def test_killed_children_come_back_and_connections_wait_meanwhile(start: Starter) -> None:
    run = start()
    ready = run.ready()
    api = int(get(ready["api_url"] + "/"))
    postmaster = run.child("bin/postgres")
    redis = run.child("valkey-server")
    assert postmaster is not None
    assert redis is not None
    for pid in (api, postmaster.pid, redis.pid):
        os.kill(pid, signal.SIGKILL)
    assert int(get(ready["api_url"] + "/")) != api
    assert wait_for(lambda: select_one(ready) == "1", "PostgreSQL's return")
    again = wait_for(lambda: run.child("valkey-server"), "Redis' return")
    assert again.pid != redis.pid
    assert run.end()[0] == 0


def test_it_stops_when_the_process_that_started_it_ends(start: Starter, tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    arguments = command({"data": None, "ready_file": str(ready_file)})
    # Tests that were begun with nohup would hand it on, and it means to stay.
    text = "import signal, subprocess, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    text += "p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        env=environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        assert parent.stdout is not None
        supervisor = psutil.Process(int(parent.stdout.readline()))
        wait_for(ready_file.exists, "ready")
        children = supervisor.children(recursive=True)
        parent.kill()
        wait_for(lambda: all(is_over(each) for each in [supervisor, *children]), "the end of all processes")


def test_ctrl_c_during_the_start_leaves_nothing(start: Starter, data_parent: Path) -> None:
    migration = "import time; time.sleep(1000)"
    run = start(data=str(data_parent / "data"), programs={"migrate": migration})
    wait_for(lambda: run.child(migration), "the migration")
    run.note()
    code, text = run.end(signal.SIGINT)
    assert (code, text) == (0, "stopped\n")


def test_a_second_ctrl_c_waits_for_nothing(start: Starter) -> None:
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)"
    run = start(programs={"worker": deaf})
    run.ready()
    api, worker = run.child(SERVER), run.child(deaf)
    assert api is not None
    assert worker is not None
    run.process.send_signal(signal.SIGINT)
    wait_for(lambda: is_over(api), "the stop of the API")
    began = time.monotonic()
    # The supervisor takes two within half a second for one, so this is sent until it is taken.
    while not is_over(worker) and time.monotonic() - began < 8:
        run.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert is_over(worker), "it was waited for, which takes ten seconds"
    run.output()
    assert run.process.returncode == 0
    run.assert_nothing_left()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_data_that_the_store_cannot_reach_gets_a_place_of_its_own(start: Starter, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tmp_path.chmod(0o700)
    run = start(data=str(data))
    assert select_one(run.ready()) == "1"
    text = run.end()[1]
    found = re.search(r"keeps its data in (/var/lib/psp-sandbox/[0-9a-f]{16}),", text)
    assert found
    shutil.rmtree(found[1])
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_data_and_key_stay_between_runs_even_after_a_kill(start: Starter, data_parent: Path) -> None:
    # The name is too long for a socket, and needs quoting in a URL.
    data = data_parent / ("data of a run, " + "x" * 80)
    first = start(data=str(data))
    ready = first.ready()
    key = (data / "secret.key").read_text()
    assert stat.S_IMODE((data / "secret.key").stat().st_mode) == 0o600

    refused = start(data=str(data))
    text = refused.output()
    assert refused.process.returncode == 1
    assert f"The data directory {data} is in use by another psp up (process {first.process.pid})" in text
    assert get(ready["api_url"] + "/")

    first.process.kill()
    second = start(data=str(data))
    assert select_one(second.ready()) == "1"
    assert (data / "secret.key").read_text() == key
    assert second.end()[0] == 0


def test_a_port_in_use_is_named(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = start(ipn_port=port)
        text = run.output()
    assert run.process.returncode == 1
    assert f"Port {port} on 127.0.0.1 is in use by another program; give another one with --ipn-port" in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"host": "0.0.0.0"}, "SANDBOX_ADMIN_KEY must be set"),  # noqa: S104
        ({"programs": {"migrate": "raise SystemExit('no such table')"}}, "no such table"),
        ({"programs": {"seeds": "print('hello')"}}, "seeds printed no JSON object"),
        ({"programs": {"worker": "raise SystemExit('a worker that cannot start')"}}, "a worker that cannot start"),
    ],
)
def test_a_start_that_fails_says_why(start: Starter, options: dict[str, Any], sentence: str) -> None:
    run = start(**options)
    text = run.output()
    assert run.process.returncode == 1
    assert sentence in text
    assert "Traceback" not in text


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user then")
def test_an_ordinary_user_can_run_it(start: Starter) -> None:
    asked = subprocess.run(["/bin/sh", "-c", 'test -x "$1"', "sh", os.path.realpath(sys.executable)],
                           user="nobody", check=False)  # fmt: skip
    if asked.returncode != 0:
        pytest.skip("this Python lies where an ordinary user cannot reach it")
    place = Path(tempfile.mkdtemp(prefix="psp-test-", dir="/tmp"))
    try:
        shutil.chown(place, "nobody")
        run = start(user="nobody", ready_file=str(place / "ready.json"), data=str(place / "data"))
        run.ready()
        assert {process.username() for process in run.note()} == {"nobody"}
        assert run.end()[0] == 0
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_what_is_found_dead_has_not_lasted_however_late_it_is_found(tmp_path: Path) -> None:
    child = Child(Command("short", [sys.executable, "-c", ""], {}, tmp_path / "log"), lambda child: child.age > 1)
    for deaths in (1, 2):
        child.start()
        process = psutil.Process(child.pid)
        wait_for(lambda process=process: is_over(process), "its end")
        child._started -= 60
        assert not child.is_up()
        assert child.look()
        assert (child.was_up, child.deaths, child.exit_status) == (False, deaths, 0)


def test_doctor_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("SANDBOX_BATCH_LIMIT", "many")
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        findings = examine(tmp_path / "file", "127.0.0.1", taken.getsockname()[1], 0)
    wrong = {finding.check: finding.detail for finding in findings if not finding.ok}
    assert set(wrong) == {"settings", "data", "port", "redis"}
    assert "SANDBOX_BATCH_LIMIT" in wrong["settings"]
    assert {finding.check for finding in findings if finding.ok} == {"python", "ipn port", "postgres"}
