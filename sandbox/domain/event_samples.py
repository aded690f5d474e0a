"""Samples of events: what a webhook of each type contains, with an invented payout. Pure."""

from decimal import Decimal
from typing import Final

import msgspec

from sandbox.domain.bulk_credit import COMPLETED, Activity, Counts
from sandbox.domain.enumerations import EventType
from sandbox.domain.failure_codes import FAILURES
from sandbox.domain.ids import IdSource
from sandbox.domain.payout import Payout
from sandbox.domain.payout_states import (
    CANCELLED,
    FAILED,
    IN_REVIEW,
    PENDING,
    PROCESSING,
    REJECTED,
    REQUESTED,
    RETURNED,
    SUCCESS,
    TRANSITIONS,
)

_FAILURE_CODES: Final = {FAILED: "BANK_REJECTED", RETURNED: "RETURNED_BY_BANK"}
_USUAL_SOURCES: Final = (PROCESSING, None, PENDING)
"""The states before a sample's change, the most usual first."""


def sample(event_type: EventType, ids: IdSource, now: str) -> tuple[str | None, bytes]:
    """Return the `previous_status` and the `data`, as JSON, of an event of this type that happens now.

    The payout does not exist. Its merchant_reference and metadata say that it is a sample.
    """
    if event_type == "bulk_credit.completed":
        counts = Counts(total=2, invalid=0, duplicates=0, succeeded=2, failed=0)
        fields = msgspec.structs.asdict(counts)
        activity = Activity(ids.next(), COMPLETED, **fields, counts=counts, created_at=now, completed_at=now)
        return None, msgspec.json.encode(activity)
    changes = [change for change, found in TRANSITIONS.items() if found.event == event_type]
    previous, status = next((change for source in _USUAL_SOURCES for change in changes if change[0] == source), changes[0])
    payout_id = ids.next()
    failure_code = _FAILURE_CODES.get(status)
    was_processed = previous not in (None, REQUESTED, PENDING)
    is_paid = status in (SUCCESS, RETURNED)
    payout = Payout(
        id=payout_id,
        merchant_reference=f"sample-{payout_id[-12:]}",
        amount=Decimal("1500.00") if status != IN_REVIEW else Decimal("100000.00"),
        currency="PKR",
        dest_type="BANK",
        bank_code="HBL",
        wallet_code=None,
        account_number="12345678900001",
        account_title="Sample Account",
        status=status,
        scenario="success",
        failure_code=failure_code,
        failure_reason=None if failure_code is None else FAILURES[failure_code],
        psp_reference=f"PSP{payout_id[-12:].upper()}" if is_paid else None,
        attempts=1 if was_processed or status == PROCESSING else 0,
        version=1 if previous is None else 2 if not was_processed else 4 if previous in (SUCCESS, FAILED) else 3,
        metadata={"sample": "true"},
        user_id=None,
        created_at=now,
        updated_at=now,
        processed_at=now if is_paid or status in (FAILED, CANCELLED, REJECTED) else None,
    )
    return previous, msgspec.json.encode(payout)
