"""Run commands under idempotency keys: replay a key's stored response, or store a new one. Pure."""

from datetime import timedelta
from typing import Final

from sandbox.domain.errors import Problem
from sandbox.domain.unit import Command, CommandResult, IdempotencyKey, KeyRecord, RequestContext, UnitOfWork

KEY_LIFETIME: Final = timedelta(hours=24)
"""How long a key is kept. `write.sql` has the same time, for the keys of merchants."""
UNFINISHED: Final = 102
"""The stored status of a key whose request takes several transactions and has no result yet."""
CALLBACK_PREFIX: Final = "\x1fipn:"
"""The prefix of the keys of bank callbacks. It is not printable, so no merchant's key begins with it."""
NEEDS_NEW_KEY: Final = (
    "This response is stored under your idempotency key for 24 hours. To try again, send a new idempotency key."
)
"""The end of the detail of a stored refusal."""


def execute(unit: UnitOfWork, command: Command) -> CommandResult:
    """Run one command under its idempotency key: return the stored result, or decide the command and store its result."""
    context = command.context
    result = lookup(unit, context)
    if result is not None:
        return result
    try:
        result = command.decide(unit)
    except Problem as problem:
        result = refuse(problem, context, stored=True)
    store(unit, context, result)
    return result


def lookup(unit: UnitOfWork, context: RequestContext) -> CommandResult | None:
    """Return the stored result of the key's first request, byte for byte, or an error if this request is different.

    Return None if the key is new or its request is unfinished.
    """
    return None if context.key is None else stored_result(unit.keys.get(context.key.key), context.key, context)


def stored_result(record: KeyRecord | None, key: IdempotencyKey, context: RequestContext) -> CommandResult | None:
    """Like `lookup`, for an already loaded record (None if the key is new)."""
    if record is None:
        return None
    if record.fingerprint != key.fingerprint:
        return refuse(
            Problem(
                "IDEMPOTENCY_KEY_REUSED",
                "This key was first used with a different method, path or body. Use a new key for a new request.",
            ),
            context,
        )
    if record.status == UNFINISHED:
        return None
    return CommandResult(record.status, record.body, record.location, replayed=True)


def checkpoint(unit: UnitOfWork, context: RequestContext) -> bytes | None:
    """Return the key's checkpoint; None if its request has not started or is finished."""
    record = None if context.key is None else unit.keys.get(context.key.key)
    return record.body if record is not None and record.status == UNFINISHED else None


def store(unit: UnitOfWork, context: RequestContext, result: CommandResult) -> None:
    """Store the key's result with the unit if it is final (2xx, 404, 409, 422) or a checkpoint."""
    key = context.key
    record = None if key is None else record_of(key, result)
    if key is not None and record is not None:
        unit.keys[key.key] = unit.new_keys[key.key] = record


def record_of(key: IdempotencyKey, result: CommandResult) -> KeyRecord | None:
    """Return the record to store under a key; None for a result that is not stored."""
    if result.provisional:
        # A checkpoint never expires: the merchant's clock may advance by days while the request runs.
        return KeyRecord(key.fingerprint, UNFINISHED, result.body, None, expires=False)
    if result.status < 400 or is_stored(key, result.status):
        return KeyRecord(key.fingerprint, result.status, result.body, result.location, key.expires)
    return None


def refuse(problem: Problem, context: RequestContext, *, stored: bool = False) -> CommandResult:
    """Return a problem as a command's result. `stored` says that the caller will pass the result to `store`."""
    if stored:
        add_stored_notice(problem, context.key)
    body = problem.body(context.public_url, context.path, context.request_id)
    return CommandResult(problem.status, body, problem_headers=tuple(problem.headers.items()))


def add_stored_notice(problem: Problem, key: IdempotencyKey | None) -> None:
    """Add to a refusal's detail that a retry needs a new key, if the refusal will be stored under the key."""
    if is_stored(key, problem.status):
        problem.detail = f"{problem.detail} {NEEDS_NEW_KEY}"


def is_stored(key: IdempotencyKey | None, status: int) -> bool:
    """Return whether a refusal with this status is stored under the key."""
    return key is not None and key.stores_refusals and status in (404, 409, 422)
