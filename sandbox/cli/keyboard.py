"""Read single keys from the terminal while a command runs."""

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

UP = "\x1b[A"
DOWN = "\x1b[B"


@contextmanager
def keys(on_key: Callable[[str], None]) -> Iterator[None]:
    """Pass each key to `on_key` during the block, without echo and without waiting for Enter. Ctrl-C still interrupts.

    Does nothing if standard input is not a terminal. Must be entered inside a running event loop. The terminal gets its
    settings back at the end, and while the command is stopped by Ctrl-Z.
    """
    if not sys.stdin.isatty():
        yield
        return
    fd = sys.stdin.fileno()
    settings: list[Any] = termios.tcgetattr(fd)
    loop = asyncio.get_running_loop()

    def read() -> None:
        text = os.read(fd, 64).decode(errors="ignore")
        if not text:  # the terminal was closed
            loop.remove_reader(fd)
        elif text.startswith("\x1b"):
            on_key(text)
        else:
            for key in text:
                on_key(key)

    def begin() -> None:
        with contextlib.suppress(termios.error):
            if _is_in_foreground(fd):
                tty.setcbreak(fd, termios.TCSANOW)

    def end() -> None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, settings)

    def suspend() -> None:
        end()
        os.kill(os.getpid(), signal.SIGSTOP)

    begin()
    loop.add_reader(fd, read)
    loop.add_signal_handler(signal.SIGTSTP, suspend)
    loop.add_signal_handler(signal.SIGCONT, begin)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        loop.remove_signal_handler(signal.SIGTSTP)
        loop.remove_signal_handler(signal.SIGCONT)
        end()


def _is_in_foreground(fd: int) -> bool:
    """Whether the process may change the terminal. In the background, that would stop it."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # it is not the process's controlling terminal
        return True
