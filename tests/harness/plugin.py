"""Projects that use the pytest plugin, whose tests run in a pytest of their own."""

import os
import shlex
import textwrap
from collections.abc import Sequence

import httpcore
import pytest
import uvicorn

from tests.harness.world import Stack

# The inner pytest forgets modules that it imports first, but httpx remembers classes of the httpcore that it saw first.
_IMPORTED = (httpcore, uvicorn)
# Plugins that the inner tests do not use take seconds to load.
QUIET = ("-p", "no:asyncio", "-p", "no:schemathesis", "-p", "no:faker", "-p", "no:anyio", "-p", "no:hypothesispytest")

_GIVEN = shlex.split(os.environ.get("PSP_TEST_PLUGIN", ""))
"""The options that name another sandbox, such as one in a container."""


class Project:
    """A folder with tests, which use the sandbox of this test run unless they are told otherwise."""

    def __init__(self, pytester: pytest.Pytester, stack: Stack) -> None:
        self.pytester = pytester
        self.stack = stack

    def write(self, code: str) -> None:
        """Write the project's only test file."""
        self.pytester.makepyfile(test_inner=textwrap.dedent(code))

    def run(self, code: str, *arguments: str, use: Sequence[str] | None = None) -> pytest.RunResult:
        """Run tests in this process and return the result. `use` are the options that say which sandbox they use."""
        self.write(code)
        options = _GIVEN or ["--psp-url", self.stack.api_url, "--psp-admin-key", self.stack.admin_key] if use is None else use
        return self.pytester.runpytest_inprocess(*QUIET, "-p", "no:xdist", *options, *arguments)
