"""Results that contain a secret, such as a new API key. They are stored under their idempotency key in encrypted form."""

import os
from typing import TYPE_CHECKING, Any

from sandbox.domain.errors import Problem
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.infrastructure.secrets_at_rest import NONCE_SIZE, SealedSecretError, SecretBox
from sandbox.unit_of_work.runner import Action, UnitOfWorkRunner

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy


async def run_sealed(work: UnitOfWorkRunner, box: SecretBox, context: RequestContext, action: Action) -> CommandResult:
    """Like `UnitOfWorkRunner.run`, for an action whose result contains a secret. Also raises the errors of `unseal`."""
    if context.key is None:
        return await work.run(context, action)
    purpose = f"{context.merchant_id}/answer/{context.key.key}"

    async def closed(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
        return seal(box, purpose, await action(conn, unit))

    return unseal(box, purpose, await work.run(context, closed))


def seal(box: SecretBox, purpose: str, result: CommandResult) -> CommandResult:
    """Return a successful result with its body encrypted for `purpose`. Refusals contain no secret and stay as they are."""
    if result.status >= 400:
        return result
    body = box.seal(result.body.decode(), purpose, os.urandom(NONCE_SIZE))
    return CommandResult(result.status, body, result.location, result.replayed, result.problem_headers)


def unseal(box: SecretBox, purpose: str, result: CommandResult) -> CommandResult:
    """Return the result that `seal` was given. Raises INVALID_STATE if it was sealed with another SANDBOX_SECRET_KEY."""
    if result.status >= 400:
        return result
    try:
        body = box.open(result.body, purpose).encode()
    except SealedSecretError:
        raise Problem(
            "INVALID_STATE",
            "The response stored under this idempotency key contains a secret that cannot be read: it was encrypted with "
            "another SANDBOX_SECRET_KEY, or came with a world bundle. Use a new key.",
        ) from None
    return CommandResult(result.status, body, result.location, result.replayed, result.problem_headers)
