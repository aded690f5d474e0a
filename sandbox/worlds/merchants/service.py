"""Create and delete merchants, and manage their API keys."""

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from random import Random, SystemRandom
from typing import Any, Final

import msgspec
from asyncpg.pool import PoolConnectionProxy
from piccolo.query.methods.select import First, Select
from piccolo.query.methods.update import Update

from sandbox.domain.clock import milliseconds, render, truncate
from sandbox.domain.errors import Problem
from sandbox.domain.ids import uuid7
from sandbox.domain.ledger import MERCHANT_ACCOUNTS, TOP_UP
from sandbox.domain.money import ZERO
from sandbox.domain.redaction import Secret
from sandbox.domain.scenario_engine import Catalogue
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.infrastructure.db.all_shards import on_every_shard
from sandbox.infrastructure.db.engine import connection, write_shared
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.secrets_at_rest import NONCE_SIZE, SecretBox
from sandbox.unit_of_work.claim import RESERVE_NO_IDS, ClaimRequest, claim
from sandbox.unit_of_work.ledger import open_accounts
from sandbox.unit_of_work.operator import choose_id, run_for_operator
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.sealed_results import run_sealed
from sandbox.unit_of_work.transaction import write_rows
from sandbox.unit_of_work.write import write
from sandbox.webhooks.endpoints.requests import CreateEndpointBody
from sandbox.webhooks.endpoints.service import EndpointService
from sandbox.webhooks.signing.standard_webhooks import new_secret
from sandbox.worlds.merchants.api_keys import SECRET_SIZE, merchant_of, new_api_key
from sandbox.worlds.merchants.key_ring import recorded_merchant
from sandbox.worlds.merchants.tables import TABLES, ApiKeys, Merchants

MAX_KEYS: Final = 100
_SQL: Final = read_statements(__name__)
_OPEN_WORLD: Final = _SQL["open_world"]
_NAME_MERCHANT: Final = _SQL["name_merchant"]


class NewMerchant(msgspec.Struct):
    """A new merchant with its secrets, which are not shown again.

    `webhook_secret` belongs to the merchant's first endpoint: the one at `webhook_url`, or else the first one it creates.
    """

    merchant_id: str
    api_key: Secret
    webhook_secret: Secret
    ipn_secret: Secret
    ipn_url: str
    """Where banks report the status of this merchant's payouts."""


class Merchant(msgspec.Struct):
    """A merchant, as the operator sees it."""

    merchant_id: str
    name: str
    seed: int | None
    created_at: str
    ipn_url: str
    """Where banks report the status of this merchant's payouts."""


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


@dataclass(frozen=True, slots=True)
class MerchantSpec:
    """A merchant to be created. `merchant_id` and `api_key` are for well-known development merchants."""

    name: str
    opening_balance: Decimal | None = None
    webhook_url: str | None = None
    seed: int | None = None
    frozen_at: datetime | None = None
    """The time, in UTC, at which the new merchant's clock is frozen; None for a running clock."""
    merchant_id: str | None = None
    api_key: str | None = None


