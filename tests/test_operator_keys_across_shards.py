"""An operator's deletion happens once per key, even if the merchant and the key's record are in different shards.

Here, plain PostgreSQL stands in for the shards: whether two ids are in the same one is all that decides how a deletion runs.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandbox.domain.unit import CommandResult, IdempotencyKey, RequestContext
from sandbox.infrastructure.db.engine import DatabaseUnavailableError, close_pool, open_pool
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.unit_of_work import operator
from sandbox.webhooks.endpoints.service import EndpointService
from sandbox.worlds.merchants.service import MerchantService
from tests.harness.work import request_of, units_of_work
from tests.harness.world import Stack, World


@pytest.fixture
async def merchants(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MerchantService]:
    """Yield a service for which every id is in a shard of its own."""
    monkeypatch.setattr(operator, "shard_of", lambda id_: id_)
    work, box = units_of_work(), SecretBox(bytes(32))
    await open_pool(stack.database_url, 4)
    yield MerchantService(work, box, EndpointService(work, box, ()), "http://ipn.example")
    await close_pool()


def context_of(key: str, fingerprint: bytes = b"delete") -> RequestContext:
    return request_of("", IdempotencyKey(key, fingerprint))


async def execute(stack: Stack, statement: str, *arguments: object) -> list[dict[str, Any]]:
    """Run SQL in another thread, because `Stack.execute` has an event loop of its own."""
    return await asyncio.to_thread(stack.execute, statement, *arguments)


async def records(stack: Stack, key: str) -> list[int]:
    """Return the statuses of the key's records."""
    return [row["status"] for row in await execute(stack, "SELECT status FROM operator_keys WHERE key = $1", key)]


async def delete(merchants: MerchantService, world: World, key: str) -> CommandResult:
    return await merchants.delete_merchant(context_of(key), world.merchant_id)


async def test_a_deletion_is_repeated_with_the_same_result(stack: Stack, world: World, merchants: MerchantService) -> None:
    key = uuid.uuid4().hex
    first, second = [await delete(merchants, world, key) for _ in range(2)]
    assert (first.status, second.status, second.replayed) == (204, 204, True)
    assert await records(stack, key) == [204]
    refused = await merchants.delete_merchant(context_of(key, b"another request"), world.merchant_id)
    assert refused.status == 422
    again = [await delete(merchants, world, key + "2") for _ in range(2)]
    assert [(result.status, result.replayed) for result in again] == [(404, False), (404, True)]


async def test_many_deletions_at_once_do_not_wait_for_each_others_connections(merchants: MerchantService) -> None:
    """Each takes two connections at a time. The pool has four."""
    prefix = uuid.uuid4().hex
    deletions = (merchants.delete_merchant(context_of(f"{prefix}-{number}"), str(uuid.uuid4())) for number in range(16))
    assert [result.status for result in await asyncio.gather(*deletions)] == [404] * 16


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_a_deletion_that_was_interrupted_is_finished(
    stack: Stack, world: World, merchants: MerchantService, is_deleted: bool
) -> None:
    """The process was killed before or after the deletion was committed, and in both cases before its result was stored."""
    key = uuid.uuid4().hex
    if is_deleted:
        assert (await delete(merchants, world, key)).status == 204
    else:
        assert (await merchants.delete_merchant(context_of(key), str(uuid.uuid4()))).status == 404
    await execute(stack, "UPDATE operator_keys SET status = 102, body = '' WHERE key = $1", key)
    assert (await delete(merchants, world, key)).status == 204
    assert await records(stack, key) == [204]
    assert await execute(stack, "SELECT FROM merchants WHERE merchant_id = $1", world.merchant_id) == []


async def test_a_merchant_is_created_in_the_shard_of_its_key(
    monkeypatch: pytest.MonkeyPatch, merchants: MerchantService
) -> None:
    monkeypatch.setattr(operator, "shard_of", lambda id_: uuid.UUID(id_).int % 128)
    for _ in range(5):
        key = IdempotencyKey(uuid.uuid4().hex, b"create")
        chosen = await operator.choose_id(key, lambda: str(uuid.uuid4()))
        assert operator.shard_of(chosen) == operator.shard_of(operator._slot_of(key.key))


async def test_without_a_key_a_merchant_is_created_where_the_node_is_available(
    monkeypatch: pytest.MonkeyPatch, merchants: MerchantService
) -> None:
    monkeypatch.setattr(operator, "is_available", lambda id_: id_.endswith("7"))
    assert (await operator.choose_id(None, lambda: str(uuid.uuid4()))).endswith("7")
    monkeypatch.setattr(operator, "is_available", lambda _: False)
    assert await operator.choose_id(None, lambda: "any") == "any"


async def test_without_a_key_a_merchant_is_not_created_where_the_node_turns_out_to_be_down(
    monkeypatch: pytest.MonkeyPatch, merchants: MerchantService
) -> None:
    ids = iter(["down", "down", "up"])

    @asynccontextmanager
    async def connection(id_: str) -> AsyncIterator[None]:
        if id_ == "down":
            raise DatabaseUnavailableError(ConnectionError())
        yield

    monkeypatch.setattr(operator, "connection", connection)
    assert await operator.choose_id(None, lambda: next(ids)) == "up"
    # If no node responds, the creation itself answers 503.
    assert await operator.choose_id(None, lambda: "down") == "down"


async def test_the_slot_of_a_key_is_the_same_in_postgresql(stack: Stack) -> None:
    key = f"clé {uuid.uuid4()}"
    (found,) = await execute(stack, "SELECT md5('operator key ' || $1::text)::uuid::text AS slot", key)
    assert found["slot"] == operator._slot_of(key)
