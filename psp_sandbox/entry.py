"""The entry point of `psp`."""

import sys
from importlib import import_module

from psp_sandbox.application import put_first


def main() -> None:
    """Run `psp` with the process's arguments. If the sandbox itself is not installed, or cannot be, say what to do."""
    put_first()
    try:
        # By name: this package runs in users' processes, where it must not depend on the sandbox's own packages.
        import_module("sandbox.cli.entry").main()
    except ImportError:
        from psp_sandbox.installed import SERVER, missing_for_server  # here, because `psp` seldom needs it

        if not missing_for_server():
            raise
        if sys.platform == "win32":
            sys.exit("psp: the sandbox does not run on Windows itself: run it in WSL or in a container, and set PSP_URL.")
        sys.exit(f"psp: the sandbox is not installed here, only its client and pytest plugin. Run: pip install '{SERVER}'")
