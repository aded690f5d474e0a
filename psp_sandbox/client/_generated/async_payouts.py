"""Create payouts, follow them, and approve, reject or cancel them. Also pays for sales. Set the status of payouts
manually, and list what can be done with them.
"""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

import builtins
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Literal

from psp_sandbox.client import inputs
from psp_sandbox.client._callers import AsyncCaller
from psp_sandbox.client._calls import Amount, Call, given, new_key, query, segment
from psp_sandbox.client.literals import PayoutStatus, WalletCode
from psp_sandbox.client.models.payouts import (
    CreatedPayout,
    PayoutActions,
    RequestedTotal,
    TimelineEntry,
)
from psp_sandbox.client.models.shared import (
    Payout,
    RefusedItem,
)


class AsyncPayoutsApi:
    """Create payouts, follow them, and approve, reject or cancel them. Also pays for sales. Set the status of payouts
    manually, and list what can be done with them.
    """

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    def list(
        self,
        *,
        limit: int | None = None,
        status: PayoutStatus | Sequence[PayoutStatus] | None = None,
        metadata: Mapping[str, str] | None = None,
        dest_type: Literal["BANK", "WALLET"] | None = None,
        merchant_reference: str | None = None,
        user_id: str | None = None,
        q: str | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
    ) -> AsyncIterator[Payout]:
        """List payouts, newest first.

        Requests each page when it is needed; `limit` is the number of items per page.

        status: Only payouts with one of these statuses.
        metadata: Only payouts with this pair in their metadata: `metadata[order]=17`.
        dest_type: Only payouts to this type of destination.
        merchant_reference: Only the payout with this reference.
        user_id: Only payouts of this user.
        q: Only payouts that this text finds. First those that it identifies, however old they are: by merchant
            reference, by the beginning of the id, or by the user's id or external id. Then those whose reference,
            account number, account title or id contains it. Both are newest first. A page that has searched 5000
            payouts ends there, even if it is empty; the next page continues.
        created_from: Only items created at or after this time.
        created_to: Only items created before this time.
        """
        return self._caller.pages(
            Call(
                Payout,
                "GET",
                "/api/v1/payouts",
                query=query(
                    {
                        "limit": limit,
                        "status": status,
                        "metadata": metadata,
                        "dest_type": dest_type,
                        "merchant_reference": merchant_reference,
                        "user_id": user_id,
                        "q": q,
                        "created_from": created_from,
                        "created_to": created_to,
                    }
                ),
            )
        )

    async def create(
        self,
        *,
        merchant_reference: str,
        amount: Amount,
        dest_type: Literal["BANK", "WALLET"],
        account_number: str,
        currency: Literal["PKR"] | None = None,
        bank_code: str | None = None,
        account_title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        requires_approval: bool | None = None,
        wallet_code: WalletCode | None = None,
        scenario: str | None = None,
        idempotency_key: str | None = None,
    ) -> Payout:
        """Create a payout.

        The last four digits of the account number choose the scenario, unless an `X-Sandbox-Scenario` header names one.
        See the list of scenarios.

        account_number: 10 to 16 digits, or a Pakistani IBAN of this bank or wallet (its check digits are verified). The
            last four digits choose the scenario.
        scenario: The name of a scenario, instead of the one that the account number chooses.

        Raises DuplicateReference, InsufficientBalance.
        """
        return await self._caller.send(
            Call(
                Payout,
                "POST",
                "/api/v1/payouts",
                body=given(
                    {
                        "merchant_reference": merchant_reference,
                        "amount": amount,
                        "currency": currency,
                        "dest_type": dest_type,
                        "bank_code": bank_code,
                        "account_number": account_number,
                        "account_title": account_title,
                        "metadata": metadata,
                        "requires_approval": requires_approval,
                        "wallet_code": wallet_code,
                    }
                ),
                headers={"X-Sandbox-Scenario": scenario},
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def create_batch(
        self, payouts: Sequence[inputs.CreatePayout], *, idempotency_key: str | None = None
    ) -> builtins.list[CreatedPayout | RefusedItem]:
        """Create up to 1000 payouts, each independently.

        Results are in the order of the items. An invalid item is reported in its result and does not stop the others.
        The whole request is refused only if it is not valid JSON or not a list of 1 to 1000 items. The body is limited
        to 2 MiB.
        """
        return await self._caller.send(
            Call(
                list[CreatedPayout | RefusedItem],
                "POST",
                "/api/v1/payouts/batch",
                body=given({"payouts": payouts}),
                member="results",
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def requests(self, *, limit: int | None = None) -> AsyncIterator[RequestedTotal]:
        """List users with payout requests waiting for approval.

        Requests each page when it is needed; `limit` is the number of items per page.
        """
        return self._caller.pages(Call(RequestedTotal, "GET", "/api/v1/payouts/requests", query=query({"limit": limit})))

    async def get(
        self, payout_id: str, *, wait_for: PayoutStatus | Sequence[PayoutStatus] | None = None, timeout: float | None = None
    ) -> Payout:
        """Get a payout, or first wait until it reaches a status.

        wait_for: Delay the response until the payout is in one of these statuses, has been in one since it was last
            reinitiated, or has ended in another status (FAILED, CANCELLED, REJECTED, RETURNED).
        timeout: Seconds of real time to wait. After that, the response is the payout in its current status.

        Raises NotFound.
        """
        return await self._caller.send(
            Call(
                Payout,
                "GET",
                f"/api/v1/payouts/{segment(payout_id)}",
                query=query({"wait_for": wait_for, "timeout": timeout}),
                waits=timeout or 0.0,
            )
        )

    async def approve(self, payout_id: str, *, idempotency_key: str | None = None) -> Payout:
        """Approve a payout.

        Needs a key with the `admin` role.

        Raises Forbidden, NotFound, InvalidState.
        """
        return await self._caller.send(
            Call(
                Payout,
                "PATCH",
                f"/api/v1/payouts/{segment(payout_id)}/approve",
                body=given({}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def cancel(self, payout_id: str, *, idempotency_key: str | None = None) -> Payout:
        """Cancel a payout.

        Raises NotFound, InvalidState.
        """
        return await self._caller.send(
            Call(
                Payout,
                "POST",
                f"/api/v1/payouts/{segment(payout_id)}/cancel",
                body=given({}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def reinitiate(self, payout_id: str, *, idempotency_key: str | None = None) -> Payout:
        """Retry a failed payout.

        Raises NotFound, InvalidState, InsufficientBalance.
        """
        return await self._caller.send(
            Call(
                Payout,
                "POST",
                f"/api/v1/payouts/{segment(payout_id)}/reinitiate",
                body=given({}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def reject(self, payout_id: str, *, idempotency_key: str | None = None) -> Payout:
        """Reject a payout.

        Needs a key with the `admin` role.

        Raises Forbidden, NotFound, InvalidState.
        """
        return await self._caller.send(
            Call(
                Payout,
                "PATCH",
                f"/api/v1/payouts/{segment(payout_id)}/reject",
                body=given({}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def timeline(self, payout_id: str) -> builtins.list[TimelineEntry]:
        """List all status changes of a payout, oldest first.

        Raises NotFound.
        """
        return await self._caller.send(
            Call(list[TimelineEntry], "GET", f"/api/v1/payouts/{segment(payout_id)}/timeline", member="data")
        )

    async def actions(self, payout_id: str) -> PayoutActions:
        """List the requests that can change a payout now.

        Approve, reject, cancel, reinitiate, and every legal simulation. The list depends only on the status: a request
        can still be refused because of the balance, or because the status has changed.

        Raises NotFound.
        """
        return await self._caller.send(Call(PayoutActions, "GET", f"/sandbox/v1/payouts/{segment(payout_id)}/actions"))

    async def simulate(
        self, payout_id: str, status: PayoutStatus, *, failure_code: str | None = None, idempotency_key: str | None = None
    ) -> Payout:
        """Move a payout to another status, as its bank would.

        Makes any legal change, with its money, timeline entry, event and webhooks. Simulating the current status
        responds with 200 and changes nothing. Approving or rejecting (REQUESTED to PENDING or REJECTED, IN_REVIEW to
        PROCESSING or FAILED) needs an `admin` key.

        Raises Forbidden, NotFound, InvalidState, InsufficientBalance.
        """
        return await self._caller.send(
            Call(
                Payout,
                "POST",
                f"/sandbox/v1/payouts/{segment(payout_id)}/simulate",
                body=given({"status": status, "failure_code": failure_code}),
                idempotency_key=idempotency_key or new_key(),
            )
        )
