"""Merchants and their API keys: each merchant is a whole sandbox of its own."""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random, SystemRandom
from typing import Any, Final

import msgspec
from asyncpg.pool import PoolConnectionProxy

from sandbox.clock import milliseconds, render, truncate
from sandbox.db.engine import as_owner, available, connection, transaction
from sandbox.errors import Problem
from sandbox.ids import is_uuid, uuid7
from sandbox.ledger.model import TOP_UP
from sandbox.ledger.post import open_accounts
from sandbox.merchants.tables import TABLES
from sandbox.secrets_at_rest import SecretBox
from sandbox.webhooks.endpoints import EndpointService, NewEndpoint
from sandbox.webhooks.signing import new_secret
from sandbox.work.keyed import run_keyed
from sandbox.work.store import lock_merchant, read_claim, write_unit
from sandbox.work.unit import Answer, Origin, Unit

KEY_PREFIX: Final = "sk_sandbox_"
LARGEST_KEY_COUNT: Final = 100


class NewMerchant(msgspec.Struct):
    """What a new merchant is told once; the secrets are not shown again.

    `webhook_secret` signs for the merchant's first endpoint, the one at `webhook_url` or else the first that it makes.
    """

    merchant_id: str
    api_key: str
    webhook_secret: str
    ipn_secret: str


class Merchant(msgspec.Struct):
    """A merchant, as the operator sees it."""

    merchant_id: str
    name: str
    seed: int | None
    created_at: str


class ApiKey(msgspec.Struct):
    """An API key without the key itself."""

    id: str
    role: str
    name: str
    created_at: str


class NewApiKey(msgspec.Struct):
    """A new API key; the key itself is shown this once."""

    id: str
    api_key: str
    role: str


class RateLimit(msgspec.Struct):
    """How many requests a minute a merchant's API takes; null for as many as come."""

    requests_per_minute: int | None


class Approvals(msgspec.Struct):
    """How long a merchant's payouts wait for approval, in its own time; null for as long as it takes."""

    expire_after_seconds: int | None


