"""Create, list and delete merchants."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from random import Random, SystemRandom
from typing import Any, Final

import msgspec
from piccolo.query.methods.select import First, Select

from sandbox.domain.clock import render, truncate
from sandbox.domain.errors import Problem
from sandbox.domain.fields import Uuid
from sandbox.domain.ids import uuid7
from sandbox.domain.ledger import MERCHANT_ACCOUNTS, TOP_UP
from sandbox.domain.money import ZERO
from sandbox.domain.redaction import Secret
from sandbox.domain.scenario_engine import Catalogue
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import PAGE, delete, get, post
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.all_shards import on_every_shard
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.secrets_at_rest import NONCE_SIZE, SecretBox
from sandbox.unit_of_work.claim import RESERVE_NO_IDS, ClaimRequest, claim
from sandbox.unit_of_work.ledger import open_accounts
from sandbox.unit_of_work.operator import choose_id, run_for_operator
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.transaction import write_rows
from sandbox.unit_of_work.write import write
from sandbox.webhooks.endpoints.requests import CreateEndpointBody
from sandbox.webhooks.endpoints.service import EndpointService
from sandbox.webhooks.signing.standard_webhooks import new_secret
from sandbox.worlds.merchants.keys import insert_key, name_merchant, new_id, new_key
from sandbox.worlds.merchants.requests import CreateMerchantBody, MerchantSpec, spec_of, validate_optional
from sandbox.worlds.merchants.tables import TABLES, Merchants

_SQL: Final = read_statements(__name__)


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


class MerchantService:
    """The operator's operations on merchants."""

    def __init__(self, work: UnitOfWorkRunner, box: SecretBox, endpoints: EndpointService, ipn_url: str) -> None:
        """`ipn_url` is the base of the merchants' IPN URLs."""
        self._work = work
        self._box = box
        self._endpoints = endpoints
        self._ipn_url = ipn_url

    def _check(self, fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        return validate_optional(fields, self._url_error)[2]

    def _url_error(self, url: str) -> str | None:
        return next((message for _, message in self._endpoints.check({"url": url})), None)

    async def create(self, spec: MerchantSpec) -> NewMerchant:
        """Create a merchant with an admin key, accounts and, if requested, a balance and a webhook endpoint; all or nothing.

        Raises VALIDATION_ERROR if the URL is not allowed.
        """
        merchant_id = spec.merchant_id or await choose_id(None, _new_merchant_id)
        if spec.api_key is not None:
            await name_merchant(spec.api_key, merchant_id)
        return await write_rows(merchant_id, lambda conn: self._insert(conn, merchant_id, spec))

    @post(
        "/sandbox/v1/merchants",
        "Create a merchant with its own isolated sandbox",
        {201: NewMerchant},
        CreateMerchantBody,
        access="operator",
        example={"name": "CI job 42", "opening_balance": "1000000.00"},
        check=_check,
        description="With `seed`, ids, jitter and faults repeat exactly. With `frozen_at`, the clock is frozen "
        "at that time from the start, and again after each reset.",
        psp="merchants create --seed {seed:integer}",
    )
    async def create_merchant(self, context: RequestContext, body: CreateMerchantBody) -> CommandResult:
        """Create a merchant, once per idempotency key of the operator. Responds with 201 and the NewMerchant.

        Raises VALIDATION_ERROR.
        """
        spec = spec_of(body, self._url_error)
        merchant_id = await choose_id(context.key, _new_merchant_id)

        async def action(conn: Connection) -> CommandResult:
            created = await self._insert(conn, merchant_id, spec)
            return CommandResult(201, msgspec.json.encode(created), f"/sandbox/v1/merchants/{created.merchant_id}")

        return await run_for_operator(self._work, self._box, context, merchant_id, action)

    async def _insert(self, conn: Connection, merchant_id: str, spec: MerchantSpec) -> NewMerchant:
        now, seed = truncate(datetime.now(UTC)), spec.seed
        rng = SystemRandom() if seed is None else Random(f"{seed}:merchant")  # noqa: S311 -- repeatable on purpose
        api_key = spec.api_key or new_key(merchant_id)
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
        await conn.execute(_SQL["open_world"], merchant_id, seed, spec.frozen_at)
        # Timelines contain the id of the key that made each change, so a seeded world needs the same key id each time.
        key_id = new_id(now) if seed is None else uuid7(0, 0, rng.getrandbits(42))
        await insert_key(merchant_id, key_id, api_key, "admin", "first key", now)
        unit = await open_world(conn, self._work.catalogue, merchant_id, seed, spec.opening_balance)
        if spec.webhook_url is not None:
            await self._endpoints.insert(unit, CreateEndpointBody(url=spec.webhook_url), webhook_secret)
        return NewMerchant(merchant_id, api_key, webhook_secret, ipn_secret, self._ipn_url_of(merchant_id))

    @get(
        "/sandbox/v1/merchants",
        "List merchants, newest first",
        {200: list[Merchant]},
        query=PAGE,
        access="operator",
        psp="merchants list",
        columns="merchant_id name seed created_at",
    )
    async def list_merchants(self, window: PageWindow) -> Page:
        """Return a page of the merchants of all nodes, newest first."""
        before, limit = window.before, window.limit + 1

        async def read(conn: Connection) -> list[dict[str, Any]]:
            return await _page_of_merchants(before, limit)

        found = (await on_every_shard(read)).rows
        records = sorted(found, key=lambda record: str(record["merchant_id"]), reverse=True)[:limit]
        merchants = [
            Merchant(id_ := str(r["merchant_id"]), r["name"], r["seed"], render(r["created_at"]), self._ipn_url_of(id_))
            for r in records
        ]
        return page(merchants, window.limit, [merchant.merchant_id for merchant in merchants])

    def _ipn_url_of(self, merchant_id: str) -> str:
        return f"{self._ipn_url}/ipn/{merchant_id}/callback"

    @delete(
        "/sandbox/v1/merchants/{merchant_id}",
        "Delete a merchant and all its data",
        {204: None},
        access="operator",
        psp="merchants delete",
    )
    async def delete_merchant(self, context: RequestContext, merchant_id: Uuid) -> CommandResult:
        """Delete a merchant and all its data in one transaction. Responds with 204.

        Raises NOT_FOUND; with an idempotency key, stores it as the result instead.
        """

        async def action(conn: Connection) -> CommandResult:
            # Taking the lock waits for work in progress; later work finds no merchant. Recording webhook attempts does not take
            # the merchant's lock, and locks rows in another order than these deletes. A deadlock is resolved by a retry.
            if not await claim(conn, self._work.catalogue, [ClaimRequest(merchant_id, RESERVE_NO_IDS)]):
                raise Problem("NOT_FOUND", "This merchant was deleted.")
            for table in TABLES:
                await conn.execute(f"DELETE FROM {table} WHERE merchant_id = $1", merchant_id)  # noqa: S608 -- constants
            return CommandResult(204, b"")

        return await run_for_operator(self._work, self._box, context, merchant_id, action, as_database_owner=True)

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
    conn: Connection,
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


def _new_merchant_id() -> str:
    # Not derived from the seed, because several merchants can have the same seed.
    return new_id(truncate(datetime.now(UTC)))
