"""The command `psp` from its first instant: what cannot wait until the commands' modules are loaded, which takes a second."""

import os
import signal
import sys
from collections.abc import Sequence


def main() -> None:
    """Run `psp` with the arguments of the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until a command can act on Ctrl-C, nothing has been started: it ends the process, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    forget_stale_ready_file(sys.argv[1:])
    from sandbox.cli.main import main as run

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        # It came while the parser was made: a command that runs ends by itself.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)


def forget_stale_ready_file(arguments: Sequence[str]) -> None:
    """Delete the file that `psp up` or `psp run` is to write: a script may wait for it already, and must not read what
    an earlier run left. A file that cannot be deleted is the command's to report."""
    own = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    if own[:1] not in (["up"], ["run"]) or "--help" in own:
        return
    name = "--ready-file"
    for word, after in zip(own, [*own[1:], ""], strict=True):
        path = after if word == name else word.removeprefix(f"{name}=") if word.startswith(f"{name}=") else ""
        if path:
            try:
                os.unlink(path)
            except OSError:
                continue


if __name__ == "__main__":
    main()
