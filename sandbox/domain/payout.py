"""A payout as the API shows it, and as the database stores it. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec

from sandbox.domain.choices import DestType, PayoutStatus
from sandbox.domain.clock import render
from sandbox.domain.fields import Count, Id, one_of
from sandbox.domain.scenario_engine import Scenario


class Payout(msgspec.Struct):
    """A payout. Amounts are decimal strings with two decimal places; times are RFC 3339."""

    id: Id
    merchant_reference: str
    amount: Decimal
    currency: Annotated[str, msgspec.Meta(extra_json_schema={"const": "PKR"})]
    dest_type: Annotated[str, one_of(DestType)]
    bank_code: str | None
    wallet_code: str | None
    account_number: str
    account_title: str | None
    status: Annotated[str, one_of(PayoutStatus)]
    scenario: str
    failure_code: str | None
    failure_reason: str | None
    psp_reference: str | None
    attempts: Count
    version: Annotated[
        int,
        msgspec.Meta(
            description="1 at creation, plus 1 with each change. Of two copies, the one with the higher version is newer.",
            extra_json_schema={"minimum": 1},
        ),
    ]
    metadata: dict[str, str]
    user_id: Id | None
    created_at: str
    updated_at: str
    processed_at: str | None


@dataclass(slots=True)
class PayoutRow:
    """A stored payout: the object that the API shows, and its progress in its scenario.

    `step` is the number of the scenario's next step. `due_at` is the time when that step is due, in the merchant's time (None:
    it does not run automatically). `request_id` is the id of the last request that changed the payout. `steps_json` is a copy
    of the steps if the payout follows a merchant's own scenario, so that later changes to that scenario do not affect it.
    `scenario_header` is the X-Sandbox-Scenario of the request that created the payout. `traceparent` is the trace of that
    request, or None if it is derived from `request_id`.
    """

    payout: Payout
    step: int
    due_at: datetime | None
    request_id: str
    created_at: datetime
    processed_at: datetime | None
    steps_json: str | None = None
    scenario_header: str | None = None
    traceparent: str | None = None

    def assign_scenario(self, scenario: Scenario) -> None:
        """Set the payout's scenario."""
        self.payout.scenario = scenario.name
        self.steps_json = scenario.steps_json


COLUMNS: Final = (
    "id::text AS id, merchant_reference, amount, currency, dest_type, bank_code, wallet_code, account_number, "
    "account_title, status, scenario, failure_code, failure_reason, psp_reference, attempts, metadata::text AS metadata, "
    "user_id::text AS user_id, created_at, updated_at, processed_at, changes AS version"
)
"""The columns of `payouts` that `to_payout` reads."""


def metadata_pair_id(name: str, value: str) -> str:
    """Return a metadata pair's key in `payout_metadata`: a hash of 16 bytes, so that long values do not bloat the index."""
    # Names and values have no control characters, so the separator keeps different pairs different.
    return str(UUID(bytes=hashlib.sha256(f"{name}\x1f{value}".encode()).digest()[:16]))


_METADATA: Final = msgspec.json.Decoder(dict[str, str])


def to_payout(record: Mapping[str, Any]) -> Payout:
    """Return a payout from a record with COLUMNS."""
    processed_at = record["processed_at"]
    metadata = record["metadata"]
    return Payout(
        id=record["id"],
        merchant_reference=record["merchant_reference"],
        amount=record["amount"],
        currency=record["currency"],
        dest_type=record["dest_type"],
        bank_code=record["bank_code"],
        wallet_code=record["wallet_code"],
        account_number=record["account_number"],
        account_title=record["account_title"],
        status=record["status"],
        scenario=record["scenario"],
        failure_code=record["failure_code"],
        failure_reason=record["failure_reason"],
        psp_reference=record["psp_reference"],
        attempts=record["attempts"],
        version=record["version"],
        metadata={} if metadata == "{}" else _METADATA.decode(metadata),
        user_id=record["user_id"],
        created_at=render(record["created_at"]),
        updated_at=render(record["updated_at"]),
        processed_at=None if processed_at is None else render(processed_at),
    )


class StoredPayout(msgspec.Struct):
    """A row of `payouts` as JSON, without the merchant's id."""

    id: str
    merchant_reference: str
    amount: Decimal
    currency: str
    dest_type: str
    bank_code: str | None
    wallet_code: str | None
    account_number: str
    account_title: str | None
    status: str
    scenario: str
    failure_code: str | None
    failure_reason: str | None
    psp_reference: str | None
    attempts: int
    metadata: dict[str, str]
    user_id: str | None
    step: int
    due_at: datetime | None
    changes: int
    request_id: str
    path: msgspec.Raw
    scenario_header: str | None
    traceparent: str | None
    created_at: datetime
    updated_at: datetime
    processed_at: datetime | None

    def row(self) -> PayoutRow:
        """Return the payout with its progress in its scenario."""
        payout = Payout(
            id=self.id,
            merchant_reference=self.merchant_reference,
            amount=self.amount,
            currency=self.currency,
            dest_type=self.dest_type,
            bank_code=self.bank_code,
            wallet_code=self.wallet_code,
            account_number=self.account_number,
            account_title=self.account_title,
            status=self.status,
            scenario=self.scenario,
            failure_code=self.failure_code,
            failure_reason=self.failure_reason,
            psp_reference=self.psp_reference,
            attempts=self.attempts,
            version=self.changes,
            metadata=self.metadata,
            user_id=self.user_id,
            created_at=render(self.created_at),
            updated_at=render(self.updated_at),
            processed_at=None if self.processed_at is None else render(self.processed_at),
        )
        steps = bytes(self.path).decode()
        return PayoutRow(
            payout=payout,
            step=self.step,
            due_at=self.due_at,
            request_id=self.request_id,
            created_at=self.created_at,
            processed_at=self.processed_at,
            steps_json=None if steps == "null" else steps,
            scenario_header=self.scenario_header,
            traceparent=self.traceparent,
        )
