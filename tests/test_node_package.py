"""The package for Node: it builds, its types are strict, its tests pass, and its example shop notices the classic mistakes."""

import contextlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.harness.code_blocks import blocks_of
from tests.harness.node_package import PACKAGE, ROOT, Node, built_package, environment, run
from tests.harness.programs import needs
from tests.harness.waiting import until

pytestmark = [pytest.mark.slow, needs("node"), needs("npm")]

SHOP: Final = ROOT / "examples/node"
SERVER: Final = "psp-sandbox[server]"
_STARTED: Final = re.compile(r"PSP Sandbox: (http://\S+) runs until these tests end, started by (.*)\.")

Replacement = tuple[str, str, str]
"""File, text, new text."""

MISTAKES: Final[dict[str, tuple[str, str, list[Replacement]]]] = {
    "no_dedupe": (
        "webhooks", "a webhook that arrives twice counts once",
        [
            ("payments.js", "if (data.events.includes(event.id)) return;", ""),
            ("payments.js", "event.data.version <= payout.version", "event.data.version < payout.version"),
            ("payments.js", "if (isBack && !wasBack)", "if (isBack)"),
        ],
    ),
    "no_ordering": (
        "webhooks", "a late webhook does not undo a newer one",
        [("payments.js", "if (!payout || event.data.version <= payout.version) return;", "if (!payout) return;")],
    ),
    "no_signature_check": (
        "webhooks", "a webhook with tampered_body is refused",
        [("webhooks.js", "one.length === right.length && timingSafeEqual(one, right)", "true")],
    ),
    "accepts_stale_timestamps": (
        "webhooks", "a webhook with stale_timestamp is refused",
        [("webhooks.js", "Math.abs(Date.now() / 1000 - Number(stamp)) >", "Number(stamp) - Date.now() / 1000 >")],
    ),
    "reads_the_first_signature_only": (
        "webhooks", "a new secret may sign before we know it",
        [("webhooks.js", 'given.split(" ").map', 'given.split(" ").slice(0, 1).map')],
    ),
    "acknowledges_what_it_did_not_store": (
        "webhooks", "a webhook that cannot be stored is not acknowledged",
        [("shop.js", "let [status, answer] = [500, {}];", "let [status, answer] = [200, {}];")],
    ),
    "failure_ignored": (
        "paying", "a failed payout returns the money to the seller",
        [("payments.js", '["FAILED", "CANCELLED",', '["CANCELLED",')],
    ),
    "return_ignored": (
        "paying", "a returned payout returns the money to the seller",
        [("payments.js", ', "RETURNED"]', "]")],
    ),
    "refusal_keeps_the_money": (
        "paying", "a refused payout returns the money to the seller",
        [("payments.js", "      giveBack(data, data.payouts[id], payout.amount);\n", "")],
    ),
    "amount_as_float": (
        "paying", "a seller is paid the whole balance, exactly",
        [("money.js", 'Number(found[1]) * 100 + Number((found[2] ?? "").padEnd(2, "0"))', "Math.trunc(Number(text) * 100)")],
    ),
    "new_key_per_attempt": (
        "lost-answers", "after connection_reset, the shop asks again with the same key",
        [("psp.js", "PSP_API_KEY, payout.id, body)", "PSP_API_KEY, String(Math.random()), body)")],
    ),
    "gives_up_at_once": (
        "lost-answers", "a payout is sent again while the PSP is unavailable",
        [("psp.js", "const ATTEMPTS = 3;", "const ATTEMPTS = 1;")],
    ),
    "pays_again_after_a_lost_answer": (
        "lost-answers", "without any answer nobody is paid twice",
        [
            ("payments.js", 'if (error instanceof NoAnswer) return "unsent";', ""),
            ("payments.js", "if (!(error instanceof Refused)) throw error;", ""),
        ],
    ),
    "answer_overwrites_the_webhook": (
        "lost-answers", "a webhook that is faster than the answer wins",
        [("payments.js", "if (data.payouts[id].version === 0) data", "data")],
    ),
}  # fmt: skip
"""Name → the file and the name of the test that catches it, and how to make it."""

