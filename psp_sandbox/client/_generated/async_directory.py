"""Banks and wallets that payouts can go to."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from psp_sandbox.client._callers import AsyncCaller
from psp_sandbox.client._calls import Call
from psp_sandbox.client.models.directory import Directory


class AsyncDirectoryApi:
    """Banks and wallets that payouts can go to."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def get(self) -> Directory:
        """List banks and wallets that payouts can go to."""
        return await self._caller.send(Call(Directory, "GET", "/api/v1/directory"))
