"""`pytest --psp-explore` tries each way in which the world can misbehave, and finds what makes the books differ."""

import json
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from psp_sandbox.testing.explore.books import BooksError, Paid, Row, differences, read_rows, rows_of_command
from psp_sandbox.testing.explore.causes import cure, why
from psp_sandbox.testing.explore.points import REST, Call, Event, Recording, plan
from psp_sandbox.testing.explore.results import (
    At,
    Cause,
    Difference,
    Exploration,
    Kind,
    LeftOut,
    NotTried,
    PointResult,
    TimelineRow,
    Verdict,
)
from psp_sandbox.testing.explore.schedule import MAX_PAIRS, named, schedule
from psp_sandbox.testing.process import Address
from tests.harness.plugin import QUIET

pytest_plugins = ["pytester"]

APP = '''
import base64, hashlib, hmac, json, uuid

import httpx
import pytest


class App:
    """Pays once, follows the payout's events, and keeps what it has spent. `bug` names the one mistake that it makes."""

    def __init__(self, psp, psp_url, api_key, webhook_secret, bug):
        self.http = httpx.Client(base_url=psp_url, headers={"X-API-KEY": api_key}, timeout=10, transport=httpx.HTTPTransport())
        self.secret, self.bug = webhook_secret, bug
        self.status, self.spent, self.versions, self.ids = "UNSENT", 0, {}, set()

    def pay(self):
        self.status, self.spent = "PENDING", 100
        key = "order-1"
        body = {"merchant_reference": "order-1", "amount": "100.00", "dest_type": "BANK", "bank_code": "HBL",
                "account_number": "12345678900001"}
        for _ in range(1 if self.bug == "no_retry" else 4):
            try:
                answer = self.http.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": key})
                found = answer.json()
            except (httpx.TransportError, ValueError):
                key = str(uuid.uuid4()) if self.bug == "new_key" else key
                continue
            if answer.status_code == 409 and found["code"] == "DUPLICATE_REFERENCE" and self.bug == "new_key":
                self.status, self.spent, self.versions["order-1"] = "FAILED", 0, 99
                return
            if answer.is_success:
                return

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
        named = {name: environ.get(f"HTTP_WEBHOOK_{name}", "") for name in ("ID", "TIMESTAMP", "SIGNATURE")}
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        signed = hmac.digest(key, f"{named['ID']}.{named['TIMESTAMP']}.".encode() + body, "sha256")
        if "v1," + base64.b64encode(signed).decode() not in named["SIGNATURE"].split() and self.bug != "forged":
            start_response("401 Unauthorized", [])
            return [b""]
        self.apply(json.loads(body)["data"])
        start_response("204 No Content", [])
        return [b""]

    def apply(self, data):
        if self.bug == "older" or data["version"] > self.versions.get(data["merchant_reference"], 0):
            self.versions[data["merchant_reference"]] = data["version"]
            self.status = data["status"]
            self.spent = 0 if data["status"] in ("FAILED", "RETURNED") else 100
        elif self.bug == "twice" and data["status"] == "SUCCESS":
            self.spent += 100


@pytest.fixture
def app(request, live_app):
    bug = request.node.name.removeprefix("test_")
    app = live_app(App, bug=bug, endpoint={"event_types": ["payout.processing", "payout.succeeded", "payout.returned"]}).app
    with app.http:
        yield app


@pytest.fixture
def psp_books(app):
    return [("order-1", app.status, "100.00", app.spent)]


@pytest.fixture
def psp_status_names():
    return {"UNSENT": None}
'''
TEST = """

def test_{name}(psp, app):
    app.pay()
    psp.drain()
    assert app.status == "SUCCESS"
"""


class Project:
    """A project whose tests are explored."""

    def __init__(self, pytester: pytest.Pytester, sandbox: Address) -> None:
        self.pytester = pytester
        self._sandbox = ("--psp-url", sandbox.url, "--psp-admin-key", sandbox.admin_key or "")

    def explore(self, *arguments: str, code: str = TEST.format(name="correct"), in_process: bool = True) -> pytest.RunResult:
        self.pytester.makepyfile(test_inner=APP + textwrap.dedent(code))
        if in_process:
            return self.pytester.runpytest_inprocess(*QUIET, "-p", "no:xdist", *self._sandbox, *arguments)
        return self.pytester.runpytest_subprocess(*QUIET, *self._sandbox, *arguments)

    def results(self) -> Exploration:
        return Exploration.from_json((self.pytester.path / ".psp-explore" / "exploration.json").read_text())


