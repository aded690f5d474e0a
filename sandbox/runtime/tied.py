"""Run a program that the kernel signals when the parent process dies, even by SIGKILL. Linux only.

    tied.py PARENT SIGNAL UID GID PROGRAM [ARGUMENT...]

For programs that cannot read the lifeline: if supervisor and reaper are both killed, nothing else stops them. This file
runs by its path, with only the standard library. To run a program as another user, start it as root and pass UID and GID:
that user may be unable to reach this Python, and the kernel drops the request when a process changes its user.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, number, uid, gid = map(int, sys.argv[1:5])
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        # Go on without it, as on systems that lack the call: the reaper still stops the program.
        sys.stderr.write(f"prctl: {os.strerror(ctypes.get_errno())}\n")
    if os.getppid() != parent:
        sys.exit("The parent process has died.")
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606 (the given command, no shell)


main()