PASSING: Final = """
import { expect, test as base } from "vitest";
import { withPsp } from "psp-sandbox/vitest";

const test = withPsp(base);

test("passes", async ({ psp }) => {
  expect((await psp.pays("success")).status).toBe("PENDING");
});
"""
FAILING: Final = """
import { expect, test as base } from "vitest";
import { withPsp } from "psp-sandbox/vitest";

const test = withPsp(base);

test("fails in an assertion", async ({ psp }) => {
  await psp.pays("account_closed", { reference: "A-1" });
  expect((await psp.balance()).available).toBe("1.00");
});

test("fails in the checks at its end", async ({ psp }) => {
  psp.forwardWebhooks("http://127.0.0.1:9/webhooks");
  await psp.pays("success");
  await psp.fault("error", { on: "GET /balance", status: 503, count: 1 });
});

test("is skipped", async ({ psp, skip }) => {
  await psp.fault("error", { on: "GET /balance", status: 503, count: 1 });
  skip();
});
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Install and build a copy of the package. Skips the tests if npm reaches no registry."""
    with built_package(tmp_path_factory.mktemp("node")) as built:
        yield built


def test_the_types_are_strict(node: Node) -> None:
    assert json.loads((PACKAGE / "tsconfig.json").read_text())["compilerOptions"]["strict"] is True
    checked = node.run("tsc")
    assert checked.returncode == 0, checked.stdout


