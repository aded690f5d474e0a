"""Custom scenarios (a merchant's own rules) and their validation. Pure."""

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.errors import Problem, invalid_fields
from sandbox.domain.fields import Amount, FailureCode, Probability, Text64, Text500, Uuid, about
from sandbox.domain.money import InvalidAmountError, parse_amount
from sandbox.domain.payout_states import FAILED, PENDING, PROCESSING, RETURNED, SUCCESS, TRANSITIONS
from sandbox.domain.scenario_engine import can_follow
from sandbox.http.body import decode
from sandbox.http.body_errors import FieldProblem
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.directory.destination import AccountNumber, Code, unknown_code
from sandbox.payouts.requests import CreatePayoutBody

MAX_RULES: Final = 100
"""Maximum number of rules per merchant. Every create checks all of them."""
MAX_WAIT_SECONDS: Final = 3650 * 86400
"""Maximum delay of a step in seconds: ten years."""

# Integers are accepted too: in JSON, 60 and 60.0 are the same number.
Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_WAIT_SECONDS)]
Position = Annotated[float, msgspec.Meta(ge=1, le=MAX_RULES, multiple_of=1)]
StepStatus = Literal["PROCESSING", "RETRY", "ON_HOLD", "IN_REVIEW", "SUCCESS", "FAILED", "CANCELLED", "RETURNED"]
Name = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[a-z][a-z0-9_]*\Z",
        extra={"must": "a string of 1 to 64 lowercase letters, digits and underscores that starts with a letter"},
    ),
]
HeaderValue = Annotated[
    str,
    msgspec.Meta(
        min_length=1, max_length=64, pattern=r"^[!-~]*\Z", extra={"must": "a string of 1 to 64 ASCII characters without spaces"}
    ),
]
Suffix = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=16, pattern=r"^[0-9]*\Z", extra={"must": "a string of 1 to 16 digits"}),
]


