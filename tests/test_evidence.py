"""The evidence page: what it says, that it is safe, accessible and bounded; and the other forms of the same results."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

import pytest

from psp_sandbox.testing.coverage import CATEGORIES, Coverage
from psp_sandbox.testing.evidence.exploration_page import MAX_FINDINGS, headline
from psp_sandbox.testing.evidence.render import certification_page, coverage_page, exploration_page, write_exploration
from psp_sandbox.testing.evidence.text import LIMIT, clean
from psp_sandbox.testing.evidence.words import CAUSES, KINDS, PLACES, VERDICTS
from psp_sandbox.testing.explore.results import At, Cause, Difference, Exploration, Kind, TimelineRow, Verdict
from psp_sandbox.testing.explore.timeline import MAX_ROWS, shortened
from tests.harness.browser import Browsing, check_page
from tests.harness.explorations import TESTS, exploration, paid_twice, point
from tests.harness.plugin import Project
from tests.harness.world import Stack

pytest_plugins = ["pytester"]

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE: Final = "<script>alert(1)</script>\"'&\x1b[31m\u202egnp\x00"
SUITE: Final = """
import httpx


def test_it_pays(psp):
    body = {"merchant_reference": "r", "amount": "9.00", "dest_type": "BANK", "bank_code": "HBL",
            "account_number": "12345678900001"}
    headers = {"X-API-KEY": psp.api_key, "X-IDEMPOTENCY-KEY": "k"}
    httpx.post(psp.url + "/api/v1/payouts", json=body, headers=headers, verify=False)
