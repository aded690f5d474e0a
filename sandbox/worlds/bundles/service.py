"""Export a merchant's world as a bundle, and replace a world by one."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from sandbox.domain.clock import Clock, render
from sandbox.domain.errors import Problem
from sandbox.domain.ledger import MERCHANT_ACCOUNTS
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.http.journal.journal import Journal
from sandbox.http.operation import get, put
from sandbox.http.request import Request
from sandbox.http.responses import Response
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection, consistent_read
from sandbox.infrastructure.large_work import LARGE_BODY, compute
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.unit_of_work.claim import RESERVE_NO_IDS
from sandbox.unit_of_work.in_flight import in_flight
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.sealed_results import seal, unseal
from sandbox.worlds.bundles.columns import read_tables
from sandbox.worlds.bundles.export import read_world, to_bundle
from sandbox.worlds.bundles.format import BUNDLED, FORMAT, MAX_BYTES, MEDIA_TYPE, VERSION, Bundle, encode
from sandbox.worlds.bundles.importing import ImportedEndpoint, import_world
from sandbox.worlds.bundles.reading import Uploaded, check_bundle, parse_bundle
from sandbox.worlds.bundles.row_checks import RowChecker
from sandbox.worlds.clock.lease import clock_lease

_EXAMPLE: Final[dict[str, Any]] = {
    "format": FORMAT,
    "version": VERSION,
    "sandbox": "1.0.0",
    "created_at": "2026-01-31T12:00:00.000Z",
    "merchant": {
        "name": "acme",
        "seed": 7,
        "opening_balance": None,
        "frozen_at": "2026-01-01T00:00:00.000Z",
        "settings": {
            "default_scenario": "SUCCESS",
            "review_threshold": "100000.00",
            "rate_limit": None,
            "approvals_expire_after": None,
        },
    },
    "clock": {"frozen_at": "2026-01-31T12:00:00.000Z", "offset_seconds": "0.000000"},
    "id_counter": 1024,
    "journal": {"complete": True, "calls": []},
    "tables": {
        **{table: {"columns": [], "rows": []} for table in BUNDLED},
        "accounts": {
            "columns": ["account", "balance", "version", "updated_at"],
            "rows": [[account, "0.00", 0, "2026-01-31T12:00:00.000Z"] for account in MERCHANT_ACCOUNTS],
        },
    },
}


async def _receive(request: Request) -> Uploaded:
    content = await request.read()
    return await compute(request.merchant_id, lambda: parse_bundle(content), is_large=len(content) > LARGE_BODY)


class Imported(msgspec.Struct):
    """An imported world: its rows, its clock, and its endpoints, with the secrets of those that got a new one."""

    imported: bool
    rows: int
    now: str
    frozen: bool
    endpoints: list[ImportedEndpoint]


class BundleService:
    """Exports and imports worlds."""

    def __init__(self, work: UnitOfWorkRunner, box: SecretBox, directory: Directory, journal: Journal) -> None:
        self._work = work
        self._box = box
        self._journal = journal
        self._checker = RowChecker(work.catalogue, directory)

    @get(
        "/sandbox/v1/world",
        "Export the merchant's world as a bundle",
        {200: Bundle},
        errors=("INVALID_STATE",),
        media_type=MEDIA_TYPE,
        takes_turns=True,
        description="One file with the merchant's clock, seed, settings, scenarios, faults, journal and books. It has no "
        "keys, no secrets and no query values of URLs, no snapshots and no receiver tests. At most 100,000 rows and 64 MB.",
        psp="world export -",
    )
    async def export_world(self, merchant_id: str) -> Response:
        """Return the response with the merchant's world. Raises the errors of `export`."""
        return Response(200, await self.export(merchant_id), MEDIA_TYPE)

    async def export(self, merchant_id: str) -> bytes:
        """Return the merchant's world as a bundle, without keys and secrets.

        Raises NOT_FOUND if the merchant was deleted, INVALID_STATE if the world is too large, UNAVAILABLE if a store is down.
        """
        calls = await self._journal.calls(merchant_id)
        async with consistent_read(merchant_id) as conn:
            exported = await read_world(conn, merchant_id)
        # Encoding a large world takes seconds.
        bundle = await compute(merchant_id, lambda: encode(to_bundle(exported, calls, datetime.now(UTC))), is_large=True)
        if len(bundle) > MAX_BYTES:
            raise Problem("INVALID_STATE", f"A bundle has at most {MAX_BYTES // 2**20} MB; this merchant has more data.")
        return bundle

    @put(
        "/sandbox/v1/world",
        "Replace the merchant's world by a bundle",
        {200: Imported},
        Bundle,
        errors=("INVALID_STATE",),
        access="admin",
        receive=_receive,
        received_media_type=MEDIA_TYPE,
        body_limit=MAX_BYTES,
        takes_turns=True,
        example=_EXAMPLE,
        description="In one transaction, everything that the merchant had is replaced, also its name, seed and webhook "
        "endpoints. Its API keys and snapshots stay. An endpoint with an id that the merchant already has keeps its secret. "
        "Others get a new one, which is shown only in this response. The rows must satisfy every check of the audit; "
        "otherwise nothing changes.",
        psp="world import {*:file=world.json}",
    )
    async def import_world(self, context: RequestContext, body: Uploaded) -> CommandResult:
        """Replace the world by a bundle, in one transaction. Responds with 200 and Imported.

        Raises VALIDATION_ERROR if the bundle is malformed, INVALID_STATE if another request is moving the clock. The result is
        VALIDATION_ERROR if its books do not balance.
        """
        async with connection(context.merchant_id) as conn:
            tables = await read_tables(conn)
        checked = await compute(context.merchant_id, lambda: check_bundle(body.bundle, tables, self._checker), is_large=True)
        purpose = f"{context.merchant_id}/answer/{'' if context.key is None else context.key.key}"

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            endpoints = await import_world(conn, self._box, context.merchant_id, checked)
            unit.now = Clock(checked.frozen_at, checked.offset).now(datetime.now(UTC))
            unit.effects.add(Effect.WORLD_RESTORED)
            is_frozen = checked.frozen_at is not None
            result = Imported(True, checked.rows, render(unit.now), is_frozen, endpoints)
            return seal(self._box, purpose, CommandResult(200, msgspec.json.encode(result)))

        async def replace_then_journal() -> CommandResult:
            # No ids are reserved: the next call gets the id that it would have got in the exported world.
            result = await self._work.run_with_reserved_key(context, action, RESERVE_NO_IDS, as_database_owner=True)
            if result.status < 400 and not result.replayed:
                await self._journal.replace(context.merchant_id, checked.bundle.journal.calls)
            return result

        # Without the clock lease, an advance in progress would continue in the new world to a target of the old one.
        with in_flight(context.merchant_id, context.key):
            async with clock_lease(context.merchant_id):
                return unseal(self._box, purpose, await self._work.run_to_completion(replace_then_journal()))
