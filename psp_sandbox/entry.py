"""The entry point of `psp`."""

from psp_sandbox.application import put_first


def main() -> None:
    """Run `psp` with the process's arguments."""
    put_first()
    from sandbox.cli.entry import main as run

    run()
