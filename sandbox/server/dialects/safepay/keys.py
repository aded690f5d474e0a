"""The aggregator's API keys, which are the merchant's."""

from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.clock import render
from sandbox.domain.errors import Problem, invalid
from sandbox.domain.fields import Name
from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.domain.redaction import Secret
from sandbox.domain.unit import CommandResult
from sandbox.http.paging import PageWindow
from sandbox.http.request import Request
from sandbox.server.dialects.dialect import Services
from sandbox.server.dialects.safepay.declared import PAGE, operation, part_of
from sandbox.server.dialects.safepay.ids import native, prefixed
from sandbox.server.dialects.safepay.objects import Envelope, Nothing, aggregator_of, seconds
from sandbox.worlds.merchants.keys import MAX_KEYS, ApiKey, CreateKeyBody, NewApiKey

_EXAMPLE: Final = {"is_active": True, "name": "second"}
_DISABLED: Final = {"is_active": False}
_encode: Final = msgspec.json.Encoder().encode


class KeyBody(msgspec.Struct, kw_only=True):
    """The body that creates a key."""

    is_active: bool
    name: Name


class ChangeKeyBody(msgspec.Struct, kw_only=True):
    """The body that changes a key. Omitted members keep their value."""

    is_active: bool | UnsetType = UNSET
    name: Name | UnsetType = UNSET


class Key(msgspec.Struct, kw_only=True):
    """A key. `secret` is the key itself, and empty except in the response to its creation."""

    id: str
    token: str
    key_id: str
    aggregator_id: str
    is_active: bool
    name: str
    secret: Secret = ""
    created_at: str
    updated_at: str


class Keys(msgspec.Struct):
    """The active keys."""

    keys: list[Key]
    count: int


class KeyApi:
    """The operations on keys. They need an admin key."""

    def __init__(self, services: Services) -> None:
        self._keys = services.keys

    @operation("POST", "/keys", "Create a key", Key, KeyBody, access="admin", example=_EXAMPLE)
    async def create_key(self, request: Request, aggregator_id: str, body: KeyBody) -> CommandResult:
        if not body.is_active:
            raise invalid("is_active", "must be true")
        return await self._create(request, body.name)

    @operation("GET", "/keys", "List keys, newest first", Keys, query=PAGE, access="admin")
    async def list_keys(self, request: Request, aggregator_id: str) -> Envelope[Keys]:
        limit, offset = part_of(request.query)
        found = await self._all(request)
        shown = [_key(request.merchant_id, key.id, key.name) for key in found[offset : offset + limit]]
        return Envelope(Keys(shown, len(found)))

    @operation("PUT", "/keys/{key_id}", "Disable a key for good", Nothing, ChangeKeyBody, access="admin", example=_DISABLED)
    async def change_key(
        self, request: Request, aggregator_id: str, key_id: str, body: ChangeKeyBody
    ) -> CommandResult | Envelope[Nothing]:
        found = await self._find(request, key_id)
        if body.name not in (UNSET, found.name):
            raise invalid("name", "cannot be changed")
        if body.is_active is False:
            return await self._revoke(request, found)
        return Envelope(Nothing())

    @operation("DELETE", "/keys/{key_id}", "Delete a key", Nothing, access="admin")
    async def delete_key(self, request: Request, aggregator_id: str, key_id: str) -> CommandResult:
        return await self._revoke(request, await self._find(request, key_id))

    @operation("PUT", "/keys/{key_id}/rotate", "Replace a key", Key, access="admin")
    async def rotate_key(self, request: Request, aggregator_id: str, key_id: str) -> CommandResult:
        """Create a key with the same name and a new id, then revoke the old one."""
        found = await self._find(request, key_id)
        created = await self._create(request, found.name)
        revoked = await self._revoke(request, found) if created.status == 200 else created
        return created if revoked.status == 200 else revoked

    async def _all(self, request: Request) -> list[ApiKey]:
        found: list[ApiKey] = (await self._keys.list_keys(request.merchant_id, PageWindow(MAX_KEYS, MAX_ID, MIN_ID))).data
        return found

    async def _find(self, request: Request, token: str) -> ApiKey:
        key_id = native("ak", token)
        found = next((key for key in await self._all(request) if key.id == key_id), None)
        if found is None:
            raise Problem("NOT_FOUND")
        return found

    async def _create(self, request: Request, name: str) -> CommandResult:
        result = await self._keys.create_key(request.context, CreateKeyBody(role="admin", name=name))
        if result.status >= 400:
            return result
        created = msgspec.json.decode(result.body, type=NewApiKey)
        return CommandResult(200, _encode(Envelope(_key(request.merchant_id, created.id, name, secret=created.api_key))))

    async def _revoke(self, request: Request, key: ApiKey) -> CommandResult:
        result = await self._keys.delete_key(request.context, key.id)
        if result.status >= 400:
            return result
        return CommandResult(200, _encode(Envelope(Nothing())))


def _key(merchant_id: str, key_id: str, name: str, *, secret: str = "") -> Key:
    # The id is a UUIDv7, so it begins with the time of its creation.
    at = seconds(render(datetime.fromtimestamp(int(key_id.replace("-", "")[:12], 16) / 1000, UTC)))
    return Key(
        id=prefixed("ak", key_id),
        token=prefixed("ak", key_id),
        key_id=prefixed("key", key_id),
        aggregator_id=aggregator_of(merchant_id),
        is_active=True,
        name=name,
        secret=secret,
        created_at=at,
        updated_at=at,
    )
