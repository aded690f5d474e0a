"""Credit many wallets from one CSV file."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import Iterator
from typing import Literal

from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Call, FileContent, given, new_key, query, segment
from psp_sandbox.client.models.bulk_credits import AcceptedBulkCredit, BulkCredit, BulkCreditItem


class BulkCreditsApi:
    """Credit many wallets from one CSV file."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(self, *, limit: int | None = None) -> Iterator[BulkCredit]:
        """List bulk credits, newest first.

        Requests each page when it is needed; `limit` is the number of items per page.
        """
        return self._caller.pages(Call(BulkCredit, "GET", "/api/v1/wallet/bulk-credit", query=query({"limit": limit})))

    def upload(self, file: FileContent, *, idempotency_key: str | None = None) -> AcceptedBulkCredit:
        """Credit many wallets from a CSV file.

        Each row is a credit, and succeeds or fails independently. Rows with the same user and amount are separate
        credits; `duplicates` counts those that equal an earlier row. Workers credit the rows in the background: poll
        the activity, or subscribe to `bulk_credit.completed`.

        file: A CSV file of at most 50 MB with the header `uuid,amount`. Each row has a user's id and an amount. Bytes,
            text, or the path of a file.
        """
        return self._caller.send(
            Call(
                AcceptedBulkCredit,
                "POST",
                "/api/v1/wallet/bulk-credit",
                file=file,
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def retry(self, activity_id: str, *, idempotency_key: str | None = None) -> AcceptedBulkCredit:
        """Retry the rows that failed.

        Raises NotFound, NotRetryable.
        """
        return self._caller.send(
            Call(
                AcceptedBulkCredit,
                "POST",
                "/api/v1/wallet/bulk-credit/retry",
                body=given({"activity_id": activity_id}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def get(self, activity_id: str) -> BulkCredit:
        """Get a bulk credit.

        Raises NotFound.
        """
        return self._caller.send(Call(BulkCredit, "GET", f"/api/v1/wallet/bulk-credit/{segment(activity_id)}"))

    def items(
        self,
        activity_id: str,
        *,
        limit: int | None = None,
        status: Literal["PENDING", "SUCCEEDED", "FAILED", "INVALID"] | None = None,
        duplicates: Literal["only"] | None = None,
    ) -> Iterator[BulkCreditItem]:
        """List the rows of a bulk credit, in file order.

        Requests each page when it is needed; `limit` is the number of items per page.

        status: Only rows with this status, in upper or lower case.
        duplicates: Only rows that equal an earlier row.

        Raises NotFound.
        """
        return self._caller.pages(
            Call(
                BulkCreditItem,
                "GET",
                f"/api/v1/wallet/bulk-credit/{segment(activity_id)}/items",
                query=query({"limit": limit, "status": status, "duplicates": duplicates}),
            )
        )
