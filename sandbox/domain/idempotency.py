"""Commands under their idempotency keys: what a key was answered before, and what is stored of a result. Pure."""

from typing import Final

from sandbox.domain.errors import Problem
from sandbox.domain.unit import Command, CommandResult, IdempotencyKey, KeyRecord, RequestContext, UnitOfWork

UNFINISHED: Final = 102
"""The status of a key whose request takes several transactions and has no result yet."""
_NEEDS_NEW_KEY: Final = "This answer is stored under your idempotency key for 24 hours: a retry needs a new idempotency key."


def execute(unit: UnitOfWork, command: Command) -> CommandResult:
    """Decide one command under its idempotency key: look the key up, decide if it is new, store the result."""
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
    """The stored result of the key's first request, byte for byte; a refusal if that was a different request.

    None if the key is new, or its request is unfinished and has to be continued.
    """
    return None if context.key is None else stored_result(unit.keys.get(context.key.key), context.key, context)


def stored_result(record: KeyRecord | None, key: IdempotencyKey, context: RequestContext) -> CommandResult | None:
    """As `lookup`, from the record of the key, if there is one."""
    if record is None:
        return None
    if record.fingerprint != key.fingerprint:
        return refuse(
            Problem(
                "IDEMPOTENCY_KEY_REUSED",
                "This key was first used with another method, path or body; use a new key for a new request.",
            ),
            context,
        )
    if record.status == UNFINISHED:
        return None
    return CommandResult(record.status, record.body, record.location, replayed=True)


def checkpoint(unit: UnitOfWork, context: RequestContext) -> bytes | None:
    """How far the key's request has come, as the request itself recorded it; None if it was not begun, or is finished."""
    record = None if context.key is None else unit.keys.get(context.key.key)
    return record.body if record is not None and record.status == UNFINISHED else None


def store(unit: UnitOfWork, context: RequestContext, result: CommandResult) -> None:
    """Store the key's first result with the unit, if the business decided it (2xx, 404, 409, 422).

    A checkpoint does not lapse: the merchant's clock may pass days while the request runs.
    """
    key = context.key
    record = None if key is None else record_of(key, result)
    if key is not None and record is not None:
        unit.keys[key.key] = unit.new_keys[key.key] = record


def record_of(key: IdempotencyKey, result: CommandResult) -> KeyRecord | None:
    """What to store under a key; None for a result that is not stored."""
    if result.provisional:
        return KeyRecord(key.fingerprint, UNFINISHED, result.body, None, lapses=False)
    if result.status < 400 or is_stored(key, result.status):
        return KeyRecord(key.fingerprint, result.status, result.body, result.location, key.lapses)
    return None


def refuse(problem: Problem, context: RequestContext, *, stored: bool = False) -> CommandResult:
    """A problem as a command's result. `stored`: it will be stored under the request's key if its status is one of those."""
    if stored:
        say_stored(problem, context.key)
    body = problem.body(context.public_url, context.path, context.request_id)
    return CommandResult(problem.status, body, problem_headers=tuple(problem.headers.items()))


def say_stored(problem: Problem, key: IdempotencyKey | None) -> None:
    """Let the detail of a refusal that will be stored say that a retry needs a new key."""
    if is_stored(key, problem.status):
        problem.detail = f"{problem.detail} {_NEEDS_NEW_KEY}"


def is_stored(key: IdempotencyKey | None, status: int) -> bool:
    """Whether a refusal with this status is stored under the key."""
    return key is not None and key.keeps_refusals and status in (404, 409, 422)
