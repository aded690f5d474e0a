"""The merchant's balance and its ledger entries. Add money."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Literal

from psp_sandbox.client._callers import AsyncCaller
from psp_sandbox.client._calls import Amount, Call, given, new_key, query
from psp_sandbox.client.models.shared import Balance, LedgerEntry


class AsyncBalanceApi:
    """The merchant's balance and its ledger entries. Add money."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def get(self) -> Balance:
        """Get the balance."""
        return await self._caller.send(Call(Balance, "GET", "/api/v1/balance"))

    def history(
        self,
        *,
        limit: int | None = None,
        payout_id: str | None = None,
        account: Literal["AVAILABLE", "LOCKED"] | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
    ) -> AsyncIterator[LedgerEntry]:
        """List ledger entries, newest first.

        Requests each page when it is needed; `limit` is the number of items per page.

        payout_id: Only entries for this payout.
        account: Only entries on this account.
        created_from: Only items created at or after this time.
        created_to: Only items created before this time.
        """
        return self._caller.pages(
            Call(
                LedgerEntry,
                "GET",
                "/api/v1/balance/history",
                query=query(
                    {
                        "limit": limit,
                        "payout_id": payout_id,
                        "account": account,
                        "created_from": created_from,
                        "created_to": created_to,
                    }
                ),
            )
        )

    async def top_up(self, amount: Amount, *, idempotency_key: str | None = None) -> Balance:
        """Top up the available balance."""
        return await self._caller.send(
            Call(
                Balance,
                "POST",
                "/sandbox/v1/balance/top-up",
                body=given({"amount": amount}),
                idempotency_key=idempotency_key or new_key(),
            )
        )