class MerchantService:
    """Create and delete merchants, and manage their keys."""

    def __init__(self, box: SecretBox, endpoints: EndpointService) -> None:
        self._box = box
        self._endpoints = endpoints

    async def create(
        self,
        name: str,
        opening_balance: Decimal | None,
        webhook_url: str | None,
        seed: int | None,
        *,
        merchant_id: str | None = None,
        api_key: str | None = None,
        rate_limit: int | None = None,
    ) -> NewMerchant:
        """Create a merchant with an admin key, its accounts, perhaps a balance and a webhook endpoint: all or nothing.

        `merchant_id` and `api_key` are for well-known development merchants. Raises VALIDATION_ERROR for a bad URL.
        """
        now = truncate(datetime.now(UTC))
        bits = SystemRandom() if seed is None else Random(f"{seed}:merchant")  # noqa: S311 -- repeatable on purpose
        # The merchant's own id is new even for a seed: two worlds of one seed may live side by side.
        merchant_id = merchant_id or new_id(now)
        api_key = api_key or _new_key()
        ipn_secret = new_secret(bits.randbytes(32))
        webhook_secret = new_secret(bits.randbytes(32))
        async with available(), transaction() as conn:
            await conn.execute(
                "INSERT INTO merchants (merchant_id, name, seed, ipn_secret, webhook_secret, created_at, rate_limit, "
                "opening_balance) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                merchant_id,
                name,
                seed,
                self._box.seal(ipn_secret, f"{merchant_id}/ipn", os.urandom(12)),
                self._box.seal(webhook_secret, f"{merchant_id}/webhook", os.urandom(12)),
                now,
                rate_limit,
                opening_balance,
            )
            await _insert_key(conn, merchant_id, new_id(now), api_key, "admin", "first key", now)
            unit = await open_world(conn, merchant_id, now, opening_balance)
            if webhook_url is not None:
                await self._endpoints.insert(conn, unit, NewEndpoint(url=webhook_url, secret=webhook_secret))
        return NewMerchant(merchant_id, api_key, webhook_secret, ipn_secret)

    async def list_all(self, before: str, limit: int) -> list[Merchant]:
        """Merchants, newest first, whose ids are below `before`."""
        async with available(), connection() as conn:
            records = await conn.fetch(
                "SELECT merchant_id::text, name, seed, created_at FROM merchants WHERE merchant_id < $1 "
                "ORDER BY merchants.merchant_id DESC LIMIT $2",
                before,
                limit,
            )
        return [Merchant(r["merchant_id"], r["name"], r["seed"], render(r["created_at"])) for r in records]

    async def delete(self, merchant_id: str, origin: Origin) -> None:
        """Delete a merchant and all that is its own, in one transaction. Raises NOT_FOUND."""
        if not is_uuid(merchant_id):
            raise Problem("NOT_FOUND", "A merchant's id is a UUID in lower case; there is no such merchant.")

        async def action(conn: "PoolConnectionProxy[Any]", unit: Unit) -> Answer:
            async with as_owner(conn):
                for table in TABLES:
                    await conn.execute(f"DELETE FROM {table} WHERE merchant_id = $1", merchant_id)  # noqa: S608 -- constants
            return Answer(204, b"")

        # The lock waits for work under way; work that comes later finds no merchant. Attempts are recorded without it, each
        # row's lock in another order than here: if the two wait for each other in a circle, this is done again.
        async with available():
            await run_keyed(merchant_id, None, origin, action)

    async def create_key(self, merchant_id: str, role: str, name: str, api_key: str | None = None) -> NewApiKey:
        """Create an API key of the role. Raises VALIDATION_ERROR if the merchant has too many."""
        now = truncate(datetime.now(UTC))
        key_id, api_key = new_id(now), api_key or _new_key()
        async with available(), transaction() as conn:
            await lock_merchant(conn, merchant_id, 0)
            count = await conn.fetchval(
                "SELECT count(*) FROM api_keys WHERE merchant_id = $1 AND revoked_at IS NULL", merchant_id
            )
            if count >= LARGEST_KEY_COUNT:
                raise Problem(
                    "VALIDATION_ERROR",
                    f"A merchant has at most {LARGEST_KEY_COUNT} keys; delete one first.",
                    errors=[("role", f"would be key number {count + 1} of at most {LARGEST_KEY_COUNT}")],
                )
            await _insert_key(conn, merchant_id, key_id, api_key, role, name, now)
        return NewApiKey(key_id, api_key, role)

    async def list_keys(self, merchant_id: str, before: str, limit: int) -> list[ApiKey]:
        """Keys that work, newest first, whose ids are below `before`."""
        async with available(), connection() as conn:
            records = await conn.fetch(
                "SELECT id::text AS key_id, role, name, created_at FROM api_keys "
                "WHERE merchant_id = $1 AND id < $2 AND revoked_at IS NULL ORDER BY id DESC LIMIT $3",
                merchant_id,
                before,
                limit,
            )
        return [ApiKey(r["key_id"], r["role"], r["name"], render(r["created_at"])) for r in records]

    async def revoke_key(self, merchant_id: str, key_id: str) -> None:
        """Make a key stop working, everywhere within a second. Raises NOT_FOUND."""
        revoked = None
        if is_uuid(key_id):
            async with available(), connection() as conn:
                revoked = await conn.fetchval(
                    "UPDATE api_keys SET revoked_at = $3 WHERE merchant_id = $1 AND id = $2 AND revoked_at IS NULL "
                    "RETURNING id",
                    merchant_id,
                    key_id,
                    truncate(datetime.now(UTC)),
                )
        if revoked is None:
            raise Problem("NOT_FOUND", "There is no such key, or it is revoked already.")

    async def ensure_key(self, merchant_id: str, role: str, name: str, api_key: str) -> None:
        """Make a key that is known beforehand, unless it is there and works."""
        digest = hashlib.sha256(api_key.encode()).digest()
        now = truncate(datetime.now(UTC))
        async with available(), transaction() as conn:
            await lock_merchant(conn, merchant_id, 0)
            restored = await conn.fetchval(
                "UPDATE api_keys SET revoked_at = NULL WHERE merchant_id = $1 AND key_hash = $2 RETURNING id",
                merchant_id,
                digest,
            )
            if restored is None:
                await _insert_key(conn, merchant_id, new_id(now), api_key, role, name, now)

    async def revoke_plain_key(self, merchant_id: str, api_key: str) -> None:
        """Revoke a key that is known beforehand, if it is there."""
        async with available(), connection() as conn:
            await conn.execute(
                "UPDATE api_keys SET revoked_at = $3 WHERE merchant_id = $1 AND key_hash = $2 AND revoked_at IS NULL",
                merchant_id,
                hashlib.sha256(api_key.encode()).digest(),
                truncate(datetime.now(UTC)),
            )

    async def rate_limit(self, merchant_id: str) -> RateLimit:
        """How many requests a minute the merchant's API takes. Raises NOT_FOUND if the merchant is gone."""
        async with available(), connection() as conn:
            record = await conn.fetchrow("SELECT rate_limit FROM merchants WHERE merchant_id = $1", merchant_id)
        if record is None:
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        return RateLimit(record["rate_limit"])

    async def set_rate_limit(self, merchant_id: str, per_minute: int | None) -> RateLimit:
        """Limit the merchant's API, or lift the limit; every process knows within a second. Raises NOT_FOUND."""
        async with available(), connection() as conn:
            found = await conn.fetchval(
                "UPDATE merchants SET rate_limit = $2 WHERE merchant_id = $1 RETURNING merchant_id", merchant_id, per_minute
            )
        if found is None:
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        return RateLimit(per_minute)

    async def approvals(self, merchant_id: str) -> Approvals:
        """How long the merchant's payouts wait for approval. Raises NOT_FOUND if the merchant is gone."""
        async with available(), connection() as conn:
            record = await conn.fetchrow("SELECT approvals_expire_after FROM merchants WHERE merchant_id = $1", merchant_id)
        if record is None:
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        after: timedelta | None = record["approvals_expire_after"]
        return Approvals(None if after is None else int(after.total_seconds()))

    async def set_approvals(self, merchant_id: str, seconds: int | None) -> Approvals:
        """Let payouts that begin to wait for approval from now on do so for so long. Raises NOT_FOUND."""
        async with available(), connection() as conn:
            found = await conn.fetchval(
                "UPDATE merchants SET approvals_expire_after = $2 WHERE merchant_id = $1 RETURNING merchant_id",
                merchant_id,
                None if seconds is None else timedelta(seconds=seconds),
            )
        if found is None:
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        return Approvals(seconds)

    async def secrets(self, merchant_id: str) -> tuple[str, str] | None:
        """A merchant's webhook secret and IPN secret, for whoever runs the sandbox; None if there is no such merchant."""
        async with available(), connection() as conn:
            record = await conn.fetchrow("SELECT webhook_secret, ipn_secret FROM merchants WHERE merchant_id = $1", merchant_id)
        if record is None:
            return None
        return (
            self._box.open(record["webhook_secret"], f"{merchant_id}/webhook"),
            self._box.open(record["ipn_secret"], f"{merchant_id}/ipn"),
        )


