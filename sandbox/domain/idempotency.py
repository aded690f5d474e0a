"""Commands under their idempotency keys: what a key was answered before, and what is kept of an answer. Pure."""

from typing import Final

from sandbox.domain.errors import Problem
from sandbox.domain.unit import Command, CommandResult, IdempotencyKey, KeyRecord, RequestContext, UnitOfWork

UNFINISHED: Final = 102
"""The status of a key whose request takes several transactions and has not come to its answer."""
_NEEDS_NEW_KEY: Final = "This answer is stored under your idempotency key for 24 hours: a retry needs a new idempotency key."


def execute(unit: UnitOfWork, command: Command) -> CommandResult:
    """Decide one command under its idempotency key; the key is looked up before, and its answer kept after."""
    answer = recall(unit, command.key, command.origin)
    if answer is not None:
        return answer
    try:
        answer = command.decide(unit)
    except Problem as problem:
        answer = refuse(problem, command.origin, command.key)
    keep(unit, command.key, answer)
    return answer


def recall(unit: UnitOfWork, key: IdempotencyKey | None, origin: RequestContext) -> CommandResult | None:
    """What a key's first request was answered, byte for byte; a refusal if that was another request.

    None if the key is new, or its request has not come to its answer and is to be gone on with.
    """
    return None if key is None else stored_answer(unit.keys.get(key.key), key, origin)


def stored_answer(record: KeyRecord | None, key: IdempotencyKey, origin: RequestContext) -> CommandResult | None:
    """As `recall`, from what is stored under the key, if anything is."""
    if record is None:
        return None
    if record.fingerprint != key.fingerprint:
        return refuse(
            Problem(
                "IDEMPOTENCY_KEY_REUSED",
                "This key was first used with another method, path or body; use a new key for a new request.",
            ),
            origin,
        )
    if record.status == UNFINISHED:
        return None
    return CommandResult(record.status, record.body, record.location, replayed=True)


def progress(unit: UnitOfWork, key: IdempotencyKey | None) -> bytes | None:
    """How far a key's request has come, as it said itself, if it was begun and has no answer yet."""
    record = None if key is None else unit.keys.get(key.key)
    return record.body if record is not None and record.status == UNFINISHED else None


def keep(unit: UnitOfWork, key: IdempotencyKey | None, answer: CommandResult) -> None:
    """Keep the first outcome of a key, to be written with the unit, if the business decided it (2xx, 404, 409, 422).

    How far a request has come is kept for as long as it takes: the merchant's time may pass by days on its way.
    """
    record = None if key is None else record_of(key, answer)
    if key is not None and record is not None:
        unit.keys[key.key] = unit.new_keys[key.key] = record


def record_of(key: IdempotencyKey, answer: CommandResult) -> KeyRecord | None:
    """What is to be stored under a key of its answer; None for an answer that is not stored."""
    if answer.provisional:
        return KeyRecord(key.fingerprint, UNFINISHED, answer.body, None, lapses=False)
    if answer.status < 400 or is_stored(key, answer.status):
        return KeyRecord(key.fingerprint, answer.status, answer.body, answer.location, key.lapses)
    return None


def refuse(problem: Problem, origin: RequestContext, key: IdempotencyKey | None = None) -> CommandResult:
    """A problem as the answer of a command; with `key`, one that says so if it will be stored."""
    say_stored(problem, key)
    body = problem.body(origin.public_url, origin.path, origin.request_id)
    return CommandResult(problem.status, body, problem_headers=tuple(problem.headers.items()))


def say_stored(problem: Problem, key: IdempotencyKey | None) -> None:
    """Let the detail of a refusal that will be stored say that a retry needs a new key."""
    if is_stored(key, problem.status):
        problem.detail = f"{problem.detail} {_NEEDS_NEW_KEY}"


def is_stored(key: IdempotencyKey | None, status: int) -> bool:
    """Whether a refusal with this status is stored under the key."""
    return key is not None and key.keeps_refusals and status in (404, 409, 422)
