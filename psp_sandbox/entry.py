"""The entry point of `psp`."""

from importlib import import_module

from psp_sandbox.application import put_first


def main() -> None:
    """Run `psp` with the process's arguments."""
    put_first()
    # By name: this package runs in users' processes, where it must not depend on the sandbox's own packages.
    import_module("sandbox.cli.entry").main()
