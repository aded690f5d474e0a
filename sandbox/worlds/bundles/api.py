"""`/sandbox/v1/world`: parse, call the service, render."""

from typing import Any, Final

from sandbox.domain.ledger import MERCHANT_ACCOUNTS
from sandbox.domain.unit import CommandResult
from sandbox.http.operation import get, put
from sandbox.http.request import Request
from sandbox.http.responses import Response
from sandbox.infrastructure.large_work import LARGE_BODY, compute
from sandbox.worlds.bundles.format import BUNDLED, FORMAT, MAX_BYTES, MEDIA_TYPE, VERSION, Bundle
from sandbox.worlds.bundles.reading import Uploaded, parse_bundle
from sandbox.worlds.bundles.service import BundleService, Imported

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


class BundleApi:
    """The operations that move a whole world."""

    def __init__(self, bundles: BundleService) -> None:
        self._bundles = bundles

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
    async def export_world(self, request: Request) -> Response:
        return Response(200, await self._bundles.export(request.merchant_id), MEDIA_TYPE)

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
    async def import_world(self, request: Request, body: Uploaded) -> CommandResult:
        return await self._bundles.replace(request.context, body)
