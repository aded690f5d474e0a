"""A payout as the API shows it, and as the database stores it. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

import msgspec

from sandbox.domain.clock import render
from sandbox.domain.enumerations import DestType, PayoutStatus
from sandbox.domain.fields import Count, Id, one_of
from sandbox.domain.scenario_engine import Scenario

Moment = TypeVar("Moment")


class _Fields(msgspec.Struct, Generic[Moment]):
    """The fields that the API shows, with times as text or as decoded from a row. Each is a column, `version` is `changes`."""

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
    created_at: Moment
    updated_at: Moment
    processed_at: Moment | None


class Payout(_Fields[str]):
    """A payout. Amounts are decimal strings with two decimal places; times are RFC 3339."""


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


_NAMES: Final = Payout.__struct_fields__
_EXPRESSIONS: Final = {
    "id": "id::text AS id", "user_id": "user_id::text AS user_id", "metadata": "metadata::text AS metadata",
    "version": "changes AS version",
}  # fmt: skip
COLUMNS: Final = ", ".join(_EXPRESSIONS.get(name, name) for name in _NAMES)
"""The columns of `payouts` that `to_payout` reads."""


def metadata_pair_id(name: str, value: str) -> str:
    """Return a metadata pair's key in `payout_metadata`: a hash of 16 bytes, so that long values do not bloat the index."""
    # Names and values have no control characters, so the separator keeps different pairs different.
    return str(UUID(bytes=hashlib.sha256(f"{name}\x1f{value}".encode()).digest()[:16]))


_METADATA: Final = msgspec.json.Decoder(dict[str, str])


def to_payout(record: Mapping[str, Any]) -> Payout:
    """Return a payout from a record with COLUMNS."""
    fields = {name: record[name] for name in _NAMES}
    metadata = fields["metadata"]
    fields["metadata"] = {} if metadata == "{}" else _METADATA.decode(metadata)
    return _with_texts(fields)


def _with_texts(fields: dict[str, Any]) -> Payout:
    """Return a payout from its fields with times that are datetimes."""
    processed_at = fields["processed_at"]
    fields["created_at"], fields["updated_at"] = render(fields["created_at"]), render(fields["updated_at"])
    fields["processed_at"] = None if processed_at is None else render(processed_at)
    return Payout(**fields)


class StoredPayout(_Fields[datetime]):
    """A row of `payouts` as JSON, without the merchant's id."""

    version: int = msgspec.field(name="changes")
    step: int
    due_at: datetime | None
    request_id: str
    path: msgspec.Raw
    scenario_header: str | None
    traceparent: str | None

    def row(self) -> PayoutRow:
        """Return the payout with its progress in its scenario."""
        steps = bytes(self.path).decode()
        return PayoutRow(
            payout=_with_texts({name: getattr(self, name) for name in _NAMES}),
            step=self.step,
            due_at=self.due_at,
            request_id=self.request_id,
            created_at=self.created_at,
            processed_at=self.processed_at,
            steps_json=None if steps == "null" else steps,
            scenario_header=self.scenario_header,
            traceparent=self.traceparent,
        )
