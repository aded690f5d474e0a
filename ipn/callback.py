"""Process a bank's callback: find its payout, verify the signature, and apply the bank's status."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec

from sandbox.domain.clock import Clock
from sandbox.domain.enumerations import PayoutStatus
from sandbox.domain.errors import Problem, invalid, invalid_fields, unavailable
from sandbox.domain.fields import PRINTABLE, FailureCode
from sandbox.domain.idempotency import CALLBACK_PREFIX
from sandbox.domain.ids import is_uuid
from sandbox.domain.payout_commands import TransitionPayout
from sandbox.domain.payout_states import FAILED, RETURNED
from sandbox.domain.unit import CommandResult, IdempotencyKey, RequestContext
from sandbox.infrastructure.db.all_shards import AllShards, on_every_shard
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.secrets_at_rest import SealedSecretError, SecretBox
from sandbox.payouts.requests import failure_errors
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.webhooks.signing.standard_webhooks import decode_secret, verify

Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=PRINTABLE)]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=PRINTABLE)]

_MESSAGE_ID: Final = re.compile(r"[\x20-\x7e]{1,255}\Z")
_FAILED_STATUSES: Final = (FAILED, RETURNED)
_MAX_CANDIDATES: Final = 1000
_SQL: Final = read_statements(__name__)
_FIND_BY_ID: Final = _SQL["find"].format(named="id")
_FIND_BY_REFERENCE: Final = _SQL["find"].format(named="psp_reference")
_FIND_OF_MERCHANT_BY_ID: Final = _SQL["find_of_merchant"].format(named="id")
_FIND_OF_MERCHANT_BY_REFERENCE: Final = _SQL["find_of_merchant"].format(named="psp_reference")
_NO_SECRET: Final = (bytes(32),)
"""Verifies no signature; used to explain an invalid one."""
_NO_PAYOUT: Final = "00000000-0000-0000-0000-000000000000"


class CallbackBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /ipn/callback`. It identifies the payout by its id or by its `psp_reference`."""

    payout_id: str | None = None
    psp_reference: Reference | None = None
    status: PayoutStatus
    failure_code: FailureCode | None = None
    failure_reason: Reason | None = None


