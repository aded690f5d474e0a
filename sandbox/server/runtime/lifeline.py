"""A pipe through which every process of a run notices that the supervisor has died, even by SIGKILL.

Only the supervisor has the write end open, and it never writes. A read blocks until the kernel closes that end.
"""

import os
import signal
import stat
import threading
import time

LIFELINE_FD = "SANDBOX_LIFELINE_FD"
GRACE_SECONDS = 2.0
"""Short, because clients are refused until the next run starts, and every process may be killed at any time anyway."""


class Lifeline:
    """The supervisor's end. Children inherit `reader` through `pass_fds`."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()  # not inheritable unless passed explicitly

    def cut(self) -> None:
        """Close the pipe, so that every reader notices that the run is over."""
        # Close the read end first: the reaper ends every process that still has it open.
        if self.reader >= 0:
            os.close(self.reader)
            os.close(self._writer)
            self.reader = self._writer = -1


def follow_lifeline() -> None:
    """End this process when its supervisor dies: SIGTERM immediately, a hard exit GRACE_SECONDS later.

    Call it once, at the start of a child's main. Without a supervisor it does nothing.
    """
    raw = os.environ.get(LIFELINE_FD, "")
    if not raw.isdigit():
        return
    reader = int(raw)
    try:
        # A grandchild inherits the variable but not the descriptor. The number may belong to another file there.
        if not stat.S_ISFIFO(os.fstat(reader).st_mode):
            return
        os.set_inheritable(reader, False)
    except OSError:
        return
    threading.Thread(target=_end_with_supervisor, args=(reader,), name="lifeline", daemon=True).start()


def _end_with_supervisor(reader: int) -> None:
    try:
        while os.read(reader, 64):
            pass
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)
