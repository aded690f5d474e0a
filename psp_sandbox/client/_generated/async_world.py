"""Move a merchant's entire state in one file."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import Mapping
from typing import Any

from psp_sandbox.client._callers import AsyncCaller
from psp_sandbox.client._calls import Call, new_key
from psp_sandbox.client.models.world import Imported


class AsyncWorldApi:
    """Move a merchant's entire state in one file."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def export(self) -> dict[str, Any]:
        """Export the merchant's world as a bundle.

        One file with the merchant's clock, seed, settings, scenarios, faults, journal and books. It has no keys, no
        secrets and no query values of URLs, no snapshots and no receiver tests. At most 100,000 rows and 64 MB.

        Raises InvalidState.
        """
        return await self._caller.send(Call(dict[str, Any], "GET", "/sandbox/v1/world"))

    async def import_(self, document: Mapping[str, Any], *, idempotency_key: str | None = None) -> Imported:
        """Replace the merchant's world by a bundle.

        In one transaction, everything that the merchant had is replaced, also its name, seed and webhook endpoints. Its
        API keys and snapshots stay. An endpoint with an id that the merchant already has keeps its secret. Others get a
        new one, which is shown only in this response. The rows must satisfy every check of the audit; otherwise nothing
        changes. Needs a key with the `admin` role.

        Raises Forbidden, InvalidState.
        """
        return await self._caller.send(
            Call(
                Imported,
                "PUT",
                "/sandbox/v1/world",
                body=document,
                media_type="application/vnd.psp.world+json",
                idempotency_key=idempotency_key or new_key(),
            )
        )