def callback_errors(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return validation errors in the given fields that the schema cannot express."""
    errors = []
    if fields.get("payout_id") is None and fields.get("psp_reference") is None:
        errors.append(("payout_id", "is required if psp_reference is not given"))
    return errors + failure_errors(fields, _FAILED_STATUSES)


class CallbackService:
    """Handles bank callbacks."""

    def __init__(self, work: UnitOfWorkRunner, box: SecretBox) -> None:
        self._work = work
        self._box = box

    async def receive(
        self,
        body: CallbackBody,
        raw: bytes,
        headers: Mapping[str, str],
        context: RequestContext,
        merchant_id: str | None = None,
        on_signed: Callable[[str], None] = lambda merchant_id: None,
    ) -> CommandResult:
        """Apply the bank's status to the payout, which is one of this merchant's, or, for None, of any merchant's.

        Calls `on_signed` with the merchant whose secret verifies the signature, also if there is no such payout.
        Returns 200 with the payout, including for a repeated `webhook-id` or an unchanged status.
        Raises VALIDATION_ERROR, INVALID_SIGNATURE, NOT_FOUND if the merchant has no such payout, DUPLICATE_REFERENCE if the
        psp_reference does not identify one payout, or INVALID_STATE if the payout cannot change to the status.
        """
        errors = callback_errors(msgspec.structs.asdict(body))
        if errors:
            raise invalid_fields(errors)
        merchant_id, payout_id = await self._find_payout(body, raw, headers, merchant_id, on_signed)
        # Banks may repeat a message, so its id is the idempotency key. The signature covers the id, so a known id means the
        # same message; the fingerprint therefore uses only the id. The key never expires, because the merchant's clock may jump
        # by days while the signature is still valid. A concurrent duplicate waits for the first one's response; it is not an
        # error.
        message_id = headers["webhook-id"]
        if not _MESSAGE_ID.match(message_id):
            raise invalid("webhook-id", "must be 1 to 255 printable ASCII characters")
        digest = hashlib.sha256(message_id.encode()).digest()
        key = IdempotencyKey(CALLBACK_PREFIX + message_id, digest, stores_refusals=False, expires=False, waits=True)
        return await self._work.submit(
            TransitionPayout(
                msgspec.structs.replace(context, merchant_id=merchant_id, key=key),
                payout_id,
                "transition",
                status=body.status,
                cause="ipn",
                failure_code=body.failure_code,
                failure_reason=body.failure_reason,
                # If payout_id identifies the payout, psp_reference is the reference to store.
                psp_reference=body.psp_reference if body.payout_id is not None else None,
            )
        )

    async def _find_payout(
        self,
        body: CallbackBody,
        raw: bytes,
        headers: Mapping[str, str],
        merchant_id: str | None,
        on_signed: Callable[[str], None],
    ) -> tuple[str, str]:
        """Return the ids of the merchant whose secret verifies the signature, and of its payout.

        Without a merchant's signature, the error is INVALID_SIGNATURE whether the payout exists or not, so that strangers learn
        nothing. With one, it is NOT_FOUND if the merchant has no such payout, and DUPLICATE_REFERENCE if it has several.
        Raises UNAVAILABLE if the payout may be on a node of a distributed database that does not respond.
        """
        found = await _find(body, merchant_id)
        signer = self._signer_among(found.rows, raw, headers)
        if signer is None and merchant_id is None:
            found = await on_every_shard(lambda conn: conn.fetch(_SQL["newest_merchants"], _MAX_CANDIDATES))
            newest = sorted(found.rows, key=lambda row: row["merchant_id"], reverse=True)
            signer = self._signer_among(newest[:_MAX_CANDIDATES], raw, headers, skips_sealed=True)
        if signer is not None:
            on_signed(signer["merchant_id"])
        if signer is not None and signer["payout_ids"]:
            return signer["merchant_id"], _only(signer["payout_ids"])
        if found.unavailable:
            raise unavailable("A part of the database does not respond, and the payout may be there. Nothing was lost: retry.")
        if signer is not None:
            raise Problem("NOT_FOUND", "Payout not found; check payout_id or psp_reference.")
        wrong = verify(_NO_SECRET, headers, raw, int(datetime.now(UTC).timestamp()))
        raise Problem("INVALID_SIGNATURE", wrong or "")

    def _signer_among(
        self, records: Sequence[Any], raw: bytes, headers: Mapping[str, str], *, skips_sealed: bool = False
    ) -> Any | None:
        """Return the record of the first merchant whose secret verifies the signature.

        Raises SealedSecretError if a secret cannot be opened, or skips it, for merchants that the callback does not concern.
        """
        wall_time = datetime.now(UTC)
        for record in records:
            try:
                secret = decode_secret(self._box.open(record["ipn_secret"], f"{record['merchant_id']}/ipn"))
            except SealedSecretError:
                if skips_sealed:
                    continue
                raise
            # Banks sign with wall-clock time, tests may use the merchant's clock; accept both.
            merchant_time = Clock(record["clock_frozen_at"], record["clock_offset"]).now(wall_time)
            for now in dict.fromkeys((int(wall_time.timestamp()), int(merchant_time.timestamp()))):
                if verify((secret,), headers, raw, now) is None:
                    return record
        return None


def _only(payout_ids: Sequence[str]) -> str:
    if len(payout_ids) > 1:
        named = " and ".join(sorted(payout_ids))
        raise Problem("DUPLICATE_REFERENCE", f"Several payouts have this psp_reference, among them {named}. Send payout_id.")
    return payout_ids[0]


async def _find(body: CallbackBody, merchant_id: str | None) -> AllShards[Any]:
    """Return the merchants that may have sent the callback, each with the payouts of its own that the body names."""
    by_id = body.payout_id is not None
    identifier = body.payout_id if by_id else body.psp_reference
    if by_id and not is_uuid(str(identifier)):
        identifier = _NO_PAYOUT
    if merchant_id is None:
        statement = _FIND_BY_ID if by_id else _FIND_BY_REFERENCE
        return await on_every_shard(lambda conn: conn.fetch(statement, identifier, _MAX_CANDIDATES))
    if not is_uuid(merchant_id):
        return AllShards([], [])
    statement = _FIND_OF_MERCHANT_BY_ID if by_id else _FIND_OF_MERCHANT_BY_REFERENCE
    async with connection(merchant_id) as conn:
        return AllShards(await conn.fetch(statement, merchant_id, identifier), [])
