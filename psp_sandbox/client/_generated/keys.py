"""The merchant's API keys."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import Iterator
from typing import Literal

from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Call, given, new_key, query, segment
from psp_sandbox.client.models.keys import ApiKey, NewApiKey


class KeysApi:
    """The merchant's API keys."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(self, *, limit: int | None = None) -> Iterator[ApiKey]:
        """List active keys, newest first.

        Needs a key with the `admin` role.

        Requests each page when it is needed; `limit` is the number of items per page.

        Raises Forbidden.
        """
        return self._caller.pages(Call(ApiKey, "GET", "/sandbox/v1/keys", query=query({"limit": limit})))

    def create(
        self, role: Literal["admin", "member"], *, name: str | None = None, idempotency_key: str | None = None
    ) -> NewApiKey:
        """Create an API key, which is shown only once.

        Needs a key with the `admin` role.

        Raises Forbidden.
        """
        return self._caller.send(
            Call(
                NewApiKey,
                "POST",
                "/sandbox/v1/keys",
                body=given({"role": role, "name": name}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def delete(self, key_id: str, *, idempotency_key: str | None = None) -> None:
        """Revoke a key.

        It stops working within a second. The last admin key cannot be revoked. Needs a key with the `admin` role.

        Raises Forbidden, NotFound, InvalidState.
        """
        self._caller.send(
            Call(type(None), "DELETE", f"/sandbox/v1/keys/{segment(key_id)}", idempotency_key=idempotency_key or new_key())
        )
