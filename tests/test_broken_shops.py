"""The broken shops: each has one declared mistake, and a suite that passes all the same.

`PSP_EXPLORE_COPIES=20` tries each declared point in 20 copies of its variant: the line that repeats a finding always finds it.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from examples.broken_shops import variants as declared
from psp_sandbox.testing.explore.results import Cause, Exploration, Kind, LeftOut, PointResult, Verdict
from psp_sandbox.testing.process import Address
from tests.harness.shop import Report, run_tests

VARIANTS = declared.variants()
COMPLETE = ("polling", "event_sourced")
"""Correct applications whose own tests run too; `test_shop.py` runs those of the shop."""
COPIES = int(os.environ.get("PSP_EXPLORE_COPIES", "1"))
PROCESSES = 3
"""For several points at once, or for several copies of one: most of the time, a run waits for its world to come to rest."""
MODULES = {base: Path(of_base.module).stem for base, of_base in declared.BASES.items()}


def test_each_variant_is_declared_with_a_cause_a_point_and_a_story() -> None:
    assert len(VARIANTS) >= 30
    assert len({one.name for one in VARIANTS}) == len(VARIANTS)
    for one in VARIANTS:
        assert one.cause in list(Cause), one.name
        assert one.verdict in (Verdict.WRONG, Verdict.UNSETTLED), one.name
        assert one.point.rpartition(":")[2] in list(Kind), one.name
        assert 2 <= one.story.count(". ") + one.story.count(".\n") + 1 <= 5, one.name


def test_the_readme_is_written_from_the_declarations() -> None:
    assert (declared.HERE / "README.md").read_text(encoding="utf-8") == declared.readme(VARIANTS), (
        "run: python -m examples.broken_shops.variants"
    )


def test_a_change_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    wrong = declared.Variant("wrong", "shop", "", "", "", "", "", (declared.Change("app.py", "not there", ""),))
    with pytest.raises(ValueError, match=r"wrong: app\.py has this 0 times: not there"):
        declared.make(wrong, tmp_path / "wrong")


def _options(sandbox: Address) -> tuple[str, ...]:
    return ("--psp-url", sandbox.url, "--psp-admin-key", sandbox.admin_key or "")


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory, sandbox: Address) -> Report:
    """Run the plain suites of the correct applications and of all variants, and all tests of the others, in one process."""
    folder = tmp_path_factory.mktemp("shops")
    for base in declared.BASES:
        declared.make_base(base, folder / base)
    for one in VARIANTS:
        declared.make(one, folder / one.name)
    for name in COMPLETE:
        shutil.copytree(declared.EXAMPLES / name, folder / f"complete_{name}", ignore=shutil.ignore_patterns("__pycache__"))
    return run_tests(folder, *_options(sandbox))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "base"), [*((base, base) for base in declared.BASES), *((v.name, v.base) for v in VARIANTS)])
def test_the_suite_of_each_application_passes(suites: Report, name: str, base: str) -> None:
    prefix = f"{name}.tests.{MODULES[base]}::"
    outcomes = [outcome for test, outcome in suites.outcomes.items() if test.startswith(prefix)]
    assert len(outcomes) >= 2
    assert set(outcomes) == {"passed"}, suites.output


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPLETE)
def test_all_tests_of_the_other_correct_applications_pass(suites: Report, name: str) -> None:
    outcomes = [outcome for test, outcome in suites.outcomes.items() if test.startswith(f"complete_{name}.")]
    assert len(outcomes) >= 8
    assert set(outcomes) == {"passed"}, suites.output


Found = dict[tuple[str, str], PointResult | LeftOut]
"""Copy of a variant and point → the result of the declared test, or why it was not tried."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, sandbox: Address) -> Found:
    """Try each variant's declared point: one pytest for all variants that share one, with the correct applications."""
    points = sorted({one.point for one in VARIANTS})
    folders = [tmp_path_factory.mktemp("explored") for _ in points]
    with ThreadPoolExecutor(1 if COPIES > 1 else PROCESSES) as threads:
        tried = threads.map(lambda point, folder: _try(point, folder, sandbox), points, folders)
        return {key: result for of_point in tried for key, result in of_point.items()}


def _try(point: str, folder: Path, sandbox: Address) -> Found:
    applications = [one for one in VARIANTS if one.point == point]
    copies = {f"{one.name}_{number}": one for one in applications for number in range(COPIES)}
    for name, one in copies.items():
        declared.make(one, folder / name)
    tests = [f"{name}/tests/{declared.BASES[one.base].module}::{one.test}" for name, one in copies.items()]
    for base, test in {(one.base, one.test) for one in applications}:
        if not (folder / base).exists():
            declared.make_base(base, folder / base)
        tests.append(f"{base}/tests/{declared.BASES[base].module}::{test}")
    processes = ("-n", str(PROCESSES)) if COPIES > 1 else ()
    output = run_tests(folder, *_options(sandbox), *processes, "--psp-point", point, *tests).output
    report = folder / ".psp-explore" / "exploration.json"
    assert report.exists(), output
    explored = Exploration.from_json(report.read_text(encoding="utf-8"))
    left_out: Found = {(one.test.partition("/")[0], point): one for one in explored.left_out}
    return left_out | {(one.test.partition("/")[0], one.name): one for one in explored.points}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(COPIES))
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_explore_finds_the_mistake_and_names_its_cause(found: Found, variant: declared.Variant, number: int) -> None:
    result = found[f"{variant.name}_{number}", variant.point]
    assert isinstance(result, PointResult), result
    assert (result.verdict, result.cause) == (variant.verdict, variant.cause), result
    assert result.cure
    assert result.repeat


@pytest.mark.slow
@pytest.mark.parametrize("point", sorted({one.point for one in VARIANTS}))
def test_the_same_point_of_the_correct_application_is_not_a_finding(found: Found, point: str) -> None:
    results = [result for (name, of_point), result in found.items() if of_point == point and name in declared.BASES]
    assert results or point.startswith("GET /payouts/{id}")  # a call that only the variant makes
    assert {isinstance(result, PointResult) and result.verdict for result in results} <= {Verdict.RIGHT, Verdict.REFUSED}, (
        results
    )
