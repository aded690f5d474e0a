"""A pipe that tells every process of a run that the supervisor has died, however it died.

The supervisor alone holds the write end and never writes. Whoever reads gets nothing until that end closes, which the
kernel does even for a SIGKILL.
"""

import os
import signal
import stat
import threading
import time

LIFELINE_FD = "SANDBOX_LIFELINE_FD"
_GRACE_SECONDS = 10.0


class Lifeline:
    """The supervisor's end. `reader` is what children inherit (by `pass_fds`)."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()  # neither is inheritable by itself

    def cut(self) -> None:
        """Say to every reader that the run is over."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def close(self) -> None:
        self.cut()
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


def follow_lifeline() -> None:
    """Tie this process to its supervisor; call it once at the start of a child's main. Without a supervisor: nothing.

    When the supervisor is gone the process gets its own SIGTERM, and ten seconds later it is ended if it still runs.
    """
    raw = os.environ.get(LIFELINE_FD, "")
    if not raw.isdigit():
        return
    reader = int(raw)
    try:
        # A grandchild inherits the variable but not the descriptor, whose number may by then be another file's.
        if not stat.S_ISFIFO(os.fstat(reader).st_mode):
            return
        os.set_inheritable(reader, False)
    except OSError:
        return
    threading.Thread(target=_wait_for_the_end, args=(reader,), name="lifeline", daemon=True).start()


def _wait_for_the_end(reader: int) -> None:
    try:
        while os.read(reader, 64):
            pass
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)
