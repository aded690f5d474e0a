"""Answers that hold a secret, such as a new API key: shown to the caller, and stored under their idempotency key encrypted."""

import os
from typing import TYPE_CHECKING, Any

from sandbox.domain.errors import Problem
from sandbox.domain.unit import CommandResult, IdempotencyKey, RequestContext, UnitOfWork
from sandbox.infrastructure.secrets_at_rest import NONCE_SIZE, SealedSecretError, SecretBox
from sandbox.unit_of_work.keyed import Action, run_keyed

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy


async def run_sealed(
    box: SecretBox, merchant_id: str, key: IdempotencyKey | None, origin: RequestContext, action: Action
) -> CommandResult:
    """As `run_keyed`, for an action whose answer holds a secret. Raises as it does, and as `opened`."""
    if key is None:
        return await run_keyed(merchant_id, key, origin, action)
    context = f"{merchant_id}/answer/{key.key}"

    async def closed(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
        return sealed(box, context, await action(conn, unit))

    return opened(box, context, await run_keyed(merchant_id, key, origin, closed))


def sealed(box: SecretBox, context: str, answer: CommandResult) -> CommandResult:
    """A success with its body encrypted for `context`, to be stored; a refusal, which holds no secret, as it is."""
    if answer.status >= 400:
        return answer
    body = box.seal(answer.body.decode(), context, os.urandom(NONCE_SIZE))
    return CommandResult(answer.status, body, answer.location, answer.replayed, answer.problem_headers)


def opened(box: SecretBox, context: str, answer: CommandResult) -> CommandResult:
    """The answer that `sealed` was given. Raises INVALID_STATE if it was sealed with another SANDBOX_SECRET_KEY."""
    if answer.status >= 400:
        return answer
    try:
        body = box.open(answer.body, context).encode()
    except SealedSecretError:
        raise Problem(
            "INVALID_STATE",
            "The answer stored under this idempotency key was encrypted with another SANDBOX_SECRET_KEY; use a new key.",
        ) from None
    return CommandResult(answer.status, body, answer.location, answer.replayed, answer.problem_headers)
