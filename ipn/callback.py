"""A bank's callback: find whose payout it speaks of, check the signature, and move the payout as the bank says."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec

from sandbox.clock import Clock
from sandbox.db.engine import available, connection
from sandbox.errors import Problem, invalid
from sandbox.fields import PRINTABLE
from sandbox.ids import is_uuid
from sandbox.payouts.commands import MovePayout
from sandbox.scenarios.engine import Catalogue
from sandbox.secrets_at_rest import SecretBox
from sandbox.webhooks.signing import decode_secret, verify
from sandbox.work.loop import MerchantQueues
from sandbox.work.unit import Answer, IdempotencyKey, Origin

Code = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Z0-9_]*\Z")]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=PRINTABLE)]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=PRINTABLE)]

_CANDIDATES: Final = 20
# Payouts of two seeded worlds may share an id: the signature tells whose callback it is.
_FIND: Final = """
SELECT p.id::text AS payout_id, m.merchant_id::text AS merchant_id, m.ipn_secret, m.clock_frozen_at, m.clock_offset
FROM payouts p JOIN merchants m ON m.merchant_id = p.merchant_id
WHERE ($1::uuid IS NULL OR p.id = $1) AND ($2::text IS NULL OR p.psp_reference = $2) LIMIT $3
"""


class CallbackBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /ipn/callback`; it names the payout by its id or by the bank's reference."""

    payout_id: str | None = None
    psp_reference: Reference | None = None
    status: Literal["PROCESSING", "RETRY", "ON_HOLD", "IN_REVIEW", "SUCCESS", "FAILED", "CANCELLED", "RETURNED"]
    failure_code: Code | None = None
    failure_reason: Reason | None = None


class CallbackService:
    """Takes banks' callbacks."""

    def __init__(self, queues: MerchantQueues, catalogue: Catalogue, box: SecretBox) -> None:
        self._queues = queues
        self._catalogue = catalogue
        self._box = box

    async def receive(self, body: CallbackBody, raw: bytes, headers: Mapping[str, str], origin: Origin) -> Answer:
        """Move the payout: 200 with it, also for a `webhook-id` seen before and for the state that it is in already.

        Raises VALIDATION_ERROR, NOT_FOUND for an unknown payout, and INVALID_SIGNATURE.
        """
        if body.payout_id is None and body.psp_reference is None:
            raise invalid("payout_id", "or psp_reference must say which payout is meant")
        merchant_id, payout_id = await self._verified(body, raw, headers)
        # The same message may come again: its id is its idempotency key. A body that was signed under an id that was seen
        # before is that message, so the fingerprint is of the id alone. The prefix is no printable character, so that
        # no key of the merchant's own can be the same. It never lapses: a signature may be fresh by the host's clock
        # while days have passed by the merchant's.
        message_id = headers["webhook-id"]
        digest = hashlib.sha256(message_id.encode()).digest()
        key = IdempotencyKey("\x1fipn:" + message_id, digest, keeps_refusals=False, lapses=False)
        return await self._queues.submit(
            merchant_id,
            MovePayout(
                payout_id,
                "move",
                self._catalogue,
                origin,
                key,
                status=body.status,
                cause="ipn",
                failure_code=body.failure_code,
                failure_reason=body.failure_reason,
                # When the payout was named by its id, the reference is what the bank calls it.
                psp_reference=body.psp_reference if body.payout_id is not None else None,
            ),
        )

    async def _verified(self, body: CallbackBody, raw: bytes, headers: Mapping[str, str]) -> tuple[str, str]:
        """The merchant and payout that are meant, the signature checked with the merchant's secret."""
        records: list[Any] = []
        if body.payout_id is None or is_uuid(body.payout_id):
            async with available(), connection() as conn:
                by_reference = body.psp_reference if body.payout_id is None else None
                records = await conn.fetch(_FIND, body.payout_id, by_reference, _CANDIDATES)
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
