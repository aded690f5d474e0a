"""Skip the tests that need a program which is not installed."""

import shutil

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test unless the program is on the PATH."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")
