"""The guide's tables list what the code has: no code, event, fault, scenario or schedule is missing or wrong."""

import re
from typing import get_args

from sandbox.domain.enumerations import EventType, FaultKind, PayoutStatus
from sandbox.domain.errors import CODES
from sandbox.domain.failure_codes import FAILURES
from sandbox.domain.payout_states import TRANSITIONS
from sandbox.payouts.scenarios.builtin import load_catalogue
from sandbox.webhooks.delivery.retry_schedule import PROFILES
from sandbox.webhooks.receiver_tests.checks import NAMES
from tests.harness.code_blocks import ROOT


def rows(page: str, folder: str = "docs") -> list[list[str]]:
    """Return the cells of all table rows of a page, without the rows of headings."""
    lines = (ROOT / folder / page).read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("| ") and not following.startswith("|--")
    ]


def names(cell: str) -> list[str]:
    """Return what a cell shows as code."""
    return re.findall(r"`([^`]+)`", cell)


def test_errors_lists_each_code_with_its_status_and_title() -> None:
    listed = [(row[1], int(row[0]), row[2]) for row in rows("errors.md") if len(row) == 4]
    assert listed == [(f"[`{code}`](/problems/{code})", kind.status, kind.title) for code, kind in CODES.items()]


def test_errors_says_which_codes_to_retry() -> None:
    retried = {names(row[1])[0] for row in rows("errors.md") if len(row) == 4 and row[3].startswith("same key")}
    assert {CODES[code].status for code in retried} == {408, 409, 429, 500, 503}
    assert [code for code in retried if CODES[code].status == 409] == ["IDEMPOTENCY_KEY_IN_FLIGHT"]


def test_errors_lists_each_failure_code() -> None:
    listed = {names(row[0])[0]: row[1] for row in rows("errors.md") if len(row) == 2 and names(row[0])}
    assert FAILURES.items() <= listed.items()


def test_webhooks_lists_each_event_type_and_retry_schedule() -> None:
    table = rows("webhooks.md")
    listed = [name for row in table for name in names(row[0]) if name in get_args(EventType)]
    assert listed == list(get_args(EventType))
    for profile, waits in PROFILES.items():
        text = next(row[1] for row in table if row[0] == f"`{profile}`")
        units = {"s": 1, "min": 60, "h": 3600}
        given = [int(number) * units[unit] for number, unit in (wait.split() for wait in text.split(", "))]
        assert given == [wait.total_seconds() for wait in waits]


def test_faults_lists_each_kind() -> None:
    assert {name for row in rows("faults.md") for name in names(row[0])} >= set(get_args(FaultKind))


def test_scenarios_lists_each_suffix() -> None:
    listed = {names(row[0])[0]: names(row[1])[0] for row in rows("scenarios.md") if re.match(r"`\d{4}`", row[0])}
    assert listed == {one.match.suffix: one.name for one in load_catalogue().scenarios if one.match.suffix}


def test_money_lists_each_legal_change() -> None:
    changes = set()
    for source, target, _ in (row for row in rows("money-and-ledger.md") if len(row) == 3):
        sources = [name for name in names(source) if name in get_args(PayoutStatus)] or [None]
        targets = [name for name in names(target) if name in get_args(PayoutStatus)]
        changes |= {(one, other) for one in sources for other in targets}
    assert changes == set(TRANSITIONS)


def test_certify_lists_each_check() -> None:
    assert {name for row in rows("certify.md") for name in names(row[0])} == set(NAMES)


def test_operations_lists_each_setting() -> None:
    source = (ROOT / "sandbox" / "infrastructure" / "settings.py").read_text(encoding="utf-8")
    read = set(re.findall(r'"((?:SANDBOX|OTEL_EXPORTER)_[A-Z_]+|[A-Z]+_URL)"', source))
    listed = {name for row in rows("operations.md") if len(row) == 3 for name in names(row[0]) if name.isupper()}
    assert listed == read | {"BULK_CREDIT_FAIL_USER_IDS"}


def test_contributing_lists_test_files_that_exist() -> None:
    listed = [name for row in rows("CONTRIBUTING.md", "") for name in names(row[1]) if name.startswith("test_")]
    assert len(listed) > 50
    assert [name for name in listed if not list((ROOT / "tests").glob(name))] == []