class RuleStep(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One status change, `after` seconds from the previous one. With a `probability` below 1, payouts may skip the step.

    A step to FAILED, CANCELLED or RETURNED ends the path: `PROCESSING, FAILED (0.5), SUCCESS` fails half of the payouts. After
    a step with `wait`, nothing happens automatically; the remaining steps follow a release to PROCESSING.
    """

    to: StepStatus
    after: Seconds = 0.0
    failure_code: FailureCode | UnsetType = UNSET
    psp_reference: Text64 | UnsetType = UNSET
    probability: Probability = 1.0
    wait: bool = False


class RuleMatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The conditions of a rule. A payout must meet all of them; at least one is required."""

    suffix: Suffix | UnsetType = UNSET
    account_number: AccountNumber | UnsetType = UNSET
    bank_code: Code | UnsetType = UNSET
    wallet_code: Code | UnsetType = UNSET
    amount_from: Amount | UnsetType = UNSET
    amount_to: Amount | UnsetType = UNSET
    user_id: Uuid | UnsetType = UNSET
    metadata: Annotated[dict[Text64, Text500], msgspec.Meta(min_length=1, max_length=20)] | UnsetType = UNSET
    scenario_header: HeaderValue | UnsetType = UNSET


class RuleBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /scenarios` and `PUT /scenarios/{id}`."""

    name: Name
    match: Annotated[RuleMatch, msgspec.Meta(extra_json_schema={"minProperties": 1})]
    steps: Annotated[list[RuleStep], msgspec.Meta(min_length=1, max_length=20)]
    position: Position | UnsetType = UNSET


class ExplainBody(CreatePayoutBody, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /scenarios/explain`: that of `POST /payouts`, plus the other facts that a rule can match.

    `rule` is a scenario that need not exist. It is tried as if it did: in place of your scenario of this name, else at its
    `position`, which is the last by default.
    """

    user_id: Annotated[Uuid | UnsetType, about("The user of the payout.")] = UNSET
    scenario_header: HeaderValue | UnsetType = UNSET
    rule: Annotated[RuleBody | UnsetType, about("A scenario to try as if you had added it.")] = UNSET


def check_rule(body: RuleBody, directory: Directory) -> tuple[str, str]:
    """Return a rule's match and steps as JSON, as they are stored.

    Raises VALIDATION_ERROR with every invalid field.
    """
    match: dict[str, Any] = {name: value for name, value in msgspec.structs.asdict(body.match).items() if value is not UNSET}
    errors: list[FieldProblem] = []
    for name in match.keys() & {"amount_from", "amount_to"}:
        try:
            match[name] = parse_amount(bytes(match[name]))
        except InvalidAmountError as error:
            errors.append((f"match.{name}", str(error)))
    errors += [error for error in match_errors(match, directory) if error[0] not in dict(errors)]
    errors += path_errors(body.steps)
    if errors:
        raise invalid_fields(errors)
    if "bank_code" in match:
        bank = directory.bank(match["bank_code"])
        # Payouts are stored with the bank's own code, even if they were created with an alias.
        match["bank_code"] = match["bank_code"] if bank is None else bank.code
    for name in match.keys() & {"amount_from", "amount_to"}:
        match[name] = str(match[name])
    return msgspec.json.encode(match).decode(), msgspec.json.encode(body.steps).decode()


def rule_errors(fields: Mapping[str, Any], directory: Directory) -> list[FieldProblem]:
    """Return the validation errors in a rule that its schema cannot express. Absent fields are skipped."""
    match, steps = fields.get("match"), fields.get("steps")
    errors = [] if match is None else match_errors(match, directory)
    if steps is not None and all("to" in step for step in steps):
        errors += path_errors([RuleStep(**step) for step in steps])
    return errors


def match_errors(match: Mapping[str, Any], directory: Directory) -> list[FieldProblem]:
    """Return the validation errors in a rule's match. An amount that is not a Decimal is skipped."""
    errors: list[FieldProblem] = []
    if not match:
        errors.append(("match", "must have at least one condition"))
    low, high = match.get("amount_from"), match.get("amount_to")
    if isinstance(low, Decimal) and isinstance(high, Decimal) and low > high:
        errors.append(("match.amount_to", f"must not be less than amount_from ({low})"))
    bank_code, wallet_code = match.get("bank_code"), match.get("wallet_code")
    if bank_code is not None and directory.bank(bank_code) is None:
        errors.append(("match.bank_code", unknown_code("BANK", bank_code, directory)))
    if wallet_code is not None and directory.wallet(wallet_code) is None:
        errors.append(("match.wallet_code", unknown_code("WALLET", wallet_code, directory)))
    return errors


def path_errors(steps: list[RuleStep]) -> list[FieldProblem]:
    """Return the validation errors in a path that starts from PENDING, up to the first illegal change.

    Every change must be legal, whichever steps with a probability below 1 are skipped. Every step must be reachable: a payout
    that has reached FAILED, CANCELLED or RETURNED takes no further steps.
    """
    errors: list[FieldProblem] = []
    for number, step in enumerate(steps):
        if step.failure_code is not UNSET and step.to not in (FAILED, RETURNED):
            message = f"is only allowed on a step to {FAILED} or {RETURNED}; omit it on a step to {step.to}"
            errors.append((f"steps[{number}].failure_code", message))
        if step.psp_reference is not UNSET and step.to != SUCCESS:
            message = f"is only allowed on a step to {SUCCESS}; omit it on a step to {step.to}"
            errors.append((f"steps[{number}].psp_reference", message))
    # The statuses that payouts can have before a step, each with whether a release after a wait led to it. A release moves the
    # payout to PROCESSING, so a step to PROCESSING right after the wait is the release itself.
    before = {(PENDING, False)}
    for number, step in enumerate(steps):
        reaching = {(status, released) for status, released in before if can_follow(status, step.to)}
        if not reaching:
            errors.append((f"steps[{number}].to", _unreachable(step.to, {status for status, _ in before})))
            break
        illegal = [(status, released) for status, released in sorted(reaching) if not _is_legal(status, step.to, released)]
        if illegal:
            errors.append((f"steps[{number}].to", _illegal(step.to, *illegal[0])))
            break
        if step.wait and number < len(steps) - 1 and not _is_legal(step.to, PROCESSING):
            message = f"a payout in {step.to} cannot be released to {PROCESSING}, so no later step would run"
            errors.append((f"steps[{number}].wait", f"is only allowed on the last step: {message}"))
            break
        # Payouts that skip the step keep their status, and those that have ended never take it.
        not_taking = before if step.probability < 1 else before - reaching
        before = not_taking | {(PROCESSING, True) if step.wait else (step.to, False)}
    return errors


def _unreachable(target: str, ended: set[str]) -> str:
    if ended == {SUCCESS}:
        return f"cannot be {target}: only {RETURNED} can follow {SUCCESS}"
    return (
        f"cannot be {target}: every payout has already ended in {' or '.join(sorted(ended))}; "
        f"remove this step, or give an earlier step to {' or '.join(sorted(ended))} a probability below 1"
    )


def _illegal(target: str, status: str, released: bool) -> str:
    allowed = [other for other in get_args(StepStatus) if _is_legal(status, other, released)]
    return f"cannot be {target}: a payout can be in {status} before this step, and only {_any_of(allowed)} can follow {status}"


def _any_of(names: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _is_legal(source: str, target: str, released: bool = False) -> bool:
    # FAILED → PENDING is a new attempt, which only the merchant can start.
    return source != FAILED and ((source, target) in TRANSITIONS or (released and target == PROCESSING))


def parse_rules(text: str, directory: Directory) -> list[RuleBody]:
    """Return rules from TOML in the format of the built-in catalogue. Raises ValueError, which names the error's place."""
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not valid TOML: {error}") from None
    found = entries.get("scenario")
    if set(entries) != {"scenario"} or not isinstance(found, list) or not 1 <= len(found) <= MAX_RULES:
        raise ValueError(f"the file must contain 1 to {MAX_RULES} [[scenario]] tables and nothing else")
    decoder = msgspec.json.Decoder(RuleBody)
    rules: list[RuleBody] = []
    for number, entry in enumerate(found, 1):
        try:
            # Convert to JSON, so that a file passes exactly the same checks as a request.
            rules.append(decode(decoder, msgspec.json.encode(entry), lambda fields: rule_errors(fields, directory)))
            check_rule(rules[-1], directory)
        except Problem as problem:
            errors = "; ".join(f"{field}: {message}" for field, message in problem.errors)
            raise ValueError(f"scenario {number}: {errors}") from None
    names = [rule.name for rule in rules]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"more than one scenario is named {repeated!r}")
    return rules
