"""The shell blocks of the README run in order, print the output that the README shows and leave no files behind."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.supervised import end
from tests.harness.waiting import until

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SKIPPED = ("make up", "docker compose")
"""Skip blocks that start a sandbox themselves, with make or in containers."""
_SECOND_TERMINAL = "serve_forever"
"""A block with this text runs in a second terminal."""
_END = "-- end of block --"


@dataclass(frozen=True)
class Block:
    """A code block of the README.

    `sh` blocks are run. A `text` block is the expected output of the block before it, where … matches any text.
    """

    kind: str
    text: str


def blocks() -> list[Block]:
    """Return the code blocks of the README in order, without the skipped ones."""
    found = [Block(kind, text) for kind, text in _BLOCK.findall((ROOT / "README.md").read_text())]
    return [block for block in found if not block.text.startswith(_SKIPPED) and not any(n in block.text for n in _SKIPPED)]


def first_missing_line(output: str, expected: str) -> str | None:
    """Return the first line of `expected` that `output` does not contain in this order, or None if it contains all."""
    position = 0
    for line in expected.splitlines():
        pattern = "[^\n]*".join(map(re.escape, line.split("…")))
        match = re.compile(f"^{pattern}\r?$", re.MULTILINE).search(output, position)
        if match is None:
            return line
        position = match.end()
    return None


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield a fresh sandbox that runs as after `make up ARGS=--ephemeral`, but on free ports."""
    ready = tmp_path / "ready.json"
    arguments = ["up", "--ephemeral", "--port", "0", "--ipn-port", "0", "--ready-file", str(ready)]
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "sandbox.cli.main", *arguments], stdout=log, stderr=log)
    try:
        until(lambda: ready.exists() or process.poll() is not None, seconds=300)
        yield json.loads(ready.read_text())
    finally:
        end(process)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's blocks call curl, which is not installed")
def test_every_block_prints_the_documented_output_and_leaves_no_files(sandbox: dict[str, str], tmp_path: Path) -> None:
    until(lambda: f"{sandbox['api_url']}/docs" in (tmp_path / "up.log").read_text())  # the banner names the documentation
    folder = tmp_path / "checkout"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    replacements = {
        "http://127.0.0.1:8000": sandbox["api_url"],
        "http://127.0.0.1:8001": sandbox["ipn_url"],
        ".venv/bin/psp": f"{sys.executable} -m sandbox.cli.main",
        "IPN_SECRET=whsec_...": f"IPN_SECRET={sandbox['ipn_secret']}",
        "127.0.0.1:9000": f"127.0.0.1:{port}",
        '"127.0.0.1", 9000': f'"127.0.0.1", {port}',
    }
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    second = tmp_path / "second-terminal.log"
    receivers: list[subprocess.Popen[bytes]] = []
    shell = subprocess.Popen(
        ["bash"], cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    output, executed = "", 0
    try:
        for block in blocks():
            text = block.text
            for documented, actual in replacements.items():
                text = text.replace(documented, actual)
            if block.kind == "text":
                missing = first_missing_line(output, text)
                in_second = missing is not None and bool(receivers) and _prints(second, text)
                second_output = second.read_text() if receivers else ""
                assert missing is None or in_second, f"{missing}\nis not in:\n{output}\nnor in:\n{second_output}"
                output = ""
            elif _SECOND_TERMINAL in text:
                with second.open("wb") as log:
                    receivers.append(
                        subprocess.Popen(["bash", "-c", "exec " + text], cwd=folder, env=env, stdout=log, stderr=log)
                    )
                until(lambda: _is_listening(int(port)), 30)
            else:
                shell.stdin.write(f"{text}\necho\necho '{_END}'\n")  # curl ends its output with no newline
                shell.stdin.flush()
                lines = []
                for line in iter(shell.stdout.readline, ""):
                    if line.strip() == _END:
                        break
                    lines.append(line)
                output, executed = "".join(lines), executed + 1
                assert "Traceback" not in output, output
                assert "}{" not in output, output
        assert executed >= 12, "most blocks of the README must be executed"
        assert list(folder.iterdir()) == []
    finally:
        for process in receivers:
            end(process)
        shell.stdin.close()
        shell.wait(30)
        shell.stdout.close()


def _prints(log: Path, expected: str) -> bool:
    """Wait until the second terminal's log has each expected line. Return False if one does not appear in time.

    The lines can be in any order. Webhooks are sent in order but in parallel, so on a busy machine one can overtake another.
    """
    lines = expected.splitlines()
    with contextlib.suppress(AssertionError):
        return until(lambda: all(first_missing_line(log.read_text(), line) is None for line in lines))
    return False


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
