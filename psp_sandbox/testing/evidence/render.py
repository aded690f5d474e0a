"""Turn results into files: a page or Markdown for people, JUnit XML and JSON for programs."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from psp_sandbox.testing.evidence.exploration_page import BAR_WIDTH, CELL, MAX_ROWS, page_of
from psp_sandbox.testing.evidence.junit import junit
from psp_sandbox.testing.evidence.markdown import markdown
from psp_sandbox.testing.evidence.text import clean
from psp_sandbox.testing.explore.results import Exploration

if TYPE_CHECKING:
    import jinja2

    from psp_sandbox.testing.coverage import Coverage


def _shown(value: Any) -> Any:
    """Clean every text that a template shows. What a macro returns is markup, and cleaned already."""
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


@cache
def _environment() -> "jinja2.Environment":
    import jinja2  # an extra, which only pages need

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("psp_sandbox.testing.evidence"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["lower_first"] = lambda text: text[:1].lower() + text[1:]
    return environment


def _page(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(values)


def exploration_page(found: Exploration) -> str:
    """Return the evidence page of an exploration. Like all pages, it needs no other file and no script."""
    return _page("exploration.html", page=page_of(found), found=found, bar_width=BAR_WIDTH, cell=CELL, max_rows=MAX_ROWS)


def coverage_page(coverage: "Coverage", minimum: float | None) -> str:
    """Return the page of a test suite's coverage. `minimum` is the percentage that is required."""
    rows: dict[str, list[tuple[str, int]]] = {}
    for category, name, tests in coverage.rows():
        rows.setdefault(category, []).append((name, tests))
    most = max((tests for some in rows.values() for _, tests in some), default=0) or 1
    categories = [
        {
            "name": name,
            "exercised": coverage.share(name)[0],
            "rows": [(row, tests, round(BAR_WIDTH * tests / most) if tests else 3) for row, tests in some],
        }
        for name, some in rows.items()
    ]
    exercised, total = coverage.share()
    return _page(
        "coverage.html",
        headline=f"{exercised} of {total} states, codes, faults and retries were exercised by the tests.",
        percent=coverage.percent,
        minimum=minimum,
        is_too_low=minimum is not None and coverage.percent < minimum,
        categories=categories,
        bar_width=BAR_WIDTH,
    )


def certification_page(test: Mapping[str, Any]) -> str:
    """Return the page of a finished receiver test, as the API returns it."""
    by_outcome = {
        outcome: [check for check in test["checks"] if check["outcome"] == outcome]
        for outcome in ("failed", "advice", "passed", "skipped")
    }
    return _page("certification.html", test=test, headline=test["summary"]["text"], **by_outcome)


def write_exploration(found: Exploration, path: Path) -> None:
    """Write a report of an exploration: a page, JSON or JUnit XML if the file's name ends so, else Markdown. Raises OSError."""
    form = _FORMS.get(path.suffix.lower(), markdown)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(form(found), encoding="utf-8")


_FORMS: Final[Mapping[str, Callable[[Exploration], str]]] = {
    ".html": exploration_page,
    ".json": Exploration.to_json,
    ".xml": junit,
}