@pytest.fixture
def project(pytester: pytest.Pytester, sandbox: Address, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    return Project(pytester, sandbox)


def verdicts(exploration: Exploration) -> dict[str, Verdict]:
    return {point.name: point.verdict for point in exploration.points}


def test_a_correct_application_is_right_at_every_point_in_a_resumed_run_and_in_two_processes(project: Project) -> None:
    project.explore("--psp-explore", "--psp-explore-budget", "0s")
    stopped = project.results()
    assert (stopped.points, stopped.is_complete) == ((), False)
    done = project.explore("--psp-explore", "--psp-explore-resume")
    first = project.results()
    assert done.ret == 0, done.outlines
    assert first.is_complete
    assert "--psp-admin-key KEY" in first.command, "a report is passed on, so it must not have the operator's key"
    assert first.has_books
    assert not first.left_out
    assert {point.verdict for point in first.points} <= {Verdict.RIGHT, Verdict.REFUSED}
    assert first.points[0].name == "POST /payouts#1:answer_lost"
    assert {point.kind for point in first.points} == set(Kind) - {
        Kind.REINITIATED_TWICE, Kind.CANCELLED, Kind.KILLED_AT_CALL, Kind.KILLED_BEFORE_ANSWER, Kind.KILLED_AFTER_ANSWER,
    }  # fmt: skip
    # Everything has its result already, so nothing is tried again.
    project.explore("--psp-explore", "--psp-explore-resume")
    assert {point.name: point.seconds for point in project.results().points} == {one.name: one.seconds for one in first.points}
    again = project.explore("--psp-explore", "-n", "2", in_process=False)
    assert again.ret == 0, again.outlines
    assert verdicts(project.results()) == verdicts(first)


@pytest.mark.parametrize(
    ("bug", "point", "cause", "overpaid"),
    [
        ("new_key", "POST /payouts#1:answer_lost", Cause.NEW_KEY, "100.00"),
        ("no_retry", "POST /payouts#1:request_lost", Cause.NO_RETRY, "-100.00"),
        ("twice", "payout.succeeded#1:twice", Cause.APPLIED_TWICE, "-100.00"),
        ("older", "payout.processing#1:out_of_order", Cause.OLDER_OVER_NEWER, "0.00"),
        ("forged", "payout.succeeded#1:forged", Cause.FORGED_ACCEPTED, "100.00"),
    ],
)
def test_a_mistake_that_no_test_sees_is_found_with_its_cause_and_a_line_that_repeats_it(
    project: Project, bug: str, point: str, cause: Cause, overpaid: str
) -> None:
    done = project.explore("--psp-point", point, code=TEST.format(name=bug))
    assert done.ret == pytest.ExitCode.TESTS_FAILED, done.outlines
    (found,) = project.results().points
    assert (found.name, found.verdict, found.cause) == (point, Verdict.WRONG, cause), found.reason
    assert found.cure == cure(cause)
    assert [one.overpaid for one in found.differences] == [overpaid]
    assert {row.side for row in found.timeline} == {"application", "provider"}
    assert found.repeat == f"pytest test_inner.py::test_{bug} --psp-point '{point}'"
    assert (project.pytester.path / ".psp-explore" / "worlds" / str(found.bundle)).exists()
    done.stdout.fnmatch_lines([f"*WRONG*test_{bug}", "*Likely cause:*", f"*Repeat it: {found.repeat}"])


RESTART = """

@pytest.fixture
def psp_restart(app):
    def restart():
        app.is_broken = app.status == "PROCESSING" or {stays_broken} and getattr(app, "is_broken", False)
        if app.is_broken:
            raise RuntimeError("the port is taken")
    return restart
"""


@pytest.mark.parametrize(("stays_broken", "verdict"), [(False, Verdict.NOT_REACHED), (True, Verdict.UNSETTLED)])
def test_an_application_that_cannot_be_restarted_while_it_answers_an_event_is_not_right(
    project: Project, stays_broken: bool, verdict: Verdict
) -> None:
    code = TEST.format(name="correct") + RESTART.format(stays_broken=stays_broken)
    done = project.explore("--psp-point", "payout.processing#1:killed_before_answer", code=code)
    (found,) = project.results().points
    assert (found.verdict, "RuntimeError: the port is taken" in str(found.reason)) == (verdict, True), found.reason
    assert done.ret == (pytest.ExitCode.TESTS_FAILED if verdict is Verdict.UNSETTLED else 0), done.outlines


def test_tests_of_several_modules_are_tried_in_turn(project: Project) -> None:
    project.pytester.makepyfile(
        test_other="from test_inner import app, psp_books, psp_status_names" + TEST.format(name="other")
    )
    done = project.explore("--psp-point", "payout.succeeded#1:twice")
    assert done.ret == 0, done.outlines
    assert [(point.test, point.verdict) for point in project.results().points] == [
        ("test_inner.py::test_correct", Verdict.RIGHT), ("test_other.py::test_other", Verdict.RIGHT),
    ]  # fmt: skip


def test_points_are_listed_without_being_tried(project: Project) -> None:
    done = project.explore("--psp-explore-list")
    assert done.ret == 0
    done.stdout.fnmatch_lines(["test_inner.py::test_correct  POST /payouts#1:answer_lost", "*payout.processing#1:out_of_order"])
    assert not project.results().points


def test_a_test_is_left_out_if_it_fails_or_differs_between_two_runs(project: Project) -> None:
    code = """
    import itertools

    runs, tries = itertools.count(), itertools.count()

    def test_fails(psp, app):
        assert app.status == "PENDING"

    def test_fails_once(psp, app):
        assert next(tries)

    def test_differs(psp, app):
        if next(runs) % 2:
            app.pay()

    def test_without_an_application(psp):
        psp.pays("success")

    def test_without_a_sandbox():
        pass
    """
    done = project.explore("--psp-explore", code=code)
    reasons = {one.test.rpartition("_")[2]: one.reason for one in project.results().left_out}
    assert reasons["fails"].startswith("It fails without any fault: ")
    assert "differ between two runs" in reasons["differs"] or "No application calls" in reasons["differs"]
    assert reasons["once"].startswith("No application calls"), "a race that fails a test now and then must not hide its points"
    assert reasons["application"].startswith("No application calls")
    assert len(reasons) == 4
    assert not project.results().points
    assert done.ret == pytest.ExitCode.TESTS_FAILED


def test_without_books_only_the_money_that_the_provider_paid_is_judged(project: Project) -> None:
    project.explore("--psp-point", "POST /payouts#1:request_lost", code="psp_books = None\n" + TEST.format(name="no_retry"))
    exploration = project.results()
    (found,) = exploration.points
    assert not exploration.has_books
    # The test itself noticed that nothing was paid.
    assert found.verdict is Verdict.REFUSED


# Books.


def row(reference: str, status: str, amount: str, spent: str | None = None, **names: Any) -> Row:
    (found,) = read_rows([(reference, status, amount, *([spent] if spent else []))], names)
    return found


@pytest.mark.parametrize(
    ("books", "provider", "overpaid"),
    [
        ([row("a", "SUCCESS", "5.00")], [("a", "SUCCESS", "5.00")], []),
        ([row("a", "paid", "5", paid="SUCCESS")], [("a", "SUCCESS", "5.00")], []),
        ([row("a", "open", "5", open=("PENDING", "ON_HOLD"))], [("a", "ON_HOLD", "5.00")], []),
        ([row("a", "refused", "5", "0", refused=None)], [], []),
        ([row("a", "FAILED", "5.00")], [("a", "SUCCESS", "5.00")], ["5.00"]),
        ([row("a", "PENDING", "5.00")], [], ["-5.00"]),
        ([row("a", "SUCCESS", "5.01")], [("a", "SUCCESS", "5.00")], ["-0.01"]),
        ([row("a", "FAILED", "5.00", "-10.00")], [("a", "FAILED", "5.00")], ["10.00"]),
        ([], [("a", "SUCCESS", "5.00")], ["5.00"]),
        ([], [("of the test", "SUCCESS", "5.00")], []),
    ],
)
def test_books_agree_by_reference_status_amount_and_what_was_spent(
    books: list[Row], provider: list[tuple[str, str, str]], overpaid: list[str]
) -> None:
    paid = [Paid(f"id of {reference}", reference, status, Decimal(amount)) for reference, status, amount in provider]
    found = differences(books, paid, lambda one: one.reference == "of the test")
    assert [one.overpaid for one in found] == overpaid


@pytest.mark.parametrize("rows", ["text", [("a", "SUCCESS")], [("a", "SUCCESS", 1.5)], [("a", "SUCCESS", "much")], 7])
def test_books_that_cannot_be_read_say_how_rows_look(rows: Any) -> None:
    with pytest.raises(BooksError, match=r"reference, status, amount|a float is not exact"):
        read_rows(rows, {})


@pytest.mark.parametrize(
    "output", ['{"reference": "a", "status": "SUCCESS", "amount": "5.00"}', "reference,status,amount\na,SUCCESS,5.00"]
)
def test_a_command_prints_the_books_as_json_lines_or_csv(tmp_path: Path, output: str) -> None:
    (tmp_path / "books.txt").write_text(output)
    assert rows_of_command(f"cat {tmp_path / 'books.txt'}", {}, {}) == [row("a", "SUCCESS", "5.00")]
    with pytest.raises(BooksError, match="exit code 1"):
        rows_of_command(f"cat {tmp_path / 'none'}", {}, {})


# Plans.


def test_points_are_named_by_call_event_or_status_and_its_number() -> None:
    from datetime import UTC, datetime

    at = datetime(2030, 1, 1, tzinfo=UTC)
    create, poll, cancel = (
        Call("POST", "/api/v1/payouts"),
        Call("GET", "/api/v1/payouts/*"),
        Call("POST", "/api/v1/payouts/*/cancel"),
    )
    events = (
        Event("payout.created", "1", at),
        Event("payout.created", "2", at),
        Event("payout.failed", "1", at.replace(second=5)),
    )
    points = plan(Recording((create, poll, poll, create, cancel), events, ("FAILED", "SUCCESS")), can_restart=False)
    skips = {point.name: point.skip for point in points}
    assert skips["POST /payouts#2:answer_lost"] == 1
    assert skips["POST /payouts/{id}/cancel#1:unavailable"] == 0
    assert "GET /payouts/{id}#2:answer_lost" not in skips  # a poll
    assert skips["FAILED#1:reinitiated_twice"] == skips["SUCCESS#1:returned"] == 0
    (gap,) = [point.gap_ms for point in points if point.kind is Kind.OUT_OF_ORDER]  # only one has a successor
    assert gap == 5000


def test_lost_answers_come_first_then_one_run_of_each_test_in_turn_and_pairs_last() -> None:
    calls = (Call("POST", "/api/v1/payouts"), Call("POST", "/api/v1/users"))
    points = [REST, *plan(Recording(calls, (), ("FAILED",)), can_restart=False)]
    runs = schedule({"a": points, "b": points}, depth=2, seed=1)
    assert [(run.test, run.name.partition("#")[0]) for run in runs[:4]] == [
        ("a", "POST /payouts"), ("a", "POST /users"), ("b", "POST /payouts"), ("b", "POST /users"),
    ]  # fmt: skip
    assert all(":answer_lost" in run.name for run in runs[:4])
    assert [run.test for run in runs[4:8]] == ["a", "b", "a", "b"]
    pairs = [run for run in runs if len(run.points) == 2]
    assert len(pairs) == 2 * MAX_PAIRS
    assert all(len({point.place for point in run.points}) == 2 and REST not in run.points for run in pairs)
    assert sum(any(point.at is At.STATUS for point in run.points) for run in pairs) >= MAX_PAIRS
    assert runs == schedule({"a": points, "b": points}, depth=2, seed=1)
    assert pairs != [run for run in schedule({"a": points, "b": points}, depth=2, seed=2) if len(run.points) == 2]
    assert named(points, pairs[0].name) == pairs[0].points
    assert named(points, "POST /payouts#9:answer_lost") is None


# Results.


def test_each_cause_has_its_reason_and_its_cure() -> None:
    assert all(why(cause) and cure(cause) for cause in Cause)


def test_results_survive_their_json() -> None:
    point = PointResult(
        "t.py::test", At.WRITE, "POST /payouts#1", Kind.ANSWER_LOST, Verdict.WRONG, "why", Cause.NEW_KEY, "cure",
        (Difference("r", "FAILED", "1.00", "SUCCESS", "1.00", "1.00", "0.00", "1.00"),),
        (TimelineRow("2030-01-01T00:00:00.000Z", "provider", "answers 201"),), "pytest …", "w.json", 0.5, ("X#1:twice",),
    )  # fmt: skip
    found = Exploration(
        "pytest", 1, "2030-01-01T00:00:00.000Z", 78.0, (point,), (LeftOut("t", "why"),), (NotTried(Kind.LATE, "why"),),
        has_books=False, planned=3,
    )  # fmt: skip
    assert Exploration.from_json(found.to_json()) == found
    assert (point.name, point.overpaid, found.is_complete, found.ok) == (
        "POST /payouts#1:answer_lost + X#1:twice", Decimal("1.00"), False, False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="not the JSON of an exploration"):
        Exploration.from_json(json.dumps({"format": "other"}))
