"""Run a part of a bench in a separate process, so that its CPU time delays no other part."""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from sandbox.cli.benches.stack import BenchError

_END_SECONDS = 5.0


class Pipe:
    """One end of the pipe between the bench and its child process."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection

    def send(self, value: object) -> None:
        """Send a value. Raises BenchError if the other process has ended."""
        try:
            self._connection.send(value)
        except OSError as error:
            raise _ended() from error

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for a value, and return it. Raises BenchError if the other process has ended or failed, or needs too long."""
        try:
            if not self._connection.poll(timeout):
                raise BenchError(f"A process of the bench did not answer within {timeout:.0f} seconds.")
            value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise _ended() from error
        if isinstance(value, BenchError):
            raise value
        return value

    def fileno(self) -> int:
        """Return the file descriptor, so that an event loop can wait for it."""
        return self._connection.fileno()


@contextlib.contextmanager
def run_child(main: Callable[..., None], *arguments: object) -> Iterator[Pipe]:
    """Run `main(pipe, *arguments)` in a new process during a `with` block.

    `main` must return when receiving raises BenchError, which happens at the end of the block. A process that does not is
    killed. A BenchError that it raises is raised by the next `receive`.
    """
    context = multiprocessing.get_context("spawn")  # a fork would share this process's event loops and threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, main, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Pipe(ours)
    finally:
        ours.close()
        process.join(_END_SECONDS)
        process.kill()
        process.join()


def _run(connection: "Connection[Any, Any]", main: Callable[..., None], *arguments: object) -> None:
    # The parent's end of the bench, even by Ctrl-C, closes the pipe, and then there is nobody to report to.
    with contextlib.suppress(KeyboardInterrupt, OSError):
        try:
            main(Pipe(connection), *arguments)
        except BenchError as error:
            connection.send(error)


def _ended() -> BenchError:
    return BenchError("A process of the bench ended.")
