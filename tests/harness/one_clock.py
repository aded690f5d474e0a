"""What tests of one clock need."""

import os
import subprocess
import sys
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from psp_sandbox.testing.one_clock.clock_file import ClockFile
from psp_sandbox.testing.one_clock.followers import Move
from psp_sandbox.testing.one_clock.library import build, compiler, environment

NEEDS_ONE_CLOCK = [
    pytest.mark.skipif(sys.platform != "linux", reason="one clock works on Linux only"),
    pytest.mark.skipif(compiler() is None, reason="one clock needs a C compiler"),
]


class Clocks:
    """A clock file, and the processes that follow it."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        self.file = ClockFile.create(folder / "clock")
        self.library = build(folder)
        self._closing = closing

    def start(self, *command: str, **env: str) -> "subprocess.Popen[str]":
        """Start a process that follows, unless `env` says otherwise. It ends with the test."""
        variables = {**os.environ, **environment(self.library, self.file.path), **env}
        process = subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._closing.enter_context(process)
        self._closing.callback(process.kill)
        return process

    def advance(self, distance: timedelta) -> list[datetime]:
        """Move the clocks, and return the time after each step."""
        self.file.set_moving(True)
        target, stops = self.file.now + distance, []
        move = Move(self.file, target)
        while not stops or stops[-1] < target:
            stops.append(move.next_stop())
            move.reach(stops[-1])
        return stops


def read(process: "subprocess.Popen[str]") -> tuple[str, float, float]:
    """Read a line: a word, the wall clock and the monotonic clock."""
    assert process.stdout is not None
    word, wall, monotonic = process.stdout.readline().split()
    return word, float(wall), float(monotonic)
