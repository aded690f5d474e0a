"""Becomes another program, and has the kernel signal it when the process that started it dies, even by a SIGKILL.

    tied.py PARENT SIGNAL UID GID PROGRAM [ARGUMENT...]

For programs that cannot read the lifeline: with supervisor and reaper both killed, nobody is left to stop them. Linux
only. It runs by its path, with nothing but the standard library. A program that is to run as another user is given to it
as root, for two reasons: that user may not be able to reach this Python, and the kernel forgets the request when a
process changes its user.
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
        # A run without this is as safe as on a system that has no such call: the reaper still stops the program.
        sys.stderr.write(f"prctl: {os.strerror(ctypes.get_errno())}\n")
    if os.getppid() != parent:
        sys.exit("the process that started this one has died")
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606 (the command it was given, no shell)


main()
