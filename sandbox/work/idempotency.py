"""Commands under their idempotency keys: what a key was answered before, and what is kept of an answer. Pure."""

from sandbox.errors import Problem
from sandbox.work.unit import Answer, Command, IdempotencyKey, KeyRecord, Origin, Unit


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
    """What a key's first request was answered, byte for byte; a refusal if that was another request; None if new."""
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
    return Answer(record.status, record.body, record.location, replayed=True)


def keep(unit: Unit, key: IdempotencyKey | None, answer: Answer) -> None:
    """Keep the first outcome of a key, to be written with the unit, if the business decided it (2xx, 404, 409, 422)."""
    if (
        key is not None
        and not answer.provisional
        and (answer.status < 400 or (key.keeps_refusals and answer.status in (404, 409, 422)))
    ):
        unit.keys[key.key] = unit.new_keys[key.key] = KeyRecord(key.fingerprint, answer.status, answer.body, answer.location)


def refuse(problem: Problem, origin: Origin) -> Answer:
    """A problem as the answer of a command."""
    body = problem.body(origin.public_url, origin.path, origin.request_id)
    return Answer(problem.status, body, problem_headers=tuple(problem.headers.items()))
