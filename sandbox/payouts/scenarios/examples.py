"""Examples of payouts that follow a scenario. Pure."""

from decimal import Decimal
from typing import Final

from sandbox.domain.sale import failure_of
from sandbox.domain.scenario_engine import Facts, Match, Scenario

_ACCOUNT: Final = "12345678900099"
"""An account number that no built-in scenario matches."""
_AMOUNT: Final = Decimal("1500.00")


def example_of(match: Match, bank_code: str) -> Facts:
    """Return a payout that meets the conditions on its amount, destination and account, in a bank unless they name a wallet."""
    amount = _AMOUNT
    if match.amount_from is not None:
        amount = max(amount, match.amount_from)
    if match.amount_to is not None:
        amount = min(amount, match.amount_to)
    account_number = match.account_number
    if account_number is None:
        suffix = match.suffix or ""
        length = max(len(_ACCOUNT), len(suffix))
        account_number = _ACCOUNT.ljust(length, "0")[: length - len(suffix)] + suffix
    bank = None if match.wallet_code else match.bank_code or bank_code
    return Facts(amount, account_number, bank, match.wallet_code, None, {})


def sale_payments(scenario: Scenario, example: Facts) -> str:
    """Return whether a user with the example's account receives the payments of sales: `paid`, `failed` or `random`."""
    own = [scenario] if scenario.id is not None else []
    if own and scenario.match.matches(example) and any(step.probability < 1 for step in scenario.steps):
        return "random"
    return "paid" if failure_of(example, own, "") is None else "failed"
