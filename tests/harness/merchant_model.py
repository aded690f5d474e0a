"""A small model of a merchant: its balance, and its payouts with their status history."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import permutations

STEPS: Mapping[str, Sequence[tuple[str, int]]] = {
    "0001": (("PROCESSING", 0), ("SUCCESS", 0)),
    "0002": (("PROCESSING", 0), ("RETRY", 0), ("PROCESSING", 2), ("SUCCESS", 0)),
    "0003": (("PROCESSING", 0), ("FAILED", 0)),
    "0004": (),
    "0012": (("PROCESSING", 0), ("SUCCESS", 0), ("RETURNED", 60)),
    "0013": (("PROCESSING", 0), ("SUCCESS", 30)),
    "0014": (("PROCESSING", 0), ("FAILED", 30)),
}
"""By account suffix: the statuses that follow, each with its delay in seconds after the previous one."""
_UNPAID = ("FAILED", "RETURNED", "CANCELLED", "REJECTED")
_DECISIONS = {
    "approve": (("REQUESTED",), "PENDING"),
    "reject": (("REQUESTED",), "REJECTED"),
    "cancel": (("REQUESTED", "PENDING"), "CANCELLED"),
}
"""By action: the statuses that it applies to, and the status that it leads to."""

Result = tuple[int, str]
"""A response: its HTTP status, and the problem's code or an empty string."""


@dataclass(frozen=True)
class Payout:
    """A payout in the model.

    `path` is its status history, `step` the number of its scenario's steps taken so far, and `since` the time of the last
    change in seconds of the model's clock.
    """

    amount: Decimal
    suffix: str
    path: tuple[str, ...]
    step: int = 0
    since: int = 0

    @property
    def status(self) -> str:
        """The current status."""
        return self.path[-1]

    @property
    def locked(self) -> Decimal:
        """The amount of the balance that it locks."""
        return Decimal(0) if self.status in ("SUCCESS", *_UNPAID) else self.amount


@dataclass
class MerchantModel:
    """A merchant in the model. Each method performs the request of the same name and returns the expected response.

    Steps without a delay are taken immediately. The sandbox's workers need a moment for them, so poll until
    the sandbox's state equals `view`.
    """

    available: Decimal
    payouts: dict[str, Payout] = field(default_factory=dict)
    """By merchant reference."""
    now: int = 0

    def create(self, reference: str, amount: Decimal, suffix: str, approval: bool) -> Result:
        """Create a payout, or refuse it if the balance is too low."""
        if amount > self.available:
            return 422, "INSUFFICIENT_BALANCE"
        self.available -= amount
        self.payouts[reference] = Payout(amount, suffix, ("REQUESTED" if approval else "PENDING",), since=self.now)
        self._run_due(reference)
        return 201, ""

    def decide(self, reference: str, action: str) -> Result:
        """Approve, reject or cancel a payout, or refuse if its status does not allow the action."""
        sources, target = _DECISIONS[action]
        payout = self.payouts[reference]
        if payout.status not in sources:
            return 409, "INVALID_STATE"
        self._enter(reference, replace(payout, since=self.now), target)
        self._run_due(reference)
        return 200, ""

    def top_up(self, amount: Decimal) -> Result:
        """Add to the balance."""
        self.available += amount
        return 200, ""

    def advance(self, seconds: int) -> Result:
        """Advance the clock and take the steps that become due."""
        self.now += seconds
        for reference in self.payouts:
            self._run_due(reference)
        return 200, ""

    def view(self) -> tuple[str, str, dict[str, str]]:
        """Return the available balance, the locked balance, and the status of each payout by reference."""
        locked = sum((payout.locked for payout in self.payouts.values()), Decimal("0.00"))
        return f"{self.available:.2f}", f"{locked:.2f}", {name: payout.status for name, payout in self.payouts.items()}

    def copy(self) -> "MerchantModel":
        """Return an independent copy."""
        return replace(self, payouts=dict(self.payouts))

    def _run_due(self, reference: str) -> None:
        payout = self.payouts[reference]
        while payout.status not in ("REQUESTED", "CANCELLED", "REJECTED") and payout.step < len(STEPS[payout.suffix]):
            target, delay = STEPS[payout.suffix][payout.step]
            if payout.since + delay > self.now:
                return
            payout = self._enter(reference, replace(payout, step=payout.step + 1, since=payout.since + delay), target)

    def _enter(self, reference: str, payout: Payout, status: str) -> Payout:
        if status in _UNPAID:
            self.available += payout.amount
        self.payouts[reference] = replace(payout, path=(*payout.path, status))
        return self.payouts[reference]


def outcomes(
    models: Iterable[MerchantModel], calls: Sequence[tuple[Callable[[MerchantModel], Result], Result]]
) -> list[MerchantModel]:
    """Return every state that concurrent requests can lead to from any of the given states.

    `calls` has each request with the response received for it. A state is possible if some order of the requests, run
    one by one in the model, gives exactly these responses. The result is empty if there is no such order.
    """
    found: list[MerchantModel] = []
    for model in models:
        for order in permutations(calls):
            after = model.copy()
            if all(call(after) == result for call, result in order) and after not in found:
                found.append(after)
    return found
