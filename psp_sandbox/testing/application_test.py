"""Write a pytest test that repeats a failed test against the application, to be read and edited."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from psp_sandbox.testing.recording import Recorded, Start
from psp_sandbox.testing.replay import fields_of

_MAX_FAILURE_LINES: Final = 20


def application_test(bundle: Mapping[str, Any], recorded: Recorded, path: str) -> str:
    """Return the source code of a test. `path` is the bundle's, relative to the test's file."""
    own = [one.fixture for one in recorded.starts]
    fixtures = [*dict.fromkeys(["psp", *(name for name in recorded.fixtures if name != "psp"), *own])]
    imports = [f"from {one.module} import {one.target}" for one in recorded.starts if one.module]
    failure = [f"    # {line}".rstrip() for line in recorded.failure.splitlines()[:_MAX_FAILURE_LINES]]
    lines = [
        f'"""What `{_plain(recorded.test)}` did when it failed. `psp world to-test` wrote this; change it as you like."""',
        "",
        "from pathlib import Path",
        "",
        "import pytest",
        "",
        *dict.fromkeys(imports),
        "from psp_sandbox.testing.application_replay import replay_application",
        "",
        f"BUNDLE = Path(__file__).parent / {_code(path)}",
        "",
        "",
        f"@pytest.mark.psp({_mark(bundle)})",
        f"def test_{_slug(recorded.test)}({', '.join(fixtures)}):",
        *(f"    {_start(one)}" for one in recorded.starts),
        "    replayed = replay_application(psp, BUNDLE)",
        "    # The test failed with:",
        *failure,
        "    # This one fails as long as the application calls and answers as it did then. Better, assert what you expect.",
        "    replayed.assert_changed()",
        "",
    ]
    return "\n".join(lines)


def _mark(bundle: Mapping[str, Any]) -> str:
    fields = fields_of(bundle)
    arguments = {"seed": fields.get("seed"), "balance": fields["opening_balance"], "frozen": fields.get("frozen_at", False)}
    # The failed test ended in the middle, and a corrected application may never reach the fault.
    arguments |= {"allow_failed_deliveries": True, "allow_unhit_faults": True}
    return ", ".join(f"{name}={_code(value)}" for name, value in arguments.items() if value is not None)


def _code(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _start(start: Start) -> str:
    if start.target is None:
        return 'raise NotImplementedError("Start your application here with live_app, as the failed test did.")'
    options = "".join(f", {name}={code}" for name, code in start.options.items())
    return f"{start.fixture}({start.target}{options})"


def _slug(node_id: str) -> str:
    name = re.sub(r"\W+", "_", node_id.rpartition("::")[2]).strip("_").removeprefix("test_")
    return name.lower() or "failure"


def _plain(text: str) -> str:
    """Return a text that can be part of a docstring."""
    return re.sub(r'[\\"`\n\r]', "_", text)
