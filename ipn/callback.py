"""A bank's callback: find whose payout it speaks of, check the signature, and move the payout as the bank says."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec

from sandbox.db.engine import connection, db_errors_as_503
from sandbox.domain.choices import PayoutStatus
from sandbox.domain.clock import Clock
from sandbox.domain.errors import Problem, all_invalid
from sandbox.domain.fields import PRINTABLE, FailureCode
from sandbox.domain.ids import is_uuid
from sandbox.domain.payout_commands import TransitionPayout
from sandbox.domain.payout_states import FAILED, RETURNED
from sandbox.domain.unit import CommandResult, IdempotencyKey, RequestContext
from sandbox.domain.webhook_signing import decode_secret, verify
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.payouts.requests import failure_errors
from sandbox.unit_of_work.runner import UnitOfWorkRunner

Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=PRINTABLE)]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=PRINTABLE)]

FAILING: Final = (FAILED, RETURNED)
_CANDIDATES: Final = 1000
# Payouts of worlds with one seed share their ids, and banks may give merchants the same reference: the signature tells whose
# callback it is. The newest merchants come first, and of a merchant's payouts with one reference the newest is meant.
_FIND: Final = """
WITH named AS MATERIALIZED (SELECT id, merchant_id FROM payouts WHERE {named} = $1 LIMIT 10000)
SELECT p.id::text AS payout_id, m.*, w.*
FROM (
    SELECT DISTINCT ON (merchant_id) id, merchant_id FROM named ORDER BY merchant_id DESC, id DESC LIMIT $2
) p CROSS JOIN LATERAL (
    SELECT merchant_id::text AS merchant_id, ipn_secret FROM merchants WHERE merchant_id = p.merchant_id OFFSET 0
) m CROSS JOIN LATERAL (
    SELECT clock_frozen_at, clock_offset FROM worlds WHERE merchant_id = p.merchant_id OFFSET 0
) w
"""
_FIND_BY_ID: Final = _FIND.format(named="id")
_FIND_BY_REFERENCE: Final = _FIND.format(named="psp_reference")


class CallbackBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /ipn/callback`; it names the payout by its id or by the bank's reference."""

    payout_id: str | None = None
    psp_reference: Reference | None = None
    status: PayoutStatus
    failure_code: FailureCode | None = None
    failure_reason: Reason | None = None


def callback_errors(members: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the type cannot say of a callback's members, as far as they are there."""
    errors = []
    if members.get("payout_id") is None and members.get("psp_reference") is None:
        errors.append(("payout_id", "is required if psp_reference is not given: one of them says which payout is meant"))
    return errors + failure_errors(members, FAILING)


class CallbackService:
    """Takes banks' callbacks."""

    def __init__(self, work: UnitOfWorkRunner, box: SecretBox) -> None:
        self._work = work
        self._box = box

    async def receive(
        self, body: CallbackBody, raw: bytes, headers: Mapping[str, str], context: RequestContext
    ) -> CommandResult:
        """Move the payout: 200 with it, also for a `webhook-id` seen before and for the state that it is in already.

        Raises VALIDATION_ERROR, NOT_FOUND for an unknown payout, and INVALID_SIGNATURE.
        """
        errors = callback_errors(msgspec.structs.asdict(body))
        if errors:
            raise all_invalid(errors)
        merchant_id, payout_id = await self._verified(body, raw, headers)
        # The same message may come again: its id is its idempotency key. A body that was signed under an id that was seen
        # before is that message, so the fingerprint is of the id alone. The prefix is no printable character, so that
        # no key of the merchant's own can be the same. It never lapses: a signature may be fresh by the host's clock
        # while days have passed by the merchant's. A copy that comes while the first one is at work waits and gets its answer:
        # a bank that sends twice at once is no error.
        message_id = headers["webhook-id"]
        digest = hashlib.sha256(message_id.encode()).digest()
        key = IdempotencyKey("\x1fipn:" + message_id, digest, stores_refusals=False, expires=False, waits=True)
        return await self._work.submit(
            TransitionPayout(
                replace(context, merchant_id=merchant_id, key=key),
                payout_id,
                "transition",
                status=body.status,
                cause="ipn",
                failure_code=body.failure_code,
                failure_reason=body.failure_reason,
                # When the payout was named by its id, the reference is what the bank calls it.
                psp_reference=body.psp_reference if body.payout_id is not None else None,
            )
        )

    async def _verified(self, body: CallbackBody, raw: bytes, headers: Mapping[str, str]) -> tuple[str, str]:
        """The merchant and payout that are meant, the signature checked with the merchant's secret."""
        records: list[Any] = []
        if body.payout_id is None or is_uuid(body.payout_id):
            statement, name = (_FIND_BY_REFERENCE, body.psp_reference)
            if body.payout_id is not None:
                statement, name = (_FIND_BY_ID, body.payout_id)
            async with db_errors_as_503(), connection() as conn:
                records = await conn.fetch(statement, name, _CANDIDATES)
        if not records:
            raise Problem("NOT_FOUND", "There is no such payout; name it by its payout_id or psp_reference.")
        real = datetime.now(UTC)
        reason: str | None = None
        for record in records:
            secret = decode_secret(self._box.open(record["ipn_secret"], f"{record['merchant_id']}/ipn"))
            # A bank lives in the host's time, a test in its merchant's: either will do.
            merchant_now = Clock(record["clock_frozen_at"], record["clock_offset"]).now(real)
            for now in dict.fromkeys((int(real.timestamp()), int(merchant_now.timestamp()))):
                reason = verify((secret,), headers, raw, now)
                if reason is None:
                    return record["merchant_id"], record["payout_id"]
        raise Problem("INVALID_SIGNATURE", reason or "")
