"""The example shop's own tests pass, and notice the classic mistakes: each one, made in a copy of the shop, fails its test."""

import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.harness.shop import SHOP, Report, run_tests

pytestmark = pytest.mark.slow

Replacement = tuple[str, str, str]
"""File, text, new text."""

BUGS: Final[dict[str, tuple[str, list[Replacement]]]] = {
    "no_dedupe": (
        "test_webhooks.py::test_a_webhook_that_arrives_twice_counts_once",
        [
            ("app.py", "ON CONFLICT DO NOTHING", "ON CONFLICT (id) DO UPDATE SET is_processed = 0"),
            ("payments.py", 'data["version"] <= payout["version"]', 'data["version"] < payout["version"]'),
            ("payments.py", "if is_back and not was_back:", "if is_back:"),
        ],
    ),
    "no_ordering": (
        "test_webhooks.py::test_a_late_webhook_does_not_undo_a_newer_one",
        [("payments.py", 'if data["version"] <= payout["version"]:', "if False:")],
    ),
    "no_signature_check": (
        "test_webhooks.py::test_a_forged_webhook_is_refused[tampered_body]",
        [
            (
                "webhooks.py",
                'return any(hmac.compare_digest(b"v1," + right, signature) for signature in signatures)',
                "return True",
            )
        ],
    ),
    "accepts_stale_timestamps": (
        "test_webhooks.py::test_a_replayed_webhook_is_refused",
        [("webhooks.py", "abs(time.time() - int(stamp)) > TOLERANCE", "int(stamp) > time.time() + TOLERANCE")],
    ),
    "reads_the_first_signature_only": (
        "test_webhooks.py::test_a_new_secret_may_sign_before_we_know_it",
        [("webhooks.py", "for signature in signatures)", "for signature in signatures[:1])")],
    ),
    "event_lost_in_a_crash": (
        "test_webhooks.py::test_an_event_survives_a_crash",
        [
            (
                "payments.py",
                "            if marked.rowcount == 1 and",
                "        with self._store.transaction() as db:\n            if marked.rowcount == 1 and",
            )
        ],
    ),
    "acknowledges_what_it_did_not_store": (
        "test_webhooks.py::test_a_webhook_that_cannot_be_stored_is_not_acknowledged",
        [
            (
                "app.py",
                "    return app\n",
                "    app.register_error_handler(Exception, lambda error: ({}, 200))\n    return app\n",
            )
        ],
    ),
    "answer_overwrites_the_webhook": (
        "test_webhooks.py::test_a_webhook_that_is_faster_than_the_answer_wins",
        [("payments.py", " AND version = 0", "")],
    ),
    "failure_ignored": (
        "test_paying.py::test_a_failed_payout_returns_the_money_to_the_seller",
        [("payments.py", '{"FAILED", "CANCELLED",', '{"CANCELLED",')],
    ),
    "gives_the_money_back_at_each_failure": (
        "test_paying.py::test_a_reinitiated_payout_takes_the_money_again",
        [("payments.py", "elif was_back and not is_back:", "elif False:")],
    ),
    "return_ignored": (
        "test_paying.py::test_a_returned_payout_returns_the_money_to_the_seller",
        [("payments.py", ', "RETURNED"})', "})")],
    ),
    "refusal_keeps_the_money": (
        "test_paying.py::test_a_refused_payout_returns_the_money_to_the_seller",
        [("payments.py", "if refused.rowcount == 1:", "if refused.rowcount > 1:")],
    ),
    "amount_as_float": (
        "test_paying.py::test_amounts_are_exact",
        [("money.py", "minor = Decimal(text) * 100", "minor = Decimal(int(float(text) * 100))")],
    ),
    "new_key_per_attempt": (
        "test_lost_answers.py::test_a_lost_answer_is_asked_for_again_with_the_same_key[connection_reset]",
        [("psp.py", 'self._create_or_find(body, payout["id"])', "self._create_or_find(body, str(time.time_ns()))")],
    ),
    "gives_up_at_once": (
        "test_lost_answers.py::test_a_payout_is_sent_again_while_the_psp_is_unavailable[error]",
        [("psp.py", "ATTEMPTS: Final = 3", "ATTEMPTS: Final = 1")],
    ),
    "pays_again_after_a_lost_answer": (
        "test_lost_answers.py::test_without_any_answer_nobody_is_paid_twice",
        [
            (
                "payments.py",
                '            return "unsent"\n',
                "            with self._store.transaction() as db:\n"
                "                db.execute(\"UPDATE payouts SET status = 'REFUSED' WHERE id = ?\", [payout['id']])\n"
                '                add_entry(db, payout["seller_id"], payout["amount"], "unsent", payout["id"])\n'
                '            return "unsent"\n',
            )
        ],
    ),
    "forgets_what_it_did_not_send": (
        "test_lost_answers.py::test_a_payout_is_sent_after_a_crash_before_the_call",
        [("app.py", "    payments.send_unsent()\n", "")],
    ),
    "debits_after_the_answer": (
        "test_lost_answers.py::test_a_payout_is_not_repeated_after_a_crash_behind_the_call",
        [
            ("payments.py", '        add_entry(db, seller_id, -amount, "payout", payout_id)\n', ""),
            (
                "payments.py",
                '        return "sent"\n',
                '            add_entry(db, payout["seller_id"], -payout["amount"], "payout", payout["id"])\n'
                '        return "sent"\n',
            ),
        ],
    ),
}
"""Name → the test that catches it, and how to make it."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Run the shop's own tests, and for each mistake its test in a copy of the shop that has it. Return the outcomes."""
    folder = tmp_path_factory.mktemp("shops")
    copy_to(folder / "shop")
    for name, (_, replacements) in BUGS.items():
        copy_to(folder / name)
        for file, text, new_text in replacements:
            path = folder / name / file
            source = path.read_text()
            assert source.count(text) == 1, f"{name}: {file} contains {text!r} {source.count(text)} times"
            path.write_text(source.replace(text, new_text))
    return run_tests(folder, "-n", "2", "shop", *(f"{name}/tests/{test}" for name, (test, _) in BUGS.items()))


def copy_to(folder: Path) -> None:
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__", "*.md"))


def outcome_of(report: Report, package: str, test: str) -> str | None:
    module, name = test.split(".py::")
    return report.outcomes.get(f"{package}.tests.{module}::{name}")


def test_the_shops_tests_pass(report: Report) -> None:
    own = {name: outcome for name, outcome in report.outcomes.items() if name.startswith("shop.")}
    assert len(own) >= 17
    assert set(own.values()) == {"passed"}, report.output


@pytest.mark.parametrize("name", BUGS)
def test_a_mistake_is_noticed(report: Report, name: str) -> None:
    test, _ = BUGS[name]
    assert outcome_of(report, "shop", test) == "passed", report.output
    # The test itself fails. An error in its fixtures would only show that the copy does not work at all.
    assert outcome_of(report, name, test) == "failed", report.output
