"""A merchant's own scenarios: what a rule must be. Pure."""

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.body import decode
from sandbox.domain.body_errors import Fault
from sandbox.domain.directory import Directory
from sandbox.domain.errors import Problem, all_invalid
from sandbox.domain.fields import Amount, FailureCode, Text64, Text500, Uuid
from sandbox.domain.money import InvalidAmountError, parse_amount
from sandbox.domain.payout_states import FAILED, PENDING, PROCESSING, RETURNED, SUCCESS, TRANSITIONS
from sandbox.domain.scenario_engine import goes_on
from sandbox.payouts.requests import AccountNumber, Code, CreatePayoutBody, unknown_code

LARGEST_COUNT: Final = 100
"""Rules of one merchant: every create looks at them."""
LONGEST_WAIT: Final = 3650 * 86400
"""Seconds that a step may wait: ten years."""

# JSON knows one kind of number: 60 and 60.0 are the same.
Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_WAIT)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Position = Annotated[float, msgspec.Meta(ge=1, le=LARGEST_COUNT, multiple_of=1)]
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
    """One change, `after` this many seconds from the previous one. With a `probability`, the step may be skipped.

    A final step that is taken ends the path: `PROCESSING, FAILED (0.5), SUCCESS` fails half of them. After a step with
    `wait`, nothing happens by itself; the remaining steps follow a release to PROCESSING.
    """

    to: Literal["PROCESSING", "RETRY", "ON_HOLD", "IN_REVIEW", "SUCCESS", "FAILED", "CANCELLED", "RETURNED"]
    after: Seconds = 0.0
    failure_code: FailureCode | UnsetType = UNSET
    psp_reference: Text64 | UnsetType = UNSET
    probability: Probability = 1.0
    wait: bool = False


class RuleMatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The conditions of a rule. All given ones must hold, and at least one is required."""

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
    """The body of `POST /scenarios/explain`: as of `POST /payouts`, and what a rule may look at besides."""

    user_id: Uuid | UnsetType = UNSET
    scenario_header: HeaderValue | UnsetType = UNSET


def check_rule(body: RuleBody, directory: Directory) -> tuple[str, str]:
    """The JSON of a rule's match and of its steps, as they are stored.

    Raises VALIDATION_ERROR, naming every member at fault.
    """
    match: dict[str, Any] = {name: value for name, value in msgspec.structs.asdict(body.match).items() if value is not UNSET}
    errors: list[Fault] = []
    for name in match.keys() & {"amount_from", "amount_to"}:
        try:
            match[name] = parse_amount(bytes(match[name]))
        except InvalidAmountError as error:
            errors.append((f"match.{name}", str(error)))
    errors += [fault for fault in match_faults(match, directory) if fault[0] not in dict(errors)]
    errors += path_faults(body.steps)
    if errors:
        raise all_invalid(errors)
    if "bank_code" in match:
        bank = directory.bank(match["bank_code"])
        # A payout has its bank's own code, whichever alias it was created with.
        match["bank_code"] = match["bank_code"] if bank is None else bank.code
    for name in match.keys() & {"amount_from", "amount_to"}:
        match[name] = str(match[name])
    return msgspec.json.encode(match).decode(), msgspec.json.encode(body.steps).decode()


def rule_faults(members: Mapping[str, Any], directory: Directory) -> list[Fault]:
    """What the type cannot say of a rule's members, as far as they are there."""
    match, steps = members.get("match"), members.get("steps")
    faults = [] if match is None else match_faults(match, directory)
    if steps is not None and all("to" in step for step in steps):
        faults += path_faults([RuleStep(**step) for step in steps])
    return faults


def match_faults(match: Mapping[str, Any], directory: Directory) -> list[Fault]:
    """What is wrong with a rule's match; amounts are Decimals, and what is no amount is not looked at."""
    faults: list[Fault] = []
    if not match:
        faults.append(("match", "must have at least one condition"))
    low, high = match.get("amount_from"), match.get("amount_to")
    if isinstance(low, Decimal) and isinstance(high, Decimal) and low > high:
        faults.append(("match.amount_to", "must not be below amount_from"))
    bank_code, wallet_code = match.get("bank_code"), match.get("wallet_code")
    if bank_code is not None and directory.bank(bank_code) is None:
        faults.append(("match.bank_code", unknown_code("BANK", bank_code, directory)))
    if wallet_code is not None and directory.wallet(wallet_code) is None:
        faults.append(("match.wallet_code", unknown_code("WALLET", wallet_code, directory)))
    return faults


def path_faults(steps: list[RuleStep]) -> list[Fault]:
    """What is wrong with a path that starts from PENDING: each member at fault, and why; only the first illegal change.

    A step that may be left out must be legal both ways, and every step must be one that some payout comes to: a final one that
    is taken ends the path.
    """
    faults: list[Fault] = []
    for number, step in enumerate(steps):
        if step.failure_code is not UNSET and step.to not in (FAILED, RETURNED):
            faults.append((f"steps[{number}].failure_code", f"is for a step to {FAILED} or {RETURNED}"))
        if step.psp_reference is not UNSET and step.to != SUCCESS:
            faults.append((f"steps[{number}].psp_reference", f"is for a step to {SUCCESS}"))
    # Where a payout may stand, and whether it waited and was put to PROCESSING by hand: a step to PROCESSING that comes
    # next then stands for that.
    places = {(PENDING, False)}
    for number, step in enumerate(steps):
        going = {place for place in places if goes_on(place[0], step.to)}
        if not going:
            ended = " or ".join(sorted({place for place, _ in places}))
            faults.append((f"steps[{number}].to", f"cannot be {step.to}: every payout has ended in {ended} by then"))
            break
        wrong = [place for place, released in sorted(going) if not _may_go(place, step.to, released=released)]
        if wrong:
            faults.append((f"steps[{number}].to", f"cannot be {step.to}: a payout may be in {wrong[0]} then"))
            break
        if step.wait and number < len(steps) - 1 and not _may_go(step.to, PROCESSING):
            faults.append((f"steps[{number}].wait", f"must be the end: a payout in {step.to} cannot be released"))
            break
        # A step that is left out leaves its payout where it stood; what has ended stays out of it.
        left_out = places if step.probability < 1 else places - going
        places = left_out | {(PROCESSING, True) if step.wait else (step.to, False)}
    return faults


def _may_go(source: str, target: str, *, released: bool = False) -> bool:
    # FAILED → PENDING is a new try, which only the merchant begins.
    return source != FAILED and ((source, target) in TRANSITIONS or (released and target == PROCESSING))


def parse_rules(text: str, directory: Directory) -> list[RuleBody]:
    """Rules from TOML in the form of the built-in catalogue. Raises ValueError with a sentence that says where."""
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML: {error}") from None
    found = entries.get("scenario")
    if set(entries) != {"scenario"} or not isinstance(found, list) or not 1 <= len(found) <= LARGEST_COUNT:
        raise ValueError(f"it must hold 1 to {LARGEST_COUNT} [[scenario]] tables and nothing else")
    decoder = msgspec.json.Decoder(RuleBody)
    rules: list[RuleBody] = []
    for number, entry in enumerate(found, 1):
        try:
            # By way of JSON, so that a file is judged exactly as a request is.
            rules.append(decode(decoder, msgspec.json.encode(entry), lambda members: rule_faults(members, directory)))
            check_rule(rules[-1], directory)
        except Problem as problem:
            where = "; ".join(f"{field}: {message}" for field, message in problem.errors)
            raise ValueError(f"scenario {number}: {where}") from None
    names = [rule.name for rule in rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the name {twice!r} is given twice")
    return rules
