"""`psp explore` with a shop and a suite in Node: the shop has no mistake, and stories of the broken shops are found in it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from psp_sandbox.testing.explore.results import Cause, Verdict
from psp_sandbox.testing.process import Address
from tests.harness.programs import needs

pytestmark = [pytest.mark.slow, needs("node")]

ROOT: Final = Path(__file__).parent.parent
SHOP: Final = ROOT / "examples/node"

Replacement = tuple[str, str, str]
"""File, text, new text."""

STORIES: Final[dict[str, tuple[str, Cause, list[Replacement]]]] = {
    "sends_again_only_with_the_next_run": (
        "POST /payouts#2:request_lost", Cause.NO_RETRY,
        [("server.js", "await sendUnsent(store, process.env);", ""), ("psp.js", "const ATTEMPTS = 3;", "const ATTEMPTS = 1;")],
    ),
    "duplicate_reference_is_a_refusal": (
        "POST /payouts#1:key_expired", Cause.GAVE_UP_ON_PAID,
        [
            ("psp.js", 'if (answer.status === 409 && created.code === "DUPLICATE_REFERENCE") return created;', ""),
            ("psp.js", "[400, 422]", "[400, 409, 422]"),
        ],
    ),
    "no_signature_check": (
        "payout.failed#1:forged", Cause.FORGED_ACCEPTED,
        [("shop.js", "if (!isAuthentic(env.PSP_WEBHOOK_SECRET, headers, body))", "if (false)")],
    ),
    "last_event_wins": (
        "payout.processing#1:out_of_order", Cause.OLDER_OVER_NEWER,
        [("payments.js", "!payout || event.data.version <= payout.version", "!payout")],
    ),
}  # fmt: skip
"""Name of the broken shop → the point, the cause, and how to make it in Node."""


def explore(folder: Path, sandbox: Address, *options: str) -> dict[str, Any]:
    """Run `psp explore` with the shop in this folder, and return its results."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [
        "--app", "node server.js", "--webhook-url", f"http://127.0.0.1:{port}/webhooks/psp", "--books", "node books.js",
        "--status", "REFUSED=NONE", "--status", "UNSENT=NONE", "--json", *options,
    ]  # fmt: skip
    command = [sys.executable, "-m", "psp_sandbox", "explore", *words, "--", "node", "--test", "explored/payouts.js"]
    named = {"PSP_URL": sandbox.url, "PSP_ADMIN_KEY": sandbox.admin_key or "", "PYTHONPATH": str(ROOT), "PORT": str(port)}
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **named}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert not found["left_out"], found["left_out"]
    return found


@pytest.mark.parametrize("point", sorted({point for point, _, _ in STORIES.values()}))
def test_the_shop_in_node_has_no_mistake_at_these_points(tmp_path: Path, sandbox: Address, point: str) -> None:
    shutil.copytree(SHOP, tmp_path / "shop", ignore=shutil.ignore_patterns("node_modules"))
    (found,) = explore(tmp_path / "shop", sandbox, "--point", point)["points"]
    assert found["verdict"] in (Verdict.RIGHT, Verdict.REFUSED), found


@pytest.mark.parametrize("name", STORIES)
def test_a_mistake_in_node_is_found_with_its_cause(tmp_path: Path, sandbox: Address, name: str) -> None:
    point, cause, replacements = STORIES[name]
    shutil.copytree(SHOP, tmp_path / "shop", ignore=shutil.ignore_patterns("node_modules"))
    for file, text, new_text in replacements:
        source = (tmp_path / "shop" / file).read_text()
        assert source.count(text) == 1, f"{name}: {file} contains {text!r} {source.count(text)} times"
        (tmp_path / "shop" / file).write_text(source.replace(text, new_text))
    (found,) = explore(tmp_path / "shop", sandbox, "--point", point)["points"]
    assert (found["verdict"], found["cause"]) == (Verdict.WRONG, cause), found
