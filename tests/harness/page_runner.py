"""Runs the code blocks of one page as a reader would: in one folder, in one shell, with a second terminal at hand."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.harness.code_blocks import ROOT, Block, command_of, first_missing_line, mistake_in
from tests.harness.supervised import end
from tests.harness.waiting import until
from tests.harness.world import World

_SECONDS: Final = 240
"""How long a block may take on a machine that is busy with other things."""
_END: Final = "-- end of block --"
_BASH: Final = f"""
trap '__status=$?' ERR
while IFS= read -r __file <&9; do
  __status=0
  . "$__file"
  printf '\\n%s %s\\n' '{_END}' "$__status"
done
"""
_PYTHON: Final = f"""
import ast, asyncio, inspect, os, traceback
names, loop = {{"__name__": "__main__"}}, asyncio.new_event_loop()
for file in os.fdopen(9):
    status = 0
    try:
        text = open(file.strip(), encoding="utf-8").read()
        result = eval(compile(text, file.strip(), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.iscoroutine(result):
            loop.run_until_complete(result)
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        status = 1
        traceback.print_exc()
    print("\\n{_END}", status, flush=True)
"""


class _Session:
    """An interpreter that runs blocks one after another, and keeps variables and functions."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str], blocks: Path) -> None:
        names, self._names = os.pipe()
        # Descriptor 9, so that a block's own standard input is empty.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 9<&{names}', "bash", *command],
            cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            pass_fds=[names],
        )  # fmt: skip
        os.close(names)
        self._blocks = blocks

    def run(self, text: str, place: str) -> tuple[str, int]:
        """Run a block, and return its output and its exit code: that of the last command that failed, or 0.

        `place` is where the block is; it is also in the tracebacks of a script.
        """
        file = self._blocks / place.replace("/", "-")
        file.write_text(text, encoding="utf-8")
        os.write(self._names, f"{file}\n".encode())
        assert self._process.stdout is not None
        lines: list[str] = []
        timer = threading.Timer(_SECONDS, self._process.kill)
        timer.start()
        try:
            for line in self._process.stdout:
                if line.startswith(_END):
                    return "".join(lines), int(line.removeprefix(_END))
                lines.append(line)
        finally:
            timer.cancel()
        raise AssertionError(f"{place}: the interpreter ended, or took longer than {_SECONDS} s:\n{''.join(lines)}")

    def close(self) -> None:
        """End the interpreter."""
        os.close(self._names)
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class PageRunner:
    """Runs one page's blocks in a folder of their own, against a merchant of their own."""

    def __init__(self, world: World, folder: Path, blocks: list[Block]) -> None:
        self.folder = folder / "project"
        self._programs = folder / "bin"
        self._sources = folder / "blocks"
        for each in (self.folder, self._programs, self._sources):
            each.mkdir()
        for name, module in {"psp": "sandbox.cli.main", "pytest": "pytest"}.items():
            self._add_program(name, f'"{sys.executable}" -P -m {module}')
        for name in ("python", "python3"):
            self._add_program(name, f'"{sys.executable}"')
        (self.folder / "examples").symlink_to(ROOT / "examples")
        self._env = _environment(world, self._programs)
        self._replacements = _replacements(world, blocks)
        self._blocks = blocks
        self._sessions: dict[str, _Session] = {}
        self._second = folder / "second-terminal.log"
        self._in_second: list[subprocess.Popen[bytes]] = []
        self._output = ""

    def __enter__(self) -> "PageRunner":
        """Return this."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End everything that the blocks started."""
        for process in self._in_second:
            end(process)
        for session in self._sessions.values():
            session.close()

    def write_files(self) -> None:
        """Write all files that the page names."""
        for block in self._blocks:
            if block.file is not None:
                self._write(block.file, self._text_of(block))

    def run(self, block: Block) -> None:
        """Run a block, or check it: its output if it is a `text` block, its syntax if it is data or must not be run."""
        if block.kind == "text":
            self._check_output(block)
            return
        mistake = mistake_in(block)
        assert mistake is None, f"{block.place}: {mistake}"
        if block.not_run is not None:
            return
        text = self._text_of(block)
        if block.file is not None:
            self._write(block.file, text)
        if block.in_second_terminal:
            self._start_in_second_terminal(block, text)
        elif block.kind in ("sh", "python"):
            self._run_and_judge(block, text)

    def run_other(self, block: Block) -> None:
        """Run a block in another language, which must be installed."""
        found = command_of(block.kind)
        assert found is not None
        command, suffix = found
        file = self._write(block.file or f"block_{block.line}{suffix}", self._text_of(block))
        self._judge(block, *self._command([*command, file.name], file.parent))

    def leftovers(self) -> set[str]:
        """Return the names of files that blocks wrote and did not remove, except those that the page tells readers to write."""
        named = {block.file.split("/")[0] for block in self._blocks if block.file is not None}
        return {path.name for path in self.folder.iterdir()} - named - {"examples", "__pycache__", ".pytest_cache"}

    def _run_and_judge(self, block: Block, text: str) -> None:
        name = Path(block.file or "").name
        if name.startswith("test_"):
            self._judge(block, *self._command(["pytest", "-q", "-p", "no:cacheprovider", str(block.file)], self.folder))
        elif block.file is None:
            self._judge(block, *self._session(block.kind).run(text, block.place))

    def _judge(self, block: Block, output: str, status: int) -> None:
        self._output = output
        assert status == block.exit_code, f"{block.place}: exit code {status} instead of {block.exit_code}\n{output}"
        assert "Traceback" not in output or block.exit_code, f"{block.place}:\n{output}"
        # curl prints no newline, so responses that follow each other are hard to read.
        assert block.kind != "sh" or "}{" not in output, f"{block.place}:\n{output}"

    def _check_output(self, block: Block) -> None:
        expected = self._text_of(block)
        missing = first_missing_line(self._output, expected)
        if missing is not None and not (self._in_second and self._second_terminal_prints(expected)):
            second = self._second.read_text() if self._in_second else ""
            raise AssertionError(f"{block.place}: {missing}\nis not in:\n{self._output}\nnor in:\n{second}")
        self._output = ""

    def _session(self, kind: str) -> _Session:
        if kind not in self._sessions:
            command = ["bash", "-c", _BASH] if kind == "sh" else [sys.executable, "-u", "-c", _PYTHON]
            self._sessions[kind] = _Session(command, self.folder, self._env, self._sources)
        return self._sessions[kind]

    def _command(self, command: list[str], folder: Path) -> tuple[str, int]:
        result = subprocess.run(
            command, cwd=folder, env=self._env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
        return result.stdout, result.returncode

    def _start_in_second_terminal(self, block: Block, text: str) -> None:
        command = ["bash", "-c", "exec " + text.lstrip()] if block.kind == "sh" else [sys.executable, "-u", "-c", text]
        with self._second.open("ab") as log:
            self._in_second.append(
                subprocess.Popen(command, cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )
        if block.port:
            port = int(self._text(block.port))
            until(lambda: _is_listening(port) or self._in_second[-1].poll() is not None, 60)
            assert _is_listening(port), f"{block.place}: nothing listens\n{self._second.read_text()}"

    def _second_terminal_prints(self, expected: str) -> bool:
        """Wait until the second terminal shows each expected line. Return False if one does not appear in time.

        The lines can be in any order. Webhooks are sent in order but in parallel, so on a busy machine one can
        overtake another.
        """
        lines = expected.splitlines()
        with contextlib.suppress(AssertionError):
            return until(lambda: all(first_missing_line(self._second.read_text(), line) is None for line in lines))
        return False

    def _text_of(self, block: Block) -> str:
        return self._text(block.text)

    def _text(self, text: str) -> str:
        for pattern, replacement in self._replacements:
            text = pattern.sub(lambda _, fixed=replacement: fixed, text)  # type: ignore[misc]  # mypy cannot infer a default
        return text

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        assert path.resolve().is_relative_to(self.folder.resolve())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def _add_program(self, name: str, command: str) -> None:
        path = self._programs / name
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)


def _environment(world: World, programs: Path) -> dict[str, str]:
    """Return the environment of the blocks: as under `psp run`, with the page's merchant."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PSP_", "SANDBOX_", "PYTEST_", "COV_"))}
    return kept | {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PSP_URL": world.stack.api_url,
        "PSP_IPN_URL": world.stack.ipn_url,
        "PSP_API_KEY": world.api_key,
        "PSP_ADMIN_KEY": world.stack.admin_key,
        "PSP_IPN_SECRET": world.ipn_secret,
        "NO_COLOR": "1",
        "TERM": "dumb",
    }


def _replacements(world: World, blocks: list[Block]) -> list[tuple[re.Pattern[str], str]]:
    """Return what differs from a reader's machine: addresses, the demo merchant, secrets and ports."""
    fixed = {
        r"http://(127\.0\.0\.1|localhost):8000\b": world.stack.api_url,
        r"http://(127\.0\.0\.1|localhost):8001\b": world.stack.ipn_url,
        r"\.venv/bin/psp\b": "psp",
        r"\bsk_sandbox_demo_admin\b": world.api_key,
        r"\bak_sandbox_development_admin\b": world.stack.admin_key,
        r"\bIPN_SECRET=whsec_\.\.\.": f"IPN_SECRET={world.ipn_secret}",
    }
    for block in blocks:
        if block.port:
            fixed[rf"(?<![\d.]){block.port}(?!\d)"] = str(_free_port())
    return [(re.compile(pattern), replacement) for pattern, replacement in fixed.items()]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
