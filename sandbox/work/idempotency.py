"""Commands under their idempotency keys: what a key was answered before, and what is kept of an answer. Pure."""

from typing import Final

from sandbox.errors import Problem
from sandbox.work.unit import Answer, Command, IdempotencyKey, KeyRecord, Origin, Unit

UNFINISHED: Final = 102
"""The status of a key whose request takes several transactions and has not come to its answer."""


def execute(unit: Unit, command: Command) -> Answer:
    """Decide one command under its idempotency key; the key is looked up before, and its answer kept after."""
    answer = recall(unit, command.key, command.origin)
    if answer is not None:
        return answer
    try:
        answer = command.decide(unit)
    except Problem as problem:
        answer = refuse(problem, command.origin)
    keep(unit, command.key, answer)
    return answer


def recall(unit: Unit, key: IdempotencyKey | None, origin: Origin) -> Answer | None:
    """What a key's first request was answered, byte for byte; a refusal if that was another request.

    None if the key is new, or its request has not come to its answer and is to be gone on with.
    """
    record = None if key is None else unit.keys.get(key.key)
    if key is None or record is None:
        return None
    if record.fingerprint != key.fingerprint:
        return refuse(
            Problem(
                "IDEMPOTENCY_KEY_REUSED",
                "This key came first with another method, path or body; use a new key for a new request.",
            ),
            origin,
        )
    if record.status == UNFINISHED:
        return None
    return Answer(record.status, record.body, record.location, replayed=True)


def progress(unit: Unit, key: IdempotencyKey | None) -> bytes | None:
    """How far a key's request has come, as it said itself, if it was begun and has no answer yet."""
    record = None if key is None else unit.keys.get(key.key)
    return record.body if record is not None and record.status == UNFINISHED else None


def keep(unit: Unit, key: IdempotencyKey | None, answer: Answer) -> None:
    """Keep the first outcome of a key, to be written with the unit, if the business decided it (2xx, 404, 409, 422).

    How far a request has come is kept for as long as it takes: the merchant's time may pass by days on its way.
    """
    if key is None:
        return
    if answer.provisional:
        record = KeyRecord(key.fingerprint, UNFINISHED, answer.body, None, lapses=False)
    elif answer.status < 400 or (key.keeps_refusals and answer.status in (404, 409, 422)):
        record = KeyRecord(key.fingerprint, answer.status, answer.body, answer.location, key.lapses)
    else:
        return
    unit.keys[key.key] = unit.new_keys[key.key] = record


def refuse(problem: Problem, origin: Origin) -> Answer:
    """A problem as the answer of a command."""
    body = problem.body(origin.public_url, origin.path, origin.request_id)
    return Answer(problem.status, body, problem_headers=tuple(problem.headers.items()))
