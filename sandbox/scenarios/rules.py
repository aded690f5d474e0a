"""A merchant's own scenarios: what a rule must be. Pure."""

import tomllib
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.directory.catalogue import Directory
from sandbox.errors import Problem
from sandbox.fields import FailureCode, Text64, Text500, Uuid
from sandbox.http.body import decode
from sandbox.money import InvalidAmountError, parse_amount
from sandbox.payouts.requests import AccountNumber, Code, CreatePayoutBody
from sandbox.payouts.states import CHANGES, FAILED, PENDING, PROCESSING, RETURNED, SUCCESS

LARGEST_COUNT: Final = 100
"""Rules of one merchant: every create looks at them."""
LONGEST_WAIT: Final = 3650 * 86400
"""Seconds that a step may wait: ten years."""

# JSON knows one kind of number: 60 and 60.0 are the same.
Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_WAIT)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Position = Annotated[float, msgspec.Meta(ge=1, le=LARGEST_COUNT, multiple_of=1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_]*\Z")]
HeaderValue = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[!-~]*\Z")]
Suffix = Annotated[str, msgspec.Meta(min_length=1, max_length=16, pattern=r"^[0-9]*\Z")]


class RuleStep(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One change: `after` so many seconds from the change before it, with `probability`, else the next step follows.

    After a step that says `wait` nothing happens by itself; the steps behind it follow a release to PROCESSING.
    """

    to: Literal["PROCESSING", "RETRY", "ON_HOLD", "IN_REVIEW", "SUCCESS", "FAILED", "CANCELLED", "RETURNED"]
    after: Seconds = 0.0
    failure_code: FailureCode | UnsetType = UNSET
    psp_reference: Text64 | UnsetType = UNSET
    probability: Probability = 1.0
    wait: bool = False


class RuleMatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What chooses a rule: everything given must hold, and something must be given."""

    suffix: Suffix | UnsetType = UNSET
    account_number: AccountNumber | UnsetType = UNSET
    bank_code: Code | UnsetType = UNSET
    wallet_code: Code | UnsetType = UNSET
    amount_from: msgspec.Raw | UnsetType = UNSET
    amount_to: msgspec.Raw | UnsetType = UNSET
    user_id: Uuid | UnsetType = UNSET
    metadata: Annotated[dict[Text64, Text500], msgspec.Meta(min_length=1, max_length=20)] | UnsetType = UNSET
    scenario_header: HeaderValue | UnsetType = UNSET


class RuleBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /scenarios` and `PUT /scenarios/{id}`."""

    name: Name
    match: Annotated[RuleMatch, msgspec.Meta(extra_json_schema={"minProperties": 1})]
    steps: Annotated[list[RuleStep], msgspec.Meta(min_length=1, max_length=20)]
    position: Position | UnsetType = UNSET


class DefaultBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `PUT /scenarios/default`."""

    name: Literal["success", "pending", "failed"]


class ExplainBody(CreatePayoutBody, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /scenarios/explain`: as of `POST /payouts`, and what a rule may look at besides."""

    user_id: Uuid | UnsetType = UNSET
    scenario_header: HeaderValue | UnsetType = UNSET


def check_rule(body: RuleBody, directory: Directory) -> tuple[str, str]:
    """The JSON of a rule's match and of its steps, as they are stored.

    Raises VALIDATION_ERROR, naming every member at fault.
    """
    errors: list[tuple[str, str]] = []
    match: dict[str, Any] = {name: value for name, value in msgspec.structs.asdict(body.match).items() if value is not UNSET}
    if not match:
        errors.append(("match", "must say at least one thing that chooses the rule"))
    bounds = []
    for name in match.keys() & {"amount_from", "amount_to"}:
        try:
            bounds.append((name, parse_amount(bytes(match[name]))))
            match[name] = str(bounds[-1][1])
        except InvalidAmountError as error:
            errors.append((f"match.{name}", str(error)))
    if len(bounds) == 2 and dict(bounds)["amount_from"] > dict(bounds)["amount_to"]:
        errors.append(("match.amount_to", "must not be below amount_from"))
    errors += _resolve_codes(match, directory)
    errors += path_faults(body.steps)
    if errors:
        raise Problem("VALIDATION_ERROR", "; ".join(f"{field} {message}" for field, message in errors) + ".", errors=errors)
    return msgspec.json.encode(match).decode(), msgspec.json.encode(body.steps).decode()


def path_faults(steps: list[RuleStep]) -> list[tuple[str, str]]:
    """What is wrong with a path that starts from PENDING: each member at fault, and why; only the first illegal change.

    A step that may be left out must be legal both ways.
    """
    faults: list[tuple[str, str]] = []
    for number, step in enumerate(steps):
        if step.failure_code is not UNSET and step.to not in (FAILED, RETURNED):
            faults.append((f"steps[{number}].failure_code", f"is for a step to {FAILED} or {RETURNED}"))
        if step.psp_reference is not UNSET and step.to != SUCCESS:
            faults.append((f"steps[{number}].psp_reference", f"is for a step to {SUCCESS}"))
    # Where a payout may stand, and whether it waited and was put to PROCESSING by hand: a step to PROCESSING that comes
    # next then stands for that.
    places = {(PENDING, False)}
    for number, step in enumerate(steps):
        wrong = [place for place, released in sorted(places) if not _may_go(place, step.to, released=released)]
        if wrong:
            faults.append((f"steps[{number}].to", f"cannot be {step.to}: a payout may be in {wrong[0]} then"))
            break
        if step.wait and number < len(steps) - 1 and not _may_go(step.to, PROCESSING):
            faults.append((f"steps[{number}].wait", f"must be the end: a payout in {step.to} cannot be released"))
            break
        # A step that is left out leaves its payout where it stood.
        left_out = places if step.probability < 1 else set()
        places = left_out | {(PROCESSING, True) if step.wait else (step.to, False)}
    return faults


def _may_go(source: str, target: str, *, released: bool = False) -> bool:
    # FAILED → PENDING is a new try, which only the merchant begins.
    return source != FAILED and ((source, target) in CHANGES or (released and target == PROCESSING))


def _resolve_codes(match: dict[str, Any], directory: Directory) -> list[tuple[str, str]]:
    """Put the directory's own codes in the place of aliases: a payout has its bank's own code."""
    errors = []
    if "bank_code" in match:
        bank = directory.bank(match["bank_code"])
        if bank is None:
            errors.append(("match.bank_code", "must be a code or alias of GET /api/v1/directory"))
        else:
            match["bank_code"] = bank.code
    if "wallet_code" in match and directory.wallet(match["wallet_code"]) is None:
        errors.append(("match.wallet_code", "must be a code of GET /api/v1/directory"))
    return errors


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
            rules.append(decode(decoder, msgspec.json.encode(entry)))
            check_rule(rules[-1], directory)
        except Problem as problem:
            where = "; ".join(f"{field}: {message}" for field, message in problem.errors)
            raise ValueError(f"scenario {number}: {where}") from None
    names = [rule.name for rule in rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the name {twice!r} is given twice")
    return rules
