"""Banks and wallets that payouts can go to."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Call
from psp_sandbox.client.models.directory import Directory


class DirectoryApi:
    """Banks and wallets that payouts can go to."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get(self) -> Directory:
        """List banks and wallets that payouts can go to."""
        return self._caller.send(Call(Directory, "GET", "/api/v1/directory"))
