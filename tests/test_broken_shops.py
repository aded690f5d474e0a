"""The broken shops: each has one declared mistake, and a suite that passes all the same."""

from pathlib import Path

import pytest

from examples.broken_shops import variants as declared
from psp_sandbox.testing.explore.results import Cause, Kind
from tests.harness.shop import Report, run_tests
from tests.harness.world import Stack

VARIANTS = declared.variants()
MODULES = {base: Path(of_base.module).stem for base, of_base in declared.BASES.items()}


def test_each_variant_is_declared_with_a_cause_a_point_and_a_story() -> None:
    assert len(VARIANTS) >= 30
    assert len({one.name for one in VARIANTS}) == len(VARIANTS)
    for one in VARIANTS:
        assert one.cause in list(Cause), one.name
        assert one.found_at in list(Kind), one.name
        assert 2 <= one.story.count(". ") + one.story.count(".\n") + 1 <= 5, one.name


def test_the_readme_is_written_from_the_declarations() -> None:
    assert (declared.HERE / "README.md").read_text(encoding="utf-8") == declared.readme(VARIANTS), (
        "run: python -m examples.broken_shops.variants"
    )


def test_a_change_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    wrong = declared.Variant("wrong", "shop", "", "", "", (declared.Change("app.py", "not there", ""),))
    with pytest.raises(ValueError, match=r"wrong: app\.py has this 0 times: not there"):
        declared.make(wrong, tmp_path / "wrong")


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> Report:
    """Run the plain suites of the correct applications and of all variants, in one process."""
    folder = tmp_path_factory.mktemp("shops")
    for base in declared.BASES:
        declared.make_base(base, folder / base)
    for one in VARIANTS:
        declared.make(one, folder / one.name)
    return run_tests(folder, "--psp-url", stack.api_url, "--psp-admin-key", stack.admin_key)


@pytest.mark.parametrize(("name", "base"), [*((base, base) for base in declared.BASES), *((v.name, v.base) for v in VARIANTS)])
def test_the_suite_of_each_application_passes(suites: Report, name: str, base: str) -> None:
    prefix = f"{name}.tests.{MODULES[base]}::"
    outcomes = [outcome for test, outcome in suites.outcomes.items() if test.startswith(prefix)]
    assert len(outcomes) >= 2
    assert set(outcomes) == {"passed"}, suites.output