"""
CERTIFICATION: Final[dict[str, Any]] = {
    "created_at": "2026-03-01T09:00:00.000Z", "url": "http://127.0.0.1:9000/webhooks", "status": "FAILED", "error": None,
    "summary": {"text": "22 passed, 1 failed, 1 skipped."},
    "not_visible": [{"what": "Whether an event survives a crash.", "seen_with": "--app"}],
    "checks": [
        {
            "name": "handles_duplicate", "outcome": "failed", "why": "It acted twice on one event.",
            "cure": {"summary": "Store the event's id, and ignore it the second time."},
            "sent": {"summary": "the same webhook twice", "curl": "curl -X POST http://127.0.0.1:9000/webhooks"},
            "received": {"status": 200, "error": None, "body": HOSTILE, "duration_ms": 3.0},
        },
        {"name": "answers_in_time", "outcome": "passed", "why": "", "cure": {"summary": ""}, "sent": None, "received": None},
        {"name": "survives_burst", "outcome": "skipped", "why": "Needs a probe.", "cure": {}, "sent": None, "received": None},
    ],
}  # fmt: skip


def exercised() -> Coverage:
    coverage = Coverage(known={category: ["one", "two"] for category in CATEGORIES})
    coverage.tests[CATEGORIES[0]]["one"] = 3
    return coverage


def test_every_kind_place_verdict_and_cause_has_words() -> None:
    named = [set(KINDS), set(PLACES), set(VERDICTS), set(CAUSES)]
    assert named == [set(Kind), set(At), set(Verdict), set(Cause)]


def test_the_headline_says_how_many_ways_were_tried_how_they_ended_and_how_much_money_is_wrong() -> None:
    points = [point("t", At.WRITE, Kind.ANSWER_LOST)] * 1150
    points += [point("t", At.WRITE, Kind.UNAVAILABLE, Verdict.REFUSED)] * 49
    points += [point("t", At.WRITE, Kind.ANSWER_LOST, Verdict.WRONG, **paid_twice("r", "900.00"))] * 5
    found = Exploration("pytest", 1, "2026-03-01T09:00:00.000Z", 78, tuple(points))
    assert headline(found) == (
        "1,204 ways tried: 1,150 right, 49 noticed by the test, 5 wrong. PKR 4,500.00 paid or credited too much."
    )


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (Difference("r", "UNSENT", "10.00", None, None, "-10.00"), "PKR 10.00 taken from balances and never paid"),
        (Difference("r", None, None, "SUCCESS", "10.00", "10.00"), "PKR 10.00 paid or credited too much"),
        (Difference("r", "FAILED", "12.00", "FAILED", "10.00", "0.00"), "PKR 2.00 booked wrongly"),
        (Difference("r", "PENDING", "10.00", "SUCCESS", "10.00", "0.00"), "PKR 10.00 booked wrongly"),
    ],
)
def test_the_money_of_a_finding_is_named_by_what_happened_to_it(difference: Difference, text: str) -> None:
    wrong = point("t", At.EVENT, Kind.LATE, Verdict.WRONG, differences=(difference,))
    assert f"1 wrong. {text}." in headline(Exploration("pytest", 1, "2026-03-01T09:00:00.000Z", 78, (wrong,)))


def test_the_page_says_the_result_first_and_then_what_to_do_first() -> None:
    text = exploration_page(exploration())
    first = ("strong", "Failed: PKR 2,500.70 paid or credited too much, had this been production")
    sections = ("What to do first", "What was tried", "By test", "Findings", "What this does not show")
    order = [first, *(("h2", section) for section in sections)]
    places = [text.index(f">{heading}</{tag}>") for tag, heading in order]
    assert places == sorted(places)
    # A reader who does not know the sandbox asks whose money it is, and who has to do it.
    for answer in (
        "no real money moves",
        "the money of whoever runs the application",
        "the worst one alone is PKR 1,250.35",
        "First step for the application's developers",
    ):
        assert answer in text
    assert "Passed: nothing ended wrong" in exploration_page(exploration(findings=False))


def test_each_finding_shows_both_timelines_the_cause_the_cure_and_the_line_that_repeats_it() -> None:
    found = exploration()
    text = exploration_page(found)
    for one in found.findings:
        shown = [one.cure, CAUSES[one.cause or Cause.UNKNOWN], one.bundle, *(row.text for row in one.timeline)]
        assert all(part and part in text for part in shown)
        assert one.repeat.replace('"', "&#34;") in text
    assert ">+1 d<" in text  # the time between the first moment and the last


def test_a_long_timeline_keeps_its_beginning_and_its_end_and_says_how_much_is_between() -> None:
    rows = [TimelineRow("2026-03-01T09:00:00.000Z", "provider", str(number)) for number in range(90)]
    assert shortened(rows[:MAX_ROWS]) == tuple(rows[:MAX_ROWS])
    shown = shortened(rows)
    assert len(shown) == MAX_ROWS
    assert (shown[:30], shown[31:]) == (tuple(rows[:30]), tuple(rows[61:]))
    assert shown[30].text.startswith("… 31 more entries")


def test_what_was_not_reached_not_tried_and_left_out_is_on_the_page() -> None:
    text = exploration_page(exploration())
    for part in ("3 not reached", "12 planned ways were not tried", "cannot be killed", "Its calls differ."):
        assert part in text
    assert "books were not compared" not in text
    assert "books were not compared" in exploration_page(replace(exploration(), has_books=False))


def test_an_exploration_without_points_does_not_count_as_passed() -> None:
    text = exploration_page(replace(exploration(), points=(), planned=0))
    assert "Nothing was tried" in text
    assert "Passed" not in text


def test_hostile_text_is_shown_as_text_and_its_invisible_characters_are_replaced() -> None:
    wrong = point(
        HOSTILE, At.WRITE, Kind.ANSWER_LOST, Verdict.WRONG, reason=HOSTILE, cure=HOSTILE, repeat=HOSTILE, bundle=HOSTILE,
        differences=(Difference(HOSTILE, HOSTILE, "1.00", HOSTILE, "1.00", "0.00"),),
        timeline=paid_twice(HOSTILE, HOSTILE)["timeline"],
    )  # fmt: skip
    pages = [
        exploration_page(replace(exploration(), command=HOSTILE, points=(wrong,), currency=HOSTILE)),
        certification_page(CERTIFICATION),
        coverage_page(Coverage(known={CATEGORIES[0]: [HOSTILE]}), None),
    ]
    for text in pages:
        assert "<script" not in text
        assert not set("\x00\x1b\u202e") & set(text)
        assert "&lt;script&gt;" in text


def test_text_is_cut_at_a_limit_and_keeps_the_joiners_that_urdu_needs() -> None:
    assert len(clean("x" * 10_000)) == LIMIT
    assert clean("گر\u200cمی\n\t") == "گر\u200cمی\n\t"


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    for text in (exploration_page(exploration()), coverage_page(exercised(), 50), certification_page(CERTIFICATION)):
        assert not re.search(r"<(script|iframe|object|embed|base)\b|\bon\w+=|@import|url\(", text)
        assert set(re.findall(r'(?:src|href)="([^"#]*)', text)) <= {"data:,", ""}
        assert "default-src 'none'" in text


def test_a_page_of_many_findings_and_tests_is_bounded_and_says_what_it_leaves_out() -> None:
    tests = [f"tests/test_many.py::test_{number}" for number in range(2000)]
    wrong = [point(test, At.WRITE, Kind.ANSWER_LOST, Verdict.WRONG, **paid_twice("r", "1.00")) for test in tests]
    text = exploration_page(replace(exploration(), points=tuple(wrong)))
    assert text.count("<article") == MAX_FINDINGS
    assert f"{2000 - MAX_FINDINGS:,} more findings are in the JSON file" in text
    assert len(text) < 1_500_000


@pytest.fixture
def files(chromium: "Browser", tmp_path: Path) -> Iterator[Browsing]:
    """Pages that are opened from the folder `tmp_path`, without a server."""
    browsing = Browsing(chromium, tmp_path.as_uri() + "/")
    yield browsing
    browsing.close()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("evidence", exploration_page(exploration())),
        ("evidence-passed", exploration_page(exploration(findings=False))),
        ("evidence-coverage", coverage_page(exercised(), 50)),
        ("evidence-certification", certification_page(CERTIFICATION)),
    ],
    ids=lambda value: value if len(value) < 40 else "",
)
def test_a_page_opens_offline_fits_both_widths_and_is_accessible_in_both_themes(
    files: Browsing, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    page = check_page(files, "page.html", "", name)
    page.emulate_media(media="print", color_scheme="dark")
    details = page.locator("details li")
    assert all(details.nth(number).is_visible() for number in range(details.count()))


def test_the_same_results_can_be_written_as_json_and_as_junit(tmp_path: Path) -> None:
    found = exploration()
    for name in ("out/e.html", "out/e.json", "out/E.XML"):
        write_exploration(found, tmp_path / name)
    assert Exploration.from_json((tmp_path / "out/e.json").read_text()) == found
    assert json.loads((tmp_path / "out/e.json").read_text())["seed"] == found.seed
    root = ElementTree.parse(tmp_path / "out/E.XML").getroot()  # noqa: S314 (we wrote it)
    cases = list(root.iter("testcase"))
    assert len(cases) == int(root.attrib["tests"]) == len(found.points)
    failed = [case for case in cases if case.find("failure") is not None]
    assert len(failed) == int(root.attrib["failures"]) == found.counts[Verdict.WRONG] + found.counts[Verdict.UNSETTLED]
    assert found.findings[0].repeat in (failed[0].find("failure").text or "")  # type: ignore[union-attr]  # counted above
    assert sum(case.find("skipped") is not None for case in cases) == found.counts[Verdict.NOT_REACHED]


def test_junit_is_valid_whatever_the_texts_contain(tmp_path: Path) -> None:
    wrong = point(HOSTILE, At.WRITE, Kind.ANSWER_LOST, Verdict.WRONG, reason=HOSTILE)
    write_exploration(replace(exploration(TESTS), points=(wrong,)), tmp_path / "e.xml")
    (case,) = ElementTree.parse(tmp_path / "e.xml").iter("testcase")  # noqa: S314 (we wrote it)
    assert case.attrib["classname"].startswith("<script>")


def test_markdown_for_a_pull_request_has_the_headline_the_cures_and_the_lines_that_repeat_the_findings(tmp_path: Path) -> None:
    found = exploration()
    write_exploration(found, tmp_path / "summary")
    text = (tmp_path / "summary").read_text()
    assert text.startswith(f"### {headline(found)}".replace("_", "\\_"))
    assert found.findings[0].repeat in text


def test_hostile_text_stays_in_its_cell_of_the_markdown(tmp_path: Path) -> None:
    hostile = HOSTILE + "`|\n# x"
    wrong = point("t", At.WRITE, Kind.ANSWER_LOST, Verdict.WRONG, cure=hostile, repeat=hostile)
    write_exploration(replace(exploration(), points=(wrong,)), tmp_path / "hostile.md")
    lines = (tmp_path / "hostile.md").read_text().splitlines()
    (row, repeat) = (line for line in lines if "script" in line)
    assert "\\<script\\>" in row
    assert repeat.count("`") == 2  # so it is one code span
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in (row, repeat)] == [5, 4]


@pytest.fixture
def project(pytester: pytest.Pytester, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)
    return Project(pytester, stack)


def test_the_plugin_writes_the_page_of_an_exploration_and_that_of_the_coverage(project: Project) -> None:
    project.run(SUITE, "--psp-point", "POST /payouts#1:unavailable", "--psp-report-file", "out/e.html").assert_outcomes(
        passed=1
    )
    text = (project.pytester.path / "out" / "e.html").read_text(encoding="utf-8")
    assert "1 way tried: " in text
    project.run(SUITE, "--psp-report-file", "out/c.html").assert_outcomes(passed=1)
    text = (project.pytester.path / "out" / "c.html").read_text(encoding="utf-8")
    assert "Payout states" in text
    assert "% exercised" in text