async def open_world(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, now: datetime, opening_balance: Decimal | None
) -> Unit:
    """Begin a merchant's world in the caller's transaction: its accounts, and what it has to begin with.

    Nothing of a world is there yet, and the merchant's id counter stands at 0. Returns the unit that wrote it.
    """
    await open_accounts(conn, merchant_id, now)
    unit = await lock_merchant(conn, merchant_id, 1)
    if await conn.fetchval("SELECT seed IS NOT NULL FROM merchants WHERE merchant_id = $1", merchant_id):
        # Its clock is not frozen yet, and the host's time would make other ids each time. All that comes sorts behind 0.
        unit.ids.begin_at(0)
    await read_claim(conn, unit)
    if opening_balance is not None:
        unit.transfer(TOP_UP, opening_balance, None, "opening balance")
    await write_unit(conn, unit)
    return unit


async def _insert_key(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, key_id: str, api_key: str, role: str, name: str, now: datetime
) -> None:
    await conn.execute(
        "INSERT INTO api_keys (merchant_id, id, key_hash, role, name, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        merchant_id,
        key_id,
        hashlib.sha256(api_key.encode()).digest(),
        role,
        name,
        now,
    )


def _new_key() -> str:
    return KEY_PREFIX + os.urandom(24).hex()


def new_id(now: datetime) -> str:
    """A new id at the host's time, for what is no part of a merchant's world."""
    return uuid7(milliseconds(now), SystemRandom().getrandbits(32), SystemRandom().getrandbits(42))
