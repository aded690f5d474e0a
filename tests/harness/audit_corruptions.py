"""Every way to corrupt a merchant's ledger, and the audit checks that must find it."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Corruption:
    """A statement that corrupts the tables ($1 the merchant, $2 an id) and the checks that must find it."""

    statement: str
    found_by: frozenset[str]
    target: str = "succeeded"
    """The field of the test's ledger that is passed as $2."""
    names: str | None = None
    """A text that one of the problems must contain. "target" means the id passed as $2."""
    unchecked: bool = False
    """Whether to corrupt copies of the tables, because the constraints of the real tables would refuse the statement."""


def corruption(
    statement: str, *found_by: str, target: str = "succeeded", names: str | None = None, unchecked: bool = False
) -> Corruption:
    return Corruption(statement, frozenset(found_by), target, names, unchecked)


# A temporary table hides the shared table of the same name in its session, and has no constraints. (Dropping the constraints
# of the shared tables would block all other sessions.)
COPIES = [
    f"CREATE TEMP TABLE {table} ON COMMIT DROP AS SELECT * FROM public.{table} WHERE merchant_id = $1"
    for table in ("payouts", "transfers")
]
LOCK_TRANSFER = "merchant_id = $1 AND payout_id = $2 AND reason = 'PAYOUT_LOCK'"
CORRUPTIONS = {
    "an account's balance exceeds the sum of its transfers": corruption(
        "UPDATE accounts SET balance = balance + 0.01 "
        "WHERE merchant_id = $1 AND account = 'SETTLEMENT' AND $2::uuid IS NOT NULL",
        "balances_match_transfers", "accounts_sum_to_zero", names="SETTLEMENT",
    ),
    "an account is missing": corruption(
        "DELETE FROM accounts WHERE merchant_id = $1 AND account = 'FUNDING' AND $2::uuid IS NOT NULL",
        "balances_match_transfers", "accounts_sum_to_zero", names="FUNDING",
    ),
    "two balances are wrong but their sum is right": corruption(
        "UPDATE accounts SET balance = balance + CASE WHEN account = 'FUNDING' THEN 5 ELSE -5 END "
        "WHERE merchant_id = $1 AND account IN ('FUNDING', 'SETTLEMENT') AND $2::uuid IS NOT NULL",
        "balances_match_transfers", names="FUNDING",
    ),
    "the locked balance exceeds the payouts in flight": corruption(
        "UPDATE accounts SET balance = balance + CASE WHEN account = 'LOCKED' THEN 5 ELSE -5 END "
        "WHERE merchant_id = $1 AND account IN ('LOCKED', 'AVAILABLE') AND $2::uuid IS NOT NULL",
        "balances_match_transfers", "locked_matches_payouts", names="LOCKED",
    ),
    "a payout's amount was changed": corruption(
        "UPDATE payouts SET amount = amount + 1 WHERE merchant_id = $1 AND id = $2",
        "locked_matches_payouts", "changes_move_money", target="pending", names="target",
    ),
    "a running balance on the debit side was changed": corruption(
        f"UPDATE transfers SET debit_balance_after = debit_balance_after + 1 WHERE {LOCK_TRANSFER}",
        "running_balances_chain", names="AVAILABLE",
    ),
    "a running balance on the credit side was changed": corruption(
        f"UPDATE transfers SET credit_balance_after = credit_balance_after + 1 WHERE {LOCK_TRANSFER}",
        "running_balances_chain", names="LOCKED",
    ),
    "a transfer's amount was changed": corruption(
        f"UPDATE transfers SET amount = amount + 1 WHERE {LOCK_TRANSFER}",
        "balances_match_transfers", "running_balances_chain", "changes_move_money", names="target",
    ),
    "a transfer of 0.00": corruption(
        f"UPDATE transfers SET amount = 0 WHERE {LOCK_TRANSFER}",
        "transfers_are_sound", "balances_match_transfers", "running_balances_chain", "changes_move_money",
        names="does not move a positive amount", unchecked=True,
    ),
    "a transfer to itself": corruption(
        f"UPDATE transfers SET credit_account = debit_account WHERE {LOCK_TRANSFER}",
        "transfers_are_sound", "balances_match_transfers", "running_balances_chain",
        names="debits and credits the same account",
        unchecked=True,
    ),
    "a transfer between the wrong accounts": corruption(
        f"UPDATE transfers SET debit_account = 'FUNDING' WHERE {LOCK_TRANSFER}",
        "transfers_are_sound", "balances_match_transfers", "running_balances_chain", names="wrong accounts",
    ),
    "a transfer is missing": corruption(
        f"DELETE FROM transfers WHERE {LOCK_TRANSFER}",
        "balances_match_transfers", "running_balances_chain", "changes_move_money", names="which is not one of this payout",
    ),
    "a transfer has the wrong reason": corruption(
        f"UPDATE transfers SET reason = 'PAYOUT_RELEASE' WHERE {LOCK_TRANSFER}",
        "transfers_are_sound", "changes_move_money", names="PAYOUT_LOCK",
    ),
    "a transfer without its payout": corruption(
        f"UPDATE transfers SET payout_id = NULL WHERE {LOCK_TRANSFER}",
        "transfers_are_sound", "changes_move_money", names="names no payout",
    ),
    "no event refers to a transfer": corruption(
        "UPDATE events SET transfer_id = NULL WHERE merchant_id = $1 AND payout_id = $2 AND change = 0",
        "transfers_have_their_event", "changes_move_money", names="belongs to 0 events",
    ),
    "two events refer to the same transfer": corruption(
        "UPDATE events e SET transfer_id = f.transfer_id FROM events f WHERE f.merchant_id = $1 AND f.payout_id = $2 "
        "AND f.change = 0 AND e.merchant_id = $1 AND e.payout_id = $2 AND e.change = 1",
        "transfers_have_their_event", "changes_move_money", names="belongs to 2 events",
    ),
    "an event refers to another payout's transfer": corruption(
        "UPDATE events e SET transfer_id = t.id FROM transfers t WHERE e.merchant_id = $1 AND e.payout_id = $2 "
        "AND e.change = 0 AND t.merchant_id = $1 AND t.payout_id <> $2 AND t.reason = 'PAYOUT_LOCK'",
        "transfers_have_their_event", "changes_move_money", names="target",
    ),
    "a change in the middle is missing": corruption(
        "DELETE FROM events WHERE merchant_id = $1 AND payout_id = $2 AND change = 1",
        "timeline_without_holes", names="target",
    ),
    "the last change is missing": corruption(
        "DELETE FROM events WHERE merchant_id = $1 AND payout_id = $2 AND change = 2",
        "timeline_without_holes", "timeline_ends_in_status", "transfers_have_their_event", names="target",
    ),
    "the whole timeline is missing": corruption(
        "DELETE FROM events WHERE merchant_id = $1 AND payout_id = $2",
        "timeline_without_holes", "transfers_have_their_event", names="its timeline has 0",
    ),
    "a change is numbered too high": corruption(
        "UPDATE events SET change = 9 WHERE merchant_id = $1 AND payout_id = $2 AND change = 2",
        "timeline_without_holes", names="is change 9, but should be change 2",
    ),
    "the count of changes is wrong": corruption(
        "UPDATE payouts SET changes = changes + 1 WHERE merchant_id = $1 AND id = $2",
        "timeline_without_holes", names="target",
    ),
    "a change does not start from the previous status": corruption(
        "UPDATE events SET from_status = 'RETRY' WHERE merchant_id = $1 AND payout_id = $2 AND change = 1",
        "timeline_without_holes", names="starts from RETRY",
    ),
    "the first change has a previous status": corruption(
        "UPDATE events SET from_status = 'REQUESTED' WHERE merchant_id = $1 AND payout_id = $2 AND change = 0",
        "timeline_without_holes", "changes_move_money", names="starts from REQUESTED",
    ),
    "a status that differs from the timeline": corruption(
        "UPDATE payouts SET status = 'FAILED' WHERE merchant_id = $1 AND id = $2",
        "timeline_ends_in_status", names="ends in SUCCESS",
    ),
    "a settled payout has the status of one in flight": corruption(
        "UPDATE payouts SET status = 'PROCESSING' WHERE merchant_id = $1 AND id = $2",
        "timeline_ends_in_status", "locked_matches_payouts", names="target",
    ),
    "a change that the state machine does not allow": corruption(
        "UPDATE events SET to_status = 'IN_REVIEW', from_status = 'REQUESTED' "
        "WHERE merchant_id = $1 AND payout_id = $2 AND change = 1",
        "changes_are_legal", "timeline_without_holes", names="from REQUESTED to IN_REVIEW",
    ),
    "an event of the wrong type": corruption(
        "UPDATE events SET type = 'payout.failed' WHERE merchant_id = $1 AND payout_id = $2 AND change = 2",
        "changes_are_legal", names="payout.failed",
    ),
    "a success without a reference": corruption(
        "UPDATE payouts SET psp_reference = NULL WHERE merchant_id = $1 AND id = $2",
        "successes_have_a_reference", names="target", unchecked=True,
    ),
    "a payout is missing": corruption(
        "DELETE FROM payouts WHERE merchant_id = $1 AND id = $2",
        "timeline_without_holes", "idempotency_names_payouts", "references_exist", names="target",
    ),
    "an idempotency key's location contains no id": corruption(
        "UPDATE idempotency_keys SET location = '/api/v1/payouts/none' "
        "WHERE merchant_id = $1 AND location LIKE '%' || $2::text",
        "idempotency_names_payouts", names="/api/v1/payouts/none",
    ),
    "a user's earned total exceeds the transfers": corruption(
        "UPDATE users SET earned = earned + 1 WHERE merchant_id = $1 AND id = $2",
        "wallets_match_sums", "sums_match_transfers", target="user", names="target",
    ),
    "a user's requested total exceeds the payouts": corruption(
        "UPDATE users SET requested = requested + 1 WHERE merchant_id = $1 AND id = $2",
        "sums_match_payouts", target="user", names="target",
    ),
    "a sale's advance exceeds the amount paid": corruption(
        "UPDATE sales SET advance_amount = advance_amount + 1 WHERE merchant_id = $1 AND user_id = $2",
        "sales_are_paid_once", target="user", names="advance of 5.00",
    ),
    "a bulk credit counts one row too few": corruption(
        "UPDATE bulk_credits SET succeeded = 0 WHERE merchant_id = $1 AND id = $2",
        "bulk_credits_have_transfers", target="user", names="target",
    ),
}  # fmt: skip
DANGLING_REFERENCES = {
    "transfers.payout_id": corruption(
        "UPDATE transfers SET payout_id = $2 WHERE merchant_id = $1 AND reason = 'WALLET_EARN'", target="user",
    ),
    "events.payout_id": corruption(
        "DELETE FROM payouts WHERE merchant_id = $1 AND id = $2",
        "timeline_without_holes", "idempotency_names_payouts", target="failed",
    ),
    "webhook_deliveries.event_id": corruption(
        "INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, created_at, "
        "updated_at) VALUES ($1, $2, $2, $2, 'SUCCEEDED', 1, 1, now(), now())",
    ),
    "webhook_attempts.delivery_id": corruption(
        "INSERT INTO webhook_attempts (merchant_id, delivery_id, attempt, at, url, signature, response_headers, response_body, "
        "duration_ms) VALUES ($1, $2, 1, now(), '', '', '{}', '', 1)",
    ),
    "user_transactions.user_id": corruption("DELETE FROM users WHERE merchant_id = $1 AND id = $2", target="user"),
    "bulk_credit_items.activity_id": corruption("DELETE FROM bulk_credits WHERE merchant_id = $1 AND id = $2", target="user"),
}  # fmt: skip
"""By column without a foreign key: a corruption after which the column refers to a missing row."""
CORRUPTIONS |= {
    f"{column} refers to a missing row": replace(
        dangling, found_by=dangling.found_by | {"references_exist"}, names=f"{column} refers to"
    )
    for column, dangling in DANGLING_REFERENCES.items()
}
