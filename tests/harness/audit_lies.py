"""Every way in which the tables could lie, and the checks of the audit that must see it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lie:
    """A statement ($1 the merchant, $2 a payout) and the checks that must see it."""

    statement: str
    seen_by: frozenset[str]
    payout: str = "succeeded"
    names: str | None = None
    """What the problem must name: the payout's id ("payout"), or a text."""
    unchecked: bool = False
    """Whether it is told of copies, since the tables' own constraints would refuse it."""


def lie(statement: str, *seen_by: str, payout: str = "succeeded", names: str | None = None, unchecked: bool = False) -> Lie:
    return Lie(statement, frozenset(seen_by), payout, names, unchecked)


# What a session copies comes before the tables that all share, and has no constraints. (To drop those of the tables
# themselves would lock everybody out.)
COPIES = [
    f"CREATE TEMP TABLE {table} ON COMMIT DROP AS SELECT * FROM public.{table} WHERE merchant_id = $1"
    for table in ("payouts", "transfers")
]
LOCK_OF = "merchant_id = $1 AND payout_id = $2 AND reason = 'PAYOUT_LOCK'"
LIES = {
    "a balance is more than its transfers": lie(
        "UPDATE accounts SET balance = balance + 0.01 "
        "WHERE merchant_id = $1 AND account = 'SETTLEMENT' AND $2::uuid IS NOT NULL",
        "balances_match_transfers", "accounts_sum_to_zero", names="SETTLEMENT",
    ),
    "an account is gone": lie(
        "DELETE FROM accounts WHERE merchant_id = $1 AND account = 'FUNDING' AND $2::uuid IS NOT NULL",
        "balances_match_transfers", "accounts_sum_to_zero", names="FUNDING",
    ),
    "two balances are off and their sum is not": lie(
        "UPDATE accounts SET balance = balance + CASE account WHEN 'FUNDING' THEN 5 ELSE -5 END "
        "WHERE merchant_id = $1 AND account IN ('FUNDING', 'SETTLEMENT') AND $2::uuid IS NOT NULL",
        "balances_match_transfers", names="FUNDING",
    ),
    "locked holds more than is in flight": lie(
        "UPDATE accounts SET balance = balance + CASE account WHEN 'LOCKED' THEN 5 ELSE -5 END "
        "WHERE merchant_id = $1 AND account IN ('LOCKED', 'AVAILABLE') AND $2::uuid IS NOT NULL",
        "balances_match_transfers", "locked_matches_payouts", names="LOCKED",
    ),
    "a payout's amount was changed": lie(
        "UPDATE payouts SET amount = amount + 1 WHERE merchant_id = $1 AND id = $2",
        "locked_matches_payouts", "changes_move_money", payout="pending", names="payout",
    ),
    "a running balance on the debit side": lie(
        f"UPDATE transfers SET debit_balance_after = debit_balance_after + 1 WHERE {LOCK_OF}",
        "running_balances_chain", names="AVAILABLE",
    ),
    "a running balance on the credit side": lie(
        f"UPDATE transfers SET credit_balance_after = credit_balance_after + 1 WHERE {LOCK_OF}",
        "running_balances_chain", names="LOCKED",
    ),
    "a transfer's amount": lie(
        f"UPDATE transfers SET amount = amount + 1 WHERE {LOCK_OF}",
        "balances_match_transfers", "running_balances_chain", "changes_move_money", names="payout",
    ),
    "a transfer of nothing": lie(
        f"UPDATE transfers SET amount = 0 WHERE {LOCK_OF}",
        "transfers_are_sound", "balances_match_transfers", "running_balances_chain", "changes_move_money",
        names="moves nothing", unchecked=True,
    ),
    "a transfer to itself": lie(
        f"UPDATE transfers SET credit_account = debit_account WHERE {LOCK_OF}",
        "transfers_are_sound", "balances_match_transfers", "running_balances_chain", names="stays where it is",
        unchecked=True,
    ),
    "a transfer between the wrong accounts": lie(
        f"UPDATE transfers SET debit_account = 'FUNDING' WHERE {LOCK_OF}",
        "transfers_are_sound", "balances_match_transfers", "running_balances_chain", names="wrong accounts",
    ),
    "a transfer that is gone": lie(
        f"DELETE FROM transfers WHERE {LOCK_OF}",
        "balances_match_transfers", "running_balances_chain", "changes_move_money", names="no transfer of this payout",
    ),
    "a transfer of another reason": lie(
        f"UPDATE transfers SET reason = 'PAYOUT_RELEASE' WHERE {LOCK_OF}",
        "transfers_are_sound", "changes_move_money", names="PAYOUT_LOCK",
    ),
    "a transfer that forgot its payout": lie(
        f"UPDATE transfers SET payout_id = NULL WHERE {LOCK_OF}",
        "transfers_are_sound", "changes_move_money", names="names no payout",
    ),
    "a transfer that no event names": lie(
        "UPDATE events SET transfer_id = NULL WHERE merchant_id = $1 AND payout_id = $2 AND change = 0",
        "transfers_have_their_event", "changes_move_money", names="named by 0 events",
    ),
    "a transfer that two events name": lie(
        "UPDATE events e SET transfer_id = f.transfer_id FROM events f WHERE f.merchant_id = $1 AND f.payout_id = $2 "
        "AND f.change = 0 AND e.merchant_id = $1 AND e.payout_id = $2 AND e.change = 1",
        "transfers_have_their_event", "changes_move_money", names="named by 2 events",
    ),
    "an event that names another payout's transfer": lie(
        "UPDATE events e SET transfer_id = t.id FROM transfers t WHERE e.merchant_id = $1 AND e.payout_id = $2 "
        "AND e.change = 0 AND t.merchant_id = $1 AND t.payout_id <> $2 AND t.reason = 'PAYOUT_LOCK'",
        "transfers_have_their_event", "changes_move_money", names="payout",
    ),
    "a change in the middle is gone": lie(
        "DELETE FROM events WHERE merchant_id = $1 AND payout_id = $2 AND change = 1",
        "timeline_without_holes", names="payout",
    ),
    "the last change is gone": lie(
        "DELETE FROM events WHERE merchant_id = $1 AND payout_id = $2 AND change = 2",
        "timeline_without_holes", "timeline_ends_in_status", "transfers_have_their_event", names="payout",
    ),
    "the whole timeline is gone": lie(
        "DELETE FROM events WHERE merchant_id = $1 AND payout_id = $2",
        "timeline_without_holes", "transfers_have_their_event", names="its timeline 0",
    ),
    "a change is numbered too high": lie(
        "UPDATE events SET change = 9 WHERE merchant_id = $1 AND payout_id = $2 AND change = 2",
        "timeline_without_holes", names="is change 9, and should be 2",
    ),
    "the count of changes is wrong": lie(
        "UPDATE payouts SET changes = changes + 1 WHERE merchant_id = $1 AND id = $2",
        "timeline_without_holes", names="payout",
    ),
    "a change does not follow": lie(
        "UPDATE events SET from_status = 'RETRY' WHERE merchant_id = $1 AND payout_id = $2 AND change = 1",
        "timeline_without_holes", names="comes from RETRY",
    ),
    "a first change that comes from somewhere": lie(
        "UPDATE events SET from_status = 'REQUESTED' WHERE merchant_id = $1 AND payout_id = $2 AND change = 0",
        "timeline_without_holes", "changes_move_money", names="comes from REQUESTED",
    ),
    "a status that its timeline does not know": lie(
        "UPDATE payouts SET status = 'FAILED' WHERE merchant_id = $1 AND id = $2",
        "timeline_ends_in_status", names="ends in SUCCESS",
    ),
    "a payout in flight that is settled": lie(
        "UPDATE payouts SET status = 'PROCESSING' WHERE merchant_id = $1 AND id = $2",
        "timeline_ends_in_status", "locked_matches_payouts", names="payout",
    ),
    "a change that no rule allows": lie(
        "UPDATE events SET to_status = 'IN_REVIEW', from_status = 'REQUESTED' "
        "WHERE merchant_id = $1 AND payout_id = $2 AND change = 1",
        "changes_are_legal", "timeline_without_holes", names="from REQUESTED to IN_REVIEW",
    ),
    "an event of the wrong type": lie(
        "UPDATE events SET type = 'payout.failed' WHERE merchant_id = $1 AND payout_id = $2 AND change = 2",
        "changes_are_legal", names="payout.failed",
    ),
    "a success without a reference": lie(
        "UPDATE payouts SET psp_reference = NULL WHERE merchant_id = $1 AND id = $2",
        "successes_have_a_reference", names="payout", unchecked=True,
    ),
    "a payout that is gone": lie(
        "DELETE FROM payouts WHERE merchant_id = $1 AND id = $2",
        "timeline_without_holes", "idempotency_names_payouts", names="payout",
    ),
    "an idempotency key that names no id": lie(
        "UPDATE idempotency_keys SET location = '/api/v1/payouts/none' "
        "WHERE merchant_id = $1 AND location LIKE '%' || $2::text",
        "idempotency_names_payouts", names="/api/v1/payouts/none",
    ),
    "a user who earned more than came in": lie(
        "UPDATE users SET earned = earned + 1 WHERE merchant_id = $1 AND id = $2",
        "wallets_match_sums", "sums_match_transfers", payout="user", names="payout",
    ),
    "a user who asked for what no payout asks for": lie(
        "UPDATE users SET requested = requested + 1 WHERE merchant_id = $1 AND id = $2",
        "sums_match_payouts", payout="user", names="payout",
    ),
    "a sale that tells of more than was paid": lie(
        "UPDATE sales SET advance_amount = advance_amount + 1 WHERE merchant_id = $1 AND user_id = $2",
        "sales_are_paid_once", payout="user", names="advance of 5.00",
    ),
    "a bulk credit that counts a row too few": lie(
        "UPDATE bulk_credits SET succeeded = 0 WHERE merchant_id = $1 AND id = $2",
        "bulk_credits_have_transfers", payout="user", names="payout",
    ),
}  # fmt: skip
