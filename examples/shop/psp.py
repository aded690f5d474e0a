"""The shop's calls to its payment service provider."""

import sqlite3
import time
from typing import Any, Final

import httpx

from .money import to_text

ATTEMPTS: Final = 3


class RefusedError(Exception):
    """The PSP refused a payout for good. `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class NoAnswerError(Exception):
    """The PSP gave no answer, or none that says what became of the payout. It may exist or not."""


class Psp:
    """Creates payouts."""

    def __init__(self, url: str, api_key: str, pause: float) -> None:
        """Use the PSP at `url`. `pause` is the time in seconds before the second attempt; it doubles with each attempt."""
        self._http = httpx.Client(base_url=url, headers={"X-API-KEY": api_key}, timeout=10)
        self._pause = pause

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create(self, payout: sqlite3.Row) -> dict[str, Any]:
        """Create a payout, or find the one that an earlier call created. Return it as the PSP has it.

        Safe to repeat at any time. Raises RefusedError, or NoAnswerError after the last attempt.
        """
        body = {
            "merchant_reference": payout["id"],
            "amount": to_text(payout["amount"]),
            "dest_type": "BANK",
            "bank_code": payout["bank_code"],
            "account_number": payout["account_number"],
        }
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self._pause * 2 ** (attempt - 1))
            try:
                return self._create_or_find(body, payout["id"])
            except (httpx.TransportError, ValueError, LookupError, NoAnswerError) as error:
                # The answer was lost, or half of it. The payout may exist, so only the same idempotency key is safe.
                reason = str(error)
        raise NoAnswerError(reason)

    def _create_or_find(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        answer = self._http.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": key})
        if answer.status_code == 409 and answer.json()["code"] == "DUPLICATE_REFERENCE":
            # An earlier call succeeded, so long ago that the PSP has forgotten its idempotency key.
            answer = self._http.get("/api/v1/payouts", params={"merchant_reference": body["merchant_reference"]})
            if answer.is_success:
                found: dict[str, Any] = answer.json()["data"][0]
                return found
        created: dict[str, Any] = answer.json()
        if answer.is_success:
            return created
        if answer.status_code in (400, 422):
            raise RefusedError(created["code"])
        raise NoAnswerError(created["code"])