def test_a_project_needs_no_settings_for_the_types(node: Node, tmp_path: Path) -> None:
    """Not those for disposable objects, nor those for Node, which its compiler leaves out by default."""
    project = node.project(tmp_path / "project")
    (project / "node_modules/@types").symlink_to(node.folder / "node_modules/@types")
    (project / "typed.test.ts").write_text(PASSING)
    checked = node.run(
        "tsc", "--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "typed.test.ts", cwd=project
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("command", [("publint", "--strict"), ("attw", "--profile", "esm-only")])
def test_the_archive_is_what_tools_and_editors_expect(node: Node, command: tuple[str, ...]) -> None:
    checked = node.run(*command, str(node.archive))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_package_needs_no_other_and_its_lock_file_names_no_host() -> None:
    assert "dependencies" not in json.loads((PACKAGE / "package.json").read_text())
    lock = (PACKAGE / "package-lock.json").read_text()
    assert '"integrity"' in lock
    assert '"resolved"' not in lock


def test_its_own_tests_pass_in_four_processes_that_share_one_sandbox(node: Node) -> None:
    tested = node.run("vitest", "run", "--maxWorkers=4")
    output = tested.stdout + tested.stderr
    assert tested.returncode == 0, output
    assert [about for _, about in _STARTED.findall(output)] == [f"{Path(sys.executable).parent / 'psp'} (psp on the PATH)"]


def test_the_tests_of_the_guide_pass(node: Node, tmp_path: Path) -> None:
    project = node.project(tmp_path / "project")
    blocks = [block for block in blocks_of(ROOT / "docs/node.md") if block.kind == "javascript" and block.file is not None]
    for block in blocks:
        (project / str(block.file)).write_text(block.text)
    names = [str(block.file) for block in blocks]
    vitest = [name for name in names if name.endswith(".test.js") and "jest" not in name]
    tested = node.run("vitest", "run", *vitest, cwd=project)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    jest = [name for name in names if "jest" in name]
    tested = node.run("jest", *jest, cwd=project, env=environment(NODE_OPTIONS="--experimental-vm-modules"))
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert len(vitest) >= 3
    assert len(jest) == 1


def test_a_failure_in_vitest_is_reported_with_what_the_sandbox_knows(node: Node, tmp_path: Path) -> None:
    project = node.project(tmp_path / "project")
    (project / "failing.test.js").write_text(FAILING)
    tested = node.run("vitest", "run", "--reporter=json", "--reporter=default", cwd=project)
    output = tested.stdout + tested.stderr
    assert tested.returncode == 1, output
    for part in (
        "A-1: 1500.00 PKR, FAILED, ACCOUNT_CLOSED",
        "POST /api/v1/payouts → 201",
        "PROCESSING → FAILED  (worker)",
        "payout.failed SUCCEEDED (attempts: 1)  [A-1]",
        "psp world import .psp-failures/failing.test.js-fails-in-an-assertion.psp-world.json",
        "3 webhook deliveries failed, and no later attempt succeeded.",
        "the last one got 502 the application at http://127.0.0.1:9/webhooks did not answer",
        "error on GET /api/v1/balance",
        "2 failed | 1 skipped (3)",
    ):
        assert part in output, f"{part}\nis not in:\n{output}"
    assert "sk_sandbox_" not in output
    assert "whsec_" not in output
    assert len(list((project / ".psp-failures").iterdir())) == 2


def test_tests_in_jest_have_a_merchant_too_and_report_failures(node: Node, tmp_path: Path) -> None:
    project = node.project(tmp_path / "project")
    shutil.copy(node.folder / "test/jest/psp.test.js", project)
    tested = node.run("jest", cwd=project, env=environment(NODE_OPTIONS="--experimental-vm-modules"))
    assert "Tests:       2 failed, 1 skipped, 1 passed, 4 total" in tested.stderr, tested.stderr
    assert "A-1: 1500.00 PKR, FAILED, ACCOUNT_CLOSED" in tested.stderr
    assert "1 fault never took effect" in tested.stderr


@pytest.mark.parametrize(
    ("program", "about", "script"),
    [
        ("uvx", f"uvx --from {SERVER} psp", f'test "$1 $2 $3" = "--from {SERVER} psp"; shift 3'),
        ("pipx", f"pipx run --spec {SERVER} psp", f'test "$1 $2 $3 $4" = "run --spec {SERVER} psp"; shift 4'),
        (
            "docker",
            "docker run psp-sandbox:all-in-one",
            # As the image sets it.
            'if test "$1" = image; then exit; fi; export SANDBOX_ALLOWED_HOSTS="*"; while test "$1" != psp; do '
            'case "$1" in SANDBOX_ALLOWED_HOSTS=*) export "$1";; esac; shift; done; shift',
        ),
    ],
)  # fmt: skip
def test_a_sandbox_starts_by_what_there_is_and_ends_with_the_tests(
    node: Node, tmp_path: Path, program: str, about: str, script: str
) -> None:
    project = node.project(tmp_path / "project")
    (project / "passing.test.js").write_text(PASSING)
    path = _path_without_psp(tmp_path / "bin")
    (path / program).write_text(f'#!/bin/sh -e\n{script}\nexec {Path(sys.executable).parent / "psp"} "$@"\n')
    (path / program).chmod(0o755)
    tested = node.run("vitest", "run", cwd=project, env=environment(PATH=str(path)))
    output = tested.stdout + tested.stderr
    assert tested.returncode == 0, output
    ((url, started_by),) = _STARTED.findall(output)
    assert started_by == about
    until(lambda: not _answers(url), seconds=60)
    until(lambda: not _is_noted(url), seconds=60)


def test_without_any_way_to_start_a_sandbox_the_error_says_how_to_get_one(node: Node, tmp_path: Path) -> None:
    project = node.project(tmp_path / "project")
    (project / "passing.test.js").write_text(PASSING)
    tested = node.run("vitest", "run", cwd=project, env=environment(PATH=str(_path_without_psp(tmp_path / "bin"))))
    output = tested.stdout + tested.stderr
    assert tested.returncode == 1
    assert "neither psp nor uvx nor pipx is on the PATH" in output
    assert f"pipx install '{SERVER}'" in output
    assert "set PSP_URL and PSP_ADMIN_KEY" in output


def _path_without_psp(folder: Path) -> Path:
    folder.mkdir()
    for name in ("node", "sh", "sleep", "env", "rm"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


def _is_noted(url: str) -> bool:
    """Return whether a file that the processes of a run share still has the sandbox's address and keys."""
    for path in Path(tempfile.gettempdir()).glob("psp-sandbox-node-*/*/ready.json"):
        with contextlib.suppress(OSError):  # another run has just removed it
            if url in path.read_text():
                return True
    return False


@pytest.fixture(scope="module")
def outcomes(node: Node, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run the shop's tests, and those of copies of it with a mistake each. Return the outcomes by folder and test."""
    project = node.project(tmp_path_factory.mktemp("shops") / "project")
    wanted = ["shop/"]
    _copy_shop(project / "shop")
    for name, (file, _, replacements) in MISTAKES.items():
        _copy_shop(project / name)
        wanted.append(f"{name}/test/{file}.test.js")
        for changed, text, new_text in replacements:
            source = (project / name / changed).read_text()
            assert source.count(text) == 1, f"{name}: {changed} contains {text!r} {source.count(text)} times"
            (project / name / changed).write_text(source.replace(text, new_text))
    tested = node.run(
        "vitest",
        "run",
        "--maxWorkers=4",
        "--testTimeout=60000",
        "--reporter=json",
        "--outputFile=results.json",
        *wanted,
        cwd=project,
    )
    assert (project / "results.json").exists(), tested.stdout + tested.stderr
    report: dict[str, Any] = json.loads((project / "results.json").read_text())
    return {
        f"{Path(file['name']).relative_to(project.resolve()).parts[0]}: {one['title']}": one["status"]
        for file in report["testResults"]
        for one in file["assertionResults"]
    }


def _copy_shop(folder: Path) -> None:
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("node_modules", "*.md", ".psp-failures"))


def test_the_shops_tests_pass(outcomes: dict[str, str]) -> None:
    own = {name: outcome for name, outcome in outcomes.items() if name.startswith("shop: ")}
    assert len(own) == 17
    assert set(own.values()) == {"passed"}, own


def test_psp_explore_tries_the_shops_own_tests_with_a_merchant_each(node: Node, tmp_path: Path) -> None:
    project = node.project(tmp_path / "project")
    for name, replacements in (("shop", []), ("no_ordering", MISTAKES["no_ordering"][2])):
        _copy_shop(project / name)
        for changed, text, new_text in replacements:
            source = (project / name / changed).read_text()
            (project / name / changed).write_text(source.replace(text, new_text))
    explored = run(
        "psp", "run", "--ephemeral", "--", "psp", "explore", "--own-merchants", "--status", "REFUSED=NONE", "--status",
        "UNSENT=NONE", "--point", "payout.processing#1:out_of_order", "--json", "--", node.program("vitest"), "run",
        "shop/test/paying.test.js", "no_ordering/test/paying.test.js", cwd=project,
    )  # fmt: skip
    assert explored.returncode == 1, explored.stderr
    found = json.loads(explored.stdout)
    verdicts: dict[str, set[str]] = {}
    for point in found["points"]:
        verdicts.setdefault(point["test"].partition("/")[0], set()).add(point["verdict"])
    assert verdicts["shop"] <= {"right", "refused"}, found["points"]
    assert "wrong" in verdicts["no_ordering"], found["points"]
    assert [one["test"].partition(" > ")[2] for one in found["left_out"]] == ["what is not an amount is refused"] * 2


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_noticed(outcomes: dict[str, str], name: str) -> None:
    _, test, _ = MISTAKES[name]
    assert outcomes[f"shop: {test}"] == "passed"
    assert outcomes[f"{name}: {test}"] == "failed"
