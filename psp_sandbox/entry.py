"""The entry point of `psp`."""

from sandbox.cli.entry import main

__all__ = ["main"]
