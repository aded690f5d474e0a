"""Create, list and revoke a merchant's API keys."""

import hashlib
import os
from datetime import UTC, datetime
from random import SystemRandom
from typing import Annotated, Final

import msgspec
from piccolo.query.methods.select import Select
from piccolo.query.methods.update import Update

from sandbox.domain.clock import milliseconds, render, truncate
from sandbox.domain.enumerations import Role
from sandbox.domain.errors import Problem
from sandbox.domain.fields import Name, Uuid, about
from sandbox.domain.ids import uuid7
from sandbox.domain.redaction import Secret
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.http.operation import PAGE, delete, get, post
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection, write_shared
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.unit_of_work.claim import RESERVE_NO_IDS, ClaimRequest
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.sealed_results import run_sealed
from sandbox.unit_of_work.transaction import write_rows
from sandbox.worlds.merchants.key_format import SECRET_SIZE, merchant_of, new_api_key
from sandbox.worlds.merchants.key_ring import recorded_merchant
from sandbox.worlds.merchants.tables import ApiKeys

MAX_KEYS: Final = 100
_SQL: Final = read_statements(__name__)


class ApiKey(msgspec.Struct):
    """An API key without the key itself."""

    id: str
    role: str
    name: str
    created_at: str


class NewApiKey(msgspec.Struct):
    """A new API key. The key itself is shown only once."""

    id: str
    api_key: Secret
    role: str


class CreateKeyBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /keys`."""

    role: Annotated[Role, about("The key's role: a member cannot approve, reconcile or manage keys.")]
    name: Annotated[Name, about("A name for the key.")] = "API key"


class KeyService:
    """The operations of a merchant's API keys, and those on well-known keys."""

    def __init__(self, work: UnitOfWorkRunner, box: SecretBox) -> None:
        self._work = work
        self._box = box

    @post(
        "/sandbox/v1/keys",
        "Create an API key, which is shown only once",
        {201: NewApiKey},
        CreateKeyBody,
        access="admin",
        example={"role": "member", "name": "checkout service"},
        psp="keys create",
    )
    async def create_key(self, context: RequestContext, body: CreateKeyBody) -> CommandResult:
        """Create an API key with the role. Responds with 201 and the NewApiKey.

        The result is VALIDATION_ERROR if the merchant has MAX_KEYS active keys.
        """

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            now = truncate(datetime.now(UTC))
            keys = await _all_keys(context.merchant_id)
            count = sum(record["revoked_at"] is None for record in keys)
            if count >= MAX_KEYS:
                raise Problem(
                    "VALIDATION_ERROR",
                    f"A merchant has at most {MAX_KEYS} keys; delete one first.",
                    errors=[("role", f"would exceed the maximum of {MAX_KEYS} keys")],
                )
            # Keys survive a reset, but a seeded world generates the same ids again.
            taken = {str(record["id"]) for record in keys}
            candidates = (unit.ids.next() for _ in range(MAX_KEYS))
            key_id = next((id_ for id_ in candidates if id_ not in taken), None) or new_id(now)
            created = NewApiKey(key_id, new_key(context.merchant_id), body.role)
            await insert_key(context.merchant_id, created.id, created.api_key, body.role, body.name, now)
            return CommandResult(201, msgspec.json.encode(created), f"/sandbox/v1/keys/{created.id}")

        return await run_sealed(self._work, self._box, context, action)

    @get(
        "/sandbox/v1/keys",
        "List active keys, newest first",
        {200: list[ApiKey]},
        query=PAGE,
        access="admin",
        psp="keys list",
        columns="id role name created_at",
    )
    async def list_keys(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of the active keys, newest first."""
        async with connection(merchant_id):
            records = await _page_of_keys(merchant_id, window.before, window.limit + 1)
        found = [ApiKey(str(r["id"]), r["role"], r["name"], render(r["created_at"])) for r in records]
        return page(found, window.limit, [key.id for key in found])

    @delete(
        "/sandbox/v1/keys/{key_id}",
        "Revoke a key",
        {204: None},
        errors=("INVALID_STATE",),
        access="admin",
        description="It stops working within a second. The last admin key cannot be revoked.",
        psp="keys revoke",
    )
    async def delete_key(self, context: RequestContext, key_id: Uuid) -> CommandResult:
        """Revoke an API key. Responds with 204; the key stops working in every process within a second.

        The result is NOT_FOUND for an unknown or revoked key, INVALID_STATE for the last admin key.
        """

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            # Under the merchant's lock: if two admins revoke each other's keys at the same time, the second one is refused.
            roles = {str(r["id"]): r["role"] for r in await _all_keys(context.merchant_id) if r["revoked_at"] is None}
            role = roles.pop(key_id, None)
            if role is None:
                raise Problem("NOT_FOUND", "Active API key not found; GET /sandbox/v1/keys lists them.")
            if role == "admin" and "admin" not in roles.values():
                raise Problem("INVALID_STATE", "This is the merchant's last admin key; create another one before revoking it.")
            await _revoke(context.merchant_id, key_id, truncate(datetime.now(UTC)))
            return CommandResult(204, b"")

        return await self._work.run(context, action)

    async def ensure_key(self, merchant_id: str, role: str, name: str, api_key: str) -> None:
        """Make sure that a well-known key exists and is active: create it, or undo its revocation."""
        now = truncate(datetime.now(UTC))

        async def ensure(_: Connection, unit: UnitOfWork) -> None:
            if not await _restore_by_digest(merchant_id, _digest(api_key)):
                await insert_key(merchant_id, new_id(now), api_key, role, name, now)

        await name_merchant(api_key, merchant_id)
        await self._work.run_transaction(ClaimRequest(merchant_id, RESERVE_NO_IDS), ensure)

    async def revoke_key_by_value(self, merchant_id: str, api_key: str) -> None:
        """Revoke a well-known key if it exists."""
        revoked = _revoke_by_digest(merchant_id, _digest(api_key), truncate(datetime.now(UTC)))
        await write_rows(merchant_id, lambda _: revoked.run())


def _page_of_keys(merchant_id: str, before: str, limit: int) -> Select[ApiKeys]:
    k = ApiKeys
    found = k.select(k.id, k.role, k.name, k.created_at)
    found = found.where(k.merchant_id == merchant_id, k.id < before, k.revoked_at.is_null())
    return found.order_by(k.id, ascending=False).limit(limit)


def _all_keys(merchant_id: str) -> Select[ApiKeys]:
    k = ApiKeys
    return k.select(k.id, k.role, k.revoked_at).where(k.merchant_id == merchant_id)


def _revoke(merchant_id: str, key_id: str, now: datetime) -> Update[ApiKeys]:
    k = ApiKeys
    return k.update({k.revoked_at: now}).where(k.merchant_id == merchant_id, k.id == key_id)


def _revoke_by_digest(merchant_id: str, digest: bytes, now: datetime) -> Update[ApiKeys]:
    k = ApiKeys
    found = k.update({k.revoked_at: now})
    return found.where(k.merchant_id == merchant_id, k.key_hash == digest, k.revoked_at.is_null())


def _restore_by_digest(merchant_id: str, digest: bytes) -> Update[ApiKeys]:
    k = ApiKeys
    return k.update({k.revoked_at: None}).where(k.merchant_id == merchant_id, k.key_hash == digest).returning(k.id)


async def insert_key(merchant_id: str, key_id: str, api_key: str, role: str, name: str, now: datetime) -> None:
    """Store a key in the caller's transaction."""
    row = ApiKeys(merchant_id=merchant_id, id=key_id, key_hash=_digest(api_key), role=role, name=name, created_at=now)
    await ApiKeys.insert(row)


def _digest(api_key: str) -> bytes:
    return hashlib.sha256(api_key.encode()).digest()


async def name_merchant(api_key: str, merchant_id: str) -> None:
    """Record the merchant of a well-known key that does not name it, unless it is already recorded.

    Call it before the key is stored. If the process is killed in between, the recorded key does not exist, which does no harm.
    The write needs all nodes of a distributed database, so a restart while one is down must not repeat it.
    """
    if merchant_of(api_key) is not None:
        return
    digest = _digest(api_key)
    if await recorded_merchant(digest) != merchant_id:
        await write_shared(_SQL["name_merchant"], digest, merchant_id)


def new_key(merchant_id: str) -> str:
    """Return a new API key of the merchant."""
    return new_api_key(merchant_id, os.urandom(SECRET_SIZE))


def new_id(now: datetime) -> str:
    """Return a new id with the host's time `now`, for rows that are not part of a merchant's world."""
    return uuid7(milliseconds(now), SystemRandom().getrandbits(32), SystemRandom().getrandbits(42))