class MerchantService:
    """Creates and deletes merchants, and manages their keys."""

    def __init__(self, work: UnitOfWorkRunner, box: SecretBox, endpoints: EndpointService, ipn_url: str) -> None:
        """`ipn_url` is the base of the merchants' IPN URLs."""
        self._work = work
        self._box = box
        self._endpoints = endpoints
        self._ipn_url = ipn_url

    def webhook_url_error(self, url: str) -> str | None:
        """Return the validation error in the URL of a first endpoint, such as "must begin with https://", or None."""
        return next((message for _, message in self._endpoints.check({"url": url})), None)

    async def create(self, spec: MerchantSpec) -> NewMerchant:
        """Create a merchant with an admin key, accounts and, if requested, a balance and a webhook endpoint; all or nothing.

        Raises VALIDATION_ERROR if the URL is not allowed.
        """
        merchant_id = spec.merchant_id or await choose_id(None, _new_merchant_id)
        if spec.api_key is not None:
            await _name_merchant(spec.api_key, merchant_id)
        return await write_rows(merchant_id, lambda conn: self._insert(conn, merchant_id, spec))

    async def create_once(self, context: RequestContext, spec: MerchantSpec) -> CommandResult:
        """Create a merchant, once per idempotency key of the operator. Responds with 201 and the NewMerchant. See `create`.

        `spec` names neither its id nor its key.
        """
        merchant_id = await choose_id(context.key, _new_merchant_id)

        async def action(conn: "PoolConnectionProxy[Any]") -> CommandResult:
            created = await self._insert(conn, merchant_id, spec)
            return CommandResult(201, msgspec.json.encode(created), f"/sandbox/v1/merchants/{created.merchant_id}")

        return await run_for_operator(self._work, self._box, context, merchant_id, action)

    async def _insert(self, conn: "PoolConnectionProxy[Any]", merchant_id: str, spec: MerchantSpec) -> NewMerchant:
        now, seed = truncate(datetime.now(UTC)), spec.seed
        rng = SystemRandom() if seed is None else Random(f"{seed}:merchant")  # noqa: S311 -- repeatable on purpose
        api_key = spec.api_key or _new_key(merchant_id)
        # The IPN secret is not derived from the seed either. Merchants with the same seed have the same payout ids, so only the
        # secret shows which merchant a callback is for.
        ipn_secret = new_secret(os.urandom(32))
        webhook_secret = new_secret(rng.randbytes(32))
        merchant = Merchants(
            merchant_id=merchant_id,
            name=spec.name,
            seed=seed,
            ipn_secret=self._box.seal(ipn_secret, f"{merchant_id}/ipn", os.urandom(NONCE_SIZE)),
            webhook_secret=self._box.seal(webhook_secret, f"{merchant_id}/webhook", os.urandom(NONCE_SIZE)),
            created_at=now,
            opening_balance=spec.opening_balance,
            begins_at=spec.frozen_at,
        )
        await Merchants.insert(merchant)
        await conn.execute(_OPEN_WORLD, merchant_id, seed, spec.frozen_at)
        # Timelines contain the id of the key that made each change, so a seeded world needs the same key id each time.
        key_id = new_id(now) if seed is None else uuid7(0, 0, rng.getrandbits(42))
        await _insert_key(merchant_id, key_id, api_key, "admin", "first key", now)
        unit = await open_world(conn, self._work.catalogue, merchant_id, seed, spec.opening_balance)
        if spec.webhook_url is not None:
            await self._endpoints.insert(unit, CreateEndpointBody(url=spec.webhook_url), webhook_secret)
        return NewMerchant(merchant_id, api_key, webhook_secret, ipn_secret, self._ipn_url_of(merchant_id))

    async def list_all(self, before: str, limit: int) -> list[Merchant]:
        """Return merchants with ids below `before`, newest first."""

        async def read(conn: "PoolConnectionProxy[Any]") -> list[dict[str, Any]]:
            return await _page_of_merchants(before, limit)

        found = (await on_every_shard(read)).rows
        records = sorted(found, key=lambda record: str(record["merchant_id"]), reverse=True)[:limit]
        return [
            Merchant(id_ := str(r["merchant_id"]), r["name"], r["seed"], render(r["created_at"]), self._ipn_url_of(id_))
            for r in records
        ]

    def _ipn_url_of(self, merchant_id: str) -> str:
        return f"{self._ipn_url}/ipn/{merchant_id}/callback"

    async def delete(self, context: RequestContext, merchant_id: str) -> CommandResult:
        """Delete a merchant and all its data in one transaction. Responds with 204.

        Raises NOT_FOUND; with an idempotency key, stores it as the result instead.
        """

        async def action(conn: "PoolConnectionProxy[Any]") -> CommandResult:
            # Taking the lock waits for work in progress; later work finds no merchant. Recording webhook attempts does not take
            # the merchant's lock, and locks rows in another order than these deletes. A deadlock is resolved by a retry.
            if not await claim(conn, self._work.catalogue, [ClaimRequest(merchant_id, RESERVE_NO_IDS)]):
                raise Problem("NOT_FOUND", "This merchant was deleted.")
            for table in TABLES:
                await conn.execute(f"DELETE FROM {table} WHERE merchant_id = $1", merchant_id)  # noqa: S608 -- constants
            return CommandResult(204, b"")

        return await run_for_operator(self._work, self._box, context, merchant_id, action, as_database_owner=True)

    async def create_key(self, context: RequestContext, role: str, name: str) -> CommandResult:
        """Create an API key with the role. Responds with 201 and the NewApiKey.

        The result is VALIDATION_ERROR if the merchant has MAX_KEYS active keys.
        """

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
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
            created = NewApiKey(key_id, _new_key(context.merchant_id), role)
            await _insert_key(context.merchant_id, created.id, created.api_key, role, name, now)
            return CommandResult(201, msgspec.json.encode(created), f"/sandbox/v1/keys/{created.id}")

        return await run_sealed(self._work, self._box, context, action)

    async def list_keys(self, merchant_id: str, before: str, limit: int) -> list[ApiKey]:
        """Return the active keys with ids below `before`, newest first."""
        async with connection(merchant_id):
            records = await _page_of_keys(merchant_id, before, limit)
        return [ApiKey(str(r["id"]), r["role"], r["name"], render(r["created_at"])) for r in records]

    async def revoke_key(self, context: RequestContext, key_id: str) -> CommandResult:
        """Revoke an API key. Responds with 204; the key stops working in every process within a second.

        The result is NOT_FOUND for an unknown or revoked key, INVALID_STATE for the last admin key.
        """

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
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

        async def ensure(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> None:
            if not await _restore_by_digest(merchant_id, _digest(api_key)):
                await _insert_key(merchant_id, new_id(now), api_key, role, name, now)

        await _name_merchant(api_key, merchant_id)
        await self._work.run_transaction(ClaimRequest(merchant_id, RESERVE_NO_IDS), ensure)

    async def revoke_key_by_value(self, merchant_id: str, api_key: str) -> None:
        """Revoke a well-known key if it exists."""
        revoked = _revoke_by_digest(merchant_id, _digest(api_key), truncate(datetime.now(UTC)))
        await write_rows(merchant_id, lambda _: revoked.run())

    async def secrets(self, merchant_id: str) -> tuple[str, str] | None:
        """Return a merchant's webhook secret and IPN secret, for the operator's tools only; None if the merchant is unknown."""
        async with connection(merchant_id):
            record = await _secrets(merchant_id)
        if record is None:
            return None
        return (
            self._box.open(record["webhook_secret"], f"{merchant_id}/webhook"),
            self._box.open(record["ipn_secret"], f"{merchant_id}/ipn"),
        )


async def open_world(
    conn: "PoolConnectionProxy[Any]",
    catalogue: Catalogue,
    merchant_id: str,
    seed: int | None,
    opening_balance: Decimal | None,
) -> UnitOfWork:
    """Open a merchant's empty world in the caller's transaction: create its accounts and credit its opening balance.

    The merchant's id counter must be 0. Returns the unit of work that wrote the world.
    """
    (unit,) = await claim(conn, catalogue, [ClaimRequest(merchant_id)])
    await open_accounts(conn, merchant_id, unit.now)
    unit.balances = dict.fromkeys(MERCHANT_ACCOUNTS, ZERO)
    if seed is not None:
        # With a running clock, ids based on wall-clock time would differ between runs. All later ids sort after time 0.
        unit.ids.begin_at(0)
    if opening_balance is not None:
        unit.transfer(TOP_UP, opening_balance, None, "opening balance")
    await write(conn, [unit])
    return unit


def _page_of_merchants(before: str, limit: int) -> Select[Merchants]:
    m = Merchants
    found = m.select(m.merchant_id, m.name, m.seed, m.created_at).where(m.merchant_id < before)
    return found.order_by(m.merchant_id, ascending=False).limit(limit)


def _secrets(merchant_id: str) -> First:
    m = Merchants
    return m.select(m.webhook_secret, m.ipn_secret).where(m.merchant_id == merchant_id).first()


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


async def _insert_key(merchant_id: str, key_id: str, api_key: str, role: str, name: str, now: datetime) -> None:
    row = ApiKeys(merchant_id=merchant_id, id=key_id, key_hash=_digest(api_key), role=role, name=name, created_at=now)
    await ApiKeys.insert(row)


def _digest(api_key: str) -> bytes:
    return hashlib.sha256(api_key.encode()).digest()


async def _name_merchant(api_key: str, merchant_id: str) -> None:
    """Record the merchant of a well-known key that does not name it, unless it is already recorded.

    Before the key is stored: if the process is killed in between, the merchant of a key that does not exist does no harm. The
    write needs all nodes of a distributed database, so a restart while one is down must not repeat it.
    """
    if merchant_of(api_key) is not None:
        return
    digest = _digest(api_key)
    if await recorded_merchant(digest) != merchant_id:
        await write_shared(_NAME_MERCHANT, digest, merchant_id)


def _new_merchant_id() -> str:
    # Not derived from the seed, because several merchants can have the same seed.
    return new_id(truncate(datetime.now(UTC)))


def _new_key(merchant_id: str) -> str:
    return new_api_key(merchant_id, os.urandom(SECRET_SIZE))


def new_id(now: datetime) -> str:
    """Return a new id with the host's time `now`, for rows that are not part of a merchant's world."""
    return uuid7(milliseconds(now), SystemRandom().getrandbits(32), SystemRandom().getrandbits(42))
