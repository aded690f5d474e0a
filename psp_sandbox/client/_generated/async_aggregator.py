"""Balances per user, calculated from a vendor's feed of transactions."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import AsyncIterator, Mapping
from datetime import datetime

from psp_sandbox.client._callers import AsyncCaller
from psp_sandbox.client._calls import Call, given, new_key, query, segment
from psp_sandbox.client.models.aggregator import DeadLetter, Fetch, Replayed, Source, UnpaidRequests, VendorBalance


class AsyncAggregatorApi:
    """Balances per user, calculated from a vendor's feed of transactions."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    def dead_letters(
        self, *, limit: int | None = None, created_from: datetime | str | None = None, created_to: datetime | str | None = None
    ) -> AsyncIterator[DeadLetter]:
        """List the vendor's rows that could not be parsed, newest first.

        Requests each page when it is needed; `limit` is the number of items per page.

        created_from: Only items created at or after this time.
        created_to: Only items created before this time.
        """
        return self._caller.pages(
            Call(
                DeadLetter,
                "GET",
                "/aggregator/v1/dead-letters",
                query=query({"limit": limit, "created_from": created_from, "created_to": created_to}),
            )
        )

    async def replay_dead_letters(self, *, idempotency_key: str | None = None) -> Replayed:
        """Retry all dead letters.

        Rows that can be parsed now are added to the balances, each exactly once.
        """
        return await self._caller.send(
            Call(Replayed, "POST", "/aggregator/v1/dead-letters/replay", idempotency_key=idempotency_key or new_key())
        )

    def fetches(
        self, *, limit: int | None = None, created_from: datetime | str | None = None, created_to: datetime | str | None = None
    ) -> AsyncIterator[Fetch]:
        """List the calls to the vendor, newest first.

        Kept for seven days.

        Requests each page when it is needed; `limit` is the number of items per page.

        created_from: Only items created at or after this time.
        created_to: Only items created before this time.
        """
        return self._caller.pages(
            Call(
                Fetch,
                "GET",
                "/aggregator/v1/fetches",
                query=query({"limit": limit, "created_from": created_from, "created_to": created_to}),
            )
        )

    def requested_payouts(self, *, limit: int | None = None) -> AsyncIterator[UnpaidRequests]:
        """List users with requested payouts that have not been paid.

        Requests each page when it is needed; `limit` is the number of items per page.
        """
        return self._caller.pages(Call(UnpaidRequests, "GET", "/aggregator/v1/payouts", query=query({"limit": limit})))

    async def source(self) -> Source:
        """Get the source of transactions."""
        return await self._caller.send(Call(Source, "GET", "/aggregator/v1/source"))

    async def set_source(
        self, url: str | None, *, headers: Mapping[str, str] | None = None, idempotency_key: str | None = None
    ) -> Source:
        """Set the source of transactions.

        `url` is the vendor's list of transactions. It is called with `startDate`, `page` and `limit` every 20 seconds,
        at most 5 times in any 60 seconds. Another URL restarts polling from the beginning and deletes everything read
        from the previous one. Needs a key with the `admin` role.

        url: http:// or https://, with no user name or password; an IPv4 address is four decimal numbers; private
            addresses may be rejected.

        Raises Forbidden.
        """
        return await self._caller.send(
            Call(
                Source,
                "PUT",
                "/aggregator/v1/source",
                body=given({"headers": headers}, {"url": url}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def balance(self, user_id: str) -> VendorBalance:
        """Get a user's balance according to the vendor.

        `balance` = earned − spent − paid_out. User ids are strings.

        Raises NotFound.
        """
        return await self._caller.send(Call(VendorBalance, "GET", f"/aggregator/v1/users/{segment(user_id)}"))

    async def requested_payout(self, user_id: str) -> UnpaidRequests:
        """Get the amount a user has requested and not been paid.

        `requested_payout` = payout − paid_out.

        Raises NotFound.
        """
        return await self._caller.send(Call(UnpaidRequests, "GET", f"/aggregator/v1/users/{segment(user_id)}/payouts"))
