"""`psp world to-test` writes a test that a person can read, that passes as written, and that fails when an answer changes."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from psp_sandbox.testing.to_test import to_test
from tests.harness.command import invoke
from tests.harness.plugin import QUIET
from tests.harness.receiver import Receiver
from tests.harness.world import Stack, World
from tests.test_world_bundles import exported, seeded
from tests.test_world_replay import use_all_parts

ROOT = Path(__file__).parent.parent


def write(folder: Path, bundle: dict[str, Any]) -> Path:
    """Write the test of a bundle with the command, and return its file."""
    (folder / "world.json").write_text(json.dumps(bundle))
    file = folder / f"test_{uuid.uuid4().hex[:8]}.py"
    result = invoke("world", "to-test", str(folder / "world.json"), "-o", str(file))
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"Wrote {file}.\n", "")
    return file


def run_pytest(stack: Stack, file: Path) -> str:
    """Run a test with the plugin in an empty project, and return the output."""
    options = [f"--psp-url={stack.api_url}", f"--psp-admin-key={stack.admin_key}", *QUIET, "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(file), *options],
        cwd=file.parent, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_seeded_frozen_world_becomes_a_test_that_passes(stack: Stack, tmp_path: Path) -> None:
    with Receiver() as receiver, seeded(stack, webhook_url=receiver.url, name="All parts") as world:
        use_all_parts(world, receiver)
        bundle = exported(world)
    file = write(tmp_path, bundle)
    source = file.read_text()
    assert "def test_all_parts(psp_sandbox):" in source
    # Ids are references to the answers that they came from.
    assert "f\"/api/v1/payouts/{payout['id']}/timeline\"" in source
    assert not any(payout[0] in source for payout in bundle["tables"]["payouts"]["rows"])
    assert "the fault error hit it" in source
    assert 'key="twice"' in source
    assert [line for line in source.splitlines() if len(line) > 120] == []
    assert "1 passed" in (output := run_pytest(stack, file)), output


def test_a_changed_answer_fails_it_and_is_shown(stack: Stack, tmp_path: Path) -> None:
    with seeded(stack) as world:
        world.create_payout("0003", amount="7.25")
        bundle = exported(world)
    file = write(tmp_path, bundle)
    file.write_text(
        file.read_text().replace('expect={"merchant_reference"', 'expect={"status": "SUCCESS", "merchant_reference"', 1)
    )
    file.write_text(file.read_text().replace('"status": "PENDING"', '"status": "SUCCESS"'))
    output = run_pytest(stack, file)
    assert "status should be 'SUCCESS', but is 'PENDING'" in output
    assert '"amount":"7.25"' in output


def test_a_running_world_becomes_a_test_that_passes(world: World, tmp_path: Path) -> None:
    payouts = [world.create_payout(suffix) for suffix in ("0001", "0003")]
    for payout in payouts:
        world.wait_for(payout["id"], "SUCCESS", "FAILED")
        world.get(f"/api/v1/payouts/{payout['id']}/timeline")
    user = world.post("/api/v1/users", {"name": "Zainab"}).json()["id"]
    world.post(f"/api/v1/users/{user}/transactions", {"type": "EARNED", "amount": "3.00"})
    world.get(f"/api/v1/users/{user}/summary")
    file = write(tmp_path, exported(world))
    # A poll that was repeated until the payout was settled is one call.
    assert file.read_text().count("f\"/api/v1/payouts/{payout['id']}\"") == 1
    assert '"status": "FAILED"' in file.read_text()
    assert "1 passed" in (output := run_pytest(world.stack, file)), output


def test_odd_texts_in_a_world_are_data_in_the_test(stack: Stack, tmp_path: Path) -> None:
    """A bundle is untrusted: nothing in it becomes code, and what is not text is not a file either."""
    nasty = "\"\"\" + __import__('os').abort() + {x!r} {{ \\ '"
    with seeded(stack, name=nasty) as world:
        user = world.post("/api/v1/users", {"name": nasty}).json()["id"]
        world.post("/api/v1/payouts", world.payout_body("0004", account_title=nasty, metadata={nasty[:30]: nasty}))
        world.get(f"/api/v1/users/{user}/history", created_from="2031-01-01T00:00:00Z")
        bundle = exported(world)
    file = write(tmp_path, bundle)
    assert "1 passed" in (output := run_pytest(stack, file)), output


def test_without_a_file_it_is_printed(stack: Stack, tmp_path: Path) -> None:
    with seeded(stack) as world:
        bundle = exported(world)
    (tmp_path / "world.json").write_text(json.dumps(bundle))
    printed = invoke("world", "to-test", str(tmp_path / "world.json"))
    assert printed.stdout == to_test(bundle, "world.json")
    assert json.loads(invoke("world", "to-test", str(tmp_path / "world.json"), "--json").stdout)["test"] == printed.stdout
    (tmp_path / "world.json").write_text("{}")
    assert invoke("world", "to-test", str(tmp_path / "world.json")).exit_code == 1
    assert invoke("world", "to-test", str(tmp_path / "none.json")).exit_code == 2


def test_variables_are_named_after_one_of_what_the_path_lists(stack: Stack) -> None:
    with seeded(stack, name="Names") as world, Receiver() as receiver:
        world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
        world.create_payout("0004")
        delivery = world.get("/api/v1/webhook-deliveries").json()["data"][0]["id"]
        world.get(f"/api/v1/webhook-deliveries/{delivery}")
        source = to_test(exported(world), "world.json")
    assert "webhook_delivery = world.call(" in source


def test_many_answers_of_a_receiver_are_written_in_lines_of_a_usual_length(stack: Stack, tmp_path: Path) -> None:
    with Receiver() as receiver, seeded(stack) as world:
        receiver.respond = lambda _: (500, {}, b"")
        world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
        world.create_payout("0003")
        world.client.post("/sandbox/v1/drain")
        bundle = exported(world)
    source = write(tmp_path, bundle).read_text()
    compile(source, "test_world.py", "exec")
    assert all(f'"payout.{event}": [500]' in source for event in ("created", "processing", "failed"))
    assert [line for line in source.splitlines() if len(line) > 120] == []


def test_a_test_of_failed_deliveries_fails_as_the_original_did(stack: Stack, tmp_path: Path) -> None:
    with Receiver() as receiver, seeded(stack, name="Refused") as world:
        receiver.respond = lambda got: (500 if got.event["type"] == "payout.failed" else 200, {}, b"")
        endpoint = world.get("/api/v1/webhook-endpoints").json()["data"]
        assert endpoint == []
        world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
        world.create_payout("0003")
        world.client.post("/sandbox/v1/drain")
        bundle = exported(world)
    file = write(tmp_path, bundle)
    output = run_pytest(stack, file)
    assert "1 webhook delivery failed:" in output, output
    assert "payout.failed is PENDING after 1 attempt\n" in output, output
    assert "1 failed" in output
    # With a receiver that works, as after the mistake is corrected, it passes.
    file.write_text(file.read_text().replace('{"payout.failed": [500]}', "{}"))
    assert "1 passed" in (output := run_pytest(stack, file)), output
