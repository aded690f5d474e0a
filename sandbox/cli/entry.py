"""The entry point of `psp`. The other modules take a second to load, so urgent steps happen here first."""

import os
import signal
import sys
from collections.abc import Sequence

from sandbox.cli.global_options import command_first


def main() -> None:
    """Run `psp` with the process's arguments."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing has started yet, so let Ctrl-C end the process without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    delete_stale_ready_file(sys.argv[1:])
    from sandbox.cli.main import main as run

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        # Ctrl-C came while the parser was being built. A running command handles Ctrl-C itself.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)


def delete_stale_ready_file(arguments: Sequence[str]) -> None:
    """Delete the ready file that `psp up` or `psp run` will write.

    A script may already wait for the file, and must not read the one of an earlier run. If the file cannot be deleted, the
    command reports that later.
    """
    own = command_first(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    if own[:1] not in (["up"], ["run"]) or "--help" in own:
        return
    name = "--ready-file"
    for argument, following in zip(own, [*own[1:], ""], strict=True):
        path = following if argument == name else argument.removeprefix(f"{name}=") if argument.startswith(f"{name}=") else ""
        if path:
            try:
                os.unlink(path)
            except OSError:
                continue


if __name__ == "__main__":
    main()
