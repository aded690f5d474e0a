"""A program that the supervisor forks has the same environment as one started with `python -P -m MODULE`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox.server.runtime.forking import CAN_FORK

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="programs are forked on Linux only")

REPORT_PROGRAM = """
import json, os, signal, sys
from pathlib import Path

def main():
    words = Path("/proc/self/cmdline").read_bytes().replace(b"\\0", b" ").decode().split()
    print(json.dumps({
        "environment": {key: value for key, value in os.environ.items() if key != "LC_CTYPE"},
        "arguments": sys.argv[1:], "program": os.path.basename(sys.argv[0]), "directory": os.getcwd(),
        "umask": os.umask(0), "leads_its_session": os.getsid(0) == os.getpid(),
        "files": sorted(set(map(int, os.listdir("/proc/self/fd")))), "words": words,
        "name": Path("/proc/self/comm").read_text(), "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "handlers": {int(n): repr(signal.getsignal(n)).split(" at ")[0] for n in signal.valid_signals()},
        "wakeup": signal.set_wakeup_fd(-1), "streams": [sys.stdin.fileno(), sys.stdout.fileno(), sys.stderr.fileno()],
    }))
    print("to standard error", file=sys.stderr)

if __name__ == "__main__":
    main()
"""
PARENT_PROGRAM = """
import os, signal, socket, sys
from pathlib import Path
from sandbox.server.runtime import child, forking
child.CAN_FORK = sys.argv[1] == "fork"
folder, module = Path(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGINT, lambda *_: None)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
pipe = os.pipe()
signals = socket.socketpair()
signals[0].setblocking(False)
signal.set_wakeup_fd(signals[0].fileno())
secret = os.open("/dev/null", os.O_RDONLY)
os.set_inheritable(secret, True)
shared = os.dup2(pipe[0], 100)
env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ["PYTHONPATH"], "PYTHONUNBUFFERED": "1", "OWN": "1"}
sys.stdout.write("buffered by the parent ")
if child.CAN_FORK:
    forking.preload([module], env, lambda: None)
    assert module in sys.modules and "OWN" not in os.environ
argv = (sys.executable, "-P", "-m", module, "one", "two words")
process = child.spawn(child.ProcessSpec("x", argv, env, folder / "log", (shared,), cwd=folder))
status = process.wait()
assert process.poll() == status
print(f"status {status}")
"""


def run(start_method: str, tmp_path: Path, text: str) -> tuple[str, str]:
    """Run a module with this source by "fork" or "exec". Return (the parent process's output, the module's log)."""
    (tmp_path / "reporting.py").write_text(text)
    (tmp_path / "log").unlink(missing_ok=True)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)])}
    parent = subprocess.run(
        [sys.executable, "-P", "-c", PARENT_PROGRAM, start_method, str(tmp_path), "reporting"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return parent.stdout, (tmp_path / "log").read_text()


def test_a_forked_program_has_the_same_environment_as_an_executed_one(tmp_path: Path) -> None:
    def report(start_method: str) -> dict[str, Any]:
        output, log = run(start_method, tmp_path, REPORT_PROGRAM)
        assert output == "buffered by the parent status 0\n"
        first, second = log.splitlines()
        assert second == "to standard error"
        found: dict[str, Any] = json.loads(first)
        return found

    forked, executed = report("fork"), report("exec")
    assert forked == executed
    assert forked["words"][1:5] == ["-P", "-m", "reporting", "one"]


@pytest.mark.parametrize(
    ("ending", "status", "last_line"),
    [
        ("pass", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('settings: wrong')", 1, "settings: wrong"),
        ("raise ValueError('lost')", 1, "ValueError: lost"),
        ("os.kill(os.getpid(), 15)", -15, ""),
        ("os.kill(os.getpid(), 9)", -9, ""),
    ],
)
def test_a_forked_program_exits_like_an_executed_one(tmp_path: Path, ending: str, status: int, last_line: str) -> None:
    text = f"import os, sys\ndef main():\n    {ending}\nif __name__ == '__main__':\n    main()\n"
    for start_method in ("fork", "exec"):
        output, log = run(start_method, tmp_path, text)
        assert output.endswith(f"status {status}\n")
        assert (log.splitlines() or [""])[-1] == last_line


def test_two_forked_programs_generate_different_random_numbers(tmp_path: Path) -> None:
    text = "import random\ndef main():\n    print(random.getrandbits(64), flush=True)\n"
    script = (
        PARENT_PROGRAM.rpartition("process =")[0]
        + """
for _ in range(2):
    child.spawn(child.ProcessSpec("x", argv, env, folder / "log")).wait()
"""
    )
    (tmp_path / "reporting.py").write_text(text)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)])}
    subprocess.run([sys.executable, "-P", "-c", script, "fork", str(tmp_path), "reporting"], env=env, check=True)
    assert len(set((tmp_path / "log").read_text().split())) == 2


def test_the_reaper_recognizes_a_forked_process_by_the_lifeline(tmp_path: Path) -> None:
    text = "import time\ndef main():\n    print('here')\n    time.sleep(1000)\n"
    script = (
        PARENT_PROGRAM.rpartition("process =")[0]
        + """
import time
from sandbox.server.runtime.processes import processes_of_run
process = child.spawn(child.ProcessSpec("x", argv, env, folder / "log", (shared,)))
while not (folder / "log").read_text():
    time.sleep(0.01)
found = [each.pid for each in processes_of_run("another run", shared)]
process.kill()
assert found == [process.pid], found
process.wait()
assert processes_of_run("another run", shared) == []
"""
    )
    (tmp_path / "reporting.py").write_text(text)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)])}
    subprocess.run([sys.executable, "-P", "-c", script, "fork", str(tmp_path), "reporting"], env=env, check=True)
