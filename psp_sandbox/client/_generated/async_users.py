"""A merchant's users and their wallets."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

import builtins
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Literal

from psp_sandbox.client import inputs
from psp_sandbox.client._callers import AsyncCaller
from psp_sandbox.client._calls import OMITTED, Amount, Call, Omitted, given, new_key, query, segment
from psp_sandbox.client.models.shared import (
    LedgerEntry,
    Payout,
    RefusedItem,
)
from psp_sandbox.client.models.users import CreatedUser, Transaction, User, UserBalance, UserSummary


class AsyncUsersApi:
    """A merchant's users and their wallets."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    def list(
        self,
        *,
        limit: int | None = None,
        external_id: str | None = None,
        q: str | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
    ) -> AsyncIterator[User]:
        """List users, newest first.

        Requests each page when it is needed; `limit` is the number of items per page.

        external_id: Only the user with this external id.
        q: Only users that this text finds. First those that it identifies, however old they are: by external id or by
            the beginning of the id. Then those whose name, external id or id contains it. Both are newest first. A page
            that has searched 5000 users ends there, even if it is empty; the next page continues.
        created_from: Only items created at or after this time.
        created_to: Only items created before this time.
        """
        return self._caller.pages(
            Call(
                User,
                "GET",
                "/api/v1/users",
                query=query(
                    {"limit": limit, "external_id": external_id, "q": q, "created_from": created_from, "created_to": created_to}
                ),
            )
        )

    async def create(
        self,
        name: str,
        *,
        external_id: str | None = None,
        vendor_user_id: str | None = None,
        destination: inputs.Destination | None = None,
        idempotency_key: str | None = None,
    ) -> User:
        """Create a user with a wallet.

        Raises DuplicateReference.
        """
        return await self._caller.send(
            Call(
                User,
                "POST",
                "/api/v1/users",
                body=given(
                    {"name": name, "external_id": external_id, "vendor_user_id": vendor_user_id, "destination": destination}
                ),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def create_batch(
        self, users: Sequence[inputs.CreateUser], *, idempotency_key: str | None = None
    ) -> builtins.list[CreatedUser | RefusedItem]:
        """Create up to 1000 users, each independently."""
        return await self._caller.send(
            Call(
                list[CreatedUser | RefusedItem],
                "POST",
                "/api/v1/users/batch",
                body=given({"users": users}),
                member="results",
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def get(self, user_id: str) -> User:
        """Get a user.

        Raises NotFound.
        """
        return await self._caller.send(Call(User, "GET", f"/api/v1/users/{segment(user_id)}"))

    async def change(
        self,
        user_id: str,
        *,
        name: str | None = None,
        external_id: str | Omitted | None = OMITTED,
        destination: inputs.Destination | Omitted | None = OMITTED,
        idempotency_key: str | None = None,
    ) -> User:
        """Change a user.

        Payouts already requested keep their destination. Later payments for sales use the new one.

        Raises NotFound, DuplicateReference.
        """
        return await self._caller.send(
            Call(
                User,
                "PATCH",
                f"/api/v1/users/{segment(user_id)}",
                body=given({"name": name}, {"external_id": external_id, "destination": destination}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def balance(self, user_id: str) -> UserBalance:
        """Get the balance of a user's wallet.

        Raises NotFound.
        """
        return await self._caller.send(Call(UserBalance, "GET", f"/api/v1/users/{segment(user_id)}/balance"))

    def history(
        self,
        user_id: str,
        *,
        limit: int | None = None,
        payout_id: str | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
    ) -> AsyncIterator[LedgerEntry]:
        """List the ledger entries of a user's wallet, newest first.

        `balance_after` of the newest entry is the wallet's balance.

        Requests each page when it is needed; `limit` is the number of items per page.

        payout_id: Only entries for this payout.
        created_from: Only items created at or after this time.
        created_to: Only items created before this time.

        Raises NotFound.
        """
        return self._caller.pages(
            Call(
                LedgerEntry,
                "GET",
                f"/api/v1/users/{segment(user_id)}/history",
                query=query({"limit": limit, "payout_id": payout_id, "created_from": created_from, "created_to": created_to}),
            )
        )

    async def request_payout(self, user_id: str, amount: Amount, *, idempotency_key: str | None = None) -> Payout:
        """Request a payout to a user's destination.

        The payout stays in REQUESTED until an admin approves or rejects it. Both the user's and the merchant's
        available balance must cover it; an error says which one is too low. Until then, the amount is locked in the
        merchant's balance.

        Raises NotFound, InvalidState, InsufficientBalance.
        """
        return await self._caller.send(
            Call(
                Payout,
                "POST",
                f"/api/v1/users/{segment(user_id)}/payout",
                body=given({"amount": amount}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def summary(self, user_id: str) -> UserSummary:
        """Get the totals of a user's wallet.

        Cached for two minutes, or until a change. The `X-Cache` response header is HIT or MISS.

        Raises NotFound.
        """
        return await self._caller.send(Call(UserSummary, "GET", f"/api/v1/users/{segment(user_id)}/summary"))

    def transactions(
        self,
        user_id: str,
        *,
        limit: int | None = None,
        type: Literal["EARNED", "SPENT", "CREDITED", "ADVANCE", "FINAL", "PAYOUT", "PAID_OUT"] | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
    ) -> AsyncIterator[Transaction]:
        """List a user's transactions, newest first.

        All types: earned, spent, credited in bulk, paid for sales (a negative FINAL is a claw-back), requested (PAYOUT)
        and paid (PAID_OUT). A payout that ends unpaid adds transactions with negative amounts.

        Requests each page when it is needed; `limit` is the number of items per page.

        type: Only transactions of this type.
        created_from: Only items created at or after this time.
        created_to: Only items created before this time.

        Raises NotFound.
        """
        return self._caller.pages(
            Call(
                Transaction,
                "GET",
                f"/api/v1/users/{segment(user_id)}/transactions",
                query=query({"limit": limit, "type": type, "created_from": created_from, "created_to": created_to}),
            )
        )

    async def create_transaction(
        self,
        user_id: str,
        *,
        type: Literal["EARNED", "SPENT"],
        amount: Amount,
        reference: str | None = None,
        idempotency_key: str | None = None,
    ) -> Transaction:
        """Record what a user earned or spent.

        Raises NotFound.
        """
        return await self._caller.send(
            Call(
                Transaction,
                "POST",
                f"/api/v1/users/{segment(user_id)}/transactions",
                body=given({"type": type, "amount": amount, "reference": reference}),
                idempotency_key=idempotency_key or new_key(),
            )
        )
