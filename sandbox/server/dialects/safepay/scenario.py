"""What `psp dialect compare safepay` asks both sides.

The open questions come first among the requests that create something: a repeated `request_id`, and too little money.
"""

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from sandbox.server.dialects.comparison import Ask, Comparison, Scenario
from sandbox.server.dialects.safepay.objects import aggregator_of

IBAN: Final = "PK25ALFH0216001008658216"
"""An account of Safepay's own examples."""
_AMOUNT: Final = "1.50"
"""Small, and not whole, so that its form says whether it is in rupees or in paisa."""
_TOO_MUCH: Final = "999999999.00"
_STATUS: Final = frozenset({"status", "updated_at"})


def comparison(new_id: Callable[[], UUID]) -> Comparison:
    """Return how Safepay is compared. `new_id` returns a random UUID."""
    return Comparison(
        scenario=lambda account: _scenario(account, new_id),
        account_of=aggregator_of,
        test_hosts=frozenset({"dev.api.getsafepay.com"}),
        live_keys=("sk_live_",),
    )


def _scenario(account: str, new_id: Callable[[], UUID]) -> Scenario:
    base = f"/v1/aggregators/{account}"

    def get(name: str, path: str, **options: Any) -> Ask:
        return Ask(name=name, method="GET", path=base + path, **options)

    def pay(name: str, body: dict[str, Any], **options: Any) -> Ask:
        return Ask(name=name, method="POST", path=f"{base}/payout", body=body, **options)

    yield get("the ledger account", "/ledger/accounts")
    yield get("the holder of an IBAN", "/title-fetch", query={"iban": IBAN})
    yield get("the holder of an invalid IBAN", "/title-fetch", query={"iban": "PK00"})
    yield get("a wrong key", "/payments", has_wrong_key=True)
    yield get("an unknown payment", f"/payments/pm_{new_id()}")
    body = {"request_id": str(new_id()), "amount": _AMOUNT, "creditor_iban": IBAN}
    made = yield pay("a payout", body)
    token = made["data"]["token"]
    yield pay("the same payout again", body, varying=_STATUS)
    yield pay("the same request_id with another amount", body | {"amount": "2.50"})
    yield get("a payment", f"/payments/{token}", varying=_STATUS)
    yield get("the payment by its request_id", "/payments", query={"request_id": body["request_id"]}, varying=_STATUS)
    yield get("what it costs", f"/payments/{token}/charges")
    yield pay("an amount that is a number", body | {"request_id": str(new_id()), "amount": 1})
    yield pay("more than the balance", body | {"request_id": str(new_id()), "amount": _TOO_MUCH}, varying=_STATUS)
    yield get("the endpoints", "/webhooks")
    yield get("the keys", "/keys")
