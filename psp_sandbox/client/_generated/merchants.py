"""Create and delete merchants. Each has its own isolated data and clock."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import Iterator
from datetime import datetime

from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Amount, Call, given, new_key, query, segment
from psp_sandbox.client.models.merchants import Merchant, NewMerchant


class MerchantsApi:
    """Create and delete merchants. Each has its own isolated data and clock."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(self, *, limit: int | None = None) -> Iterator[Merchant]:
        """List merchants, newest first.

        Needs the operator's key.

        Requests each page when it is needed; `limit` is the number of items per page.
        """
        return self._caller.pages(
            Call(Merchant, "GET", "/sandbox/v1/merchants", query=query({"limit": limit}), auth="operator")
        )

    def create(
        self,
        name: str,
        *,
        opening_balance: Amount | None = None,
        webhook_url: str | None = None,
        seed: int | None = None,
        frozen_at: datetime | str | None = None,
        idempotency_key: str | None = None,
    ) -> NewMerchant:
        """Create a merchant with its own isolated sandbox.

        With `seed`, ids, jitter and faults repeat exactly. With `frozen_at`, the clock is frozen at that time from the
        start, and again after each reset. Needs the operator's key.

        webhook_url: http:// or https://, with no user name or password; an IPv4 address is four decimal numbers;
            private addresses may be rejected.
        """
        return self._caller.send(
            Call(
                NewMerchant,
                "POST",
                "/sandbox/v1/merchants",
                body=given(
                    {
                        "name": name,
                        "opening_balance": opening_balance,
                        "webhook_url": webhook_url,
                        "seed": seed,
                        "frozen_at": frozen_at,
                    }
                ),
                idempotency_key=idempotency_key or new_key(),
                auth="operator",
            )
        )

    def delete(self, merchant_id: str, *, idempotency_key: str | None = None) -> None:
        """Delete a merchant and all its data.

        Needs the operator's key.

        Raises NotFound.
        """
        self._caller.send(
            Call(
                type(None),
                "DELETE",
                f"/sandbox/v1/merchants/{segment(merchant_id)}",
                idempotency_key=idempotency_key or new_key(),
                auth="operator",
            )
        )
