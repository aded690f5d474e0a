"""What tests of one clock need."""

import sys

import pytest

from psp_sandbox.testing.one_clock.library import compiler

NEEDS_ONE_CLOCK = [
    pytest.mark.skipif(sys.platform != "linux", reason="one clock works on Linux only"),
    pytest.mark.skipif(compiler() is None, reason="one clock needs a C compiler"),
]
