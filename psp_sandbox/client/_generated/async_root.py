"""The methods of the client itself."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from typing import TYPE_CHECKING, Literal

from psp_sandbox.client._callers import AsyncCaller
from psp_sandbox.client._calls import Call, given, new_key
from psp_sandbox.client.literals import WalletCode

if TYPE_CHECKING:
    from psp_sandbox.client.models.root import (
        AuditReport,
        Drained,
        Overview,
        Reset,
        Verification,
    )


class AsyncRootApi:
    """The methods of the client itself."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def verify_account(
        self,
        *,
        dest_type: Literal["BANK", "WALLET"],
        account_number: str,
        bank_code: str | None = None,
        wallet_code: WalletCode | None = None,
        idempotency_key: str | None = None,
    ) -> "Verification":
        """Check whether an account can be paid.

        account_number: 10 to 16 digits, or a Pakistani IBAN of this bank or wallet (its check digits are verified). The
            last four digits choose the scenario.
        """
        from psp_sandbox.client.models import Verification

        return await self._caller.send(
            Call(
                Verification,
                "POST",
                "/api/v1/verify-account",
                body=given(
                    {
                        "dest_type": dest_type,
                        "bank_code": bank_code,
                        "account_number": account_number,
                        "wallet_code": wallet_code,
                    }
                ),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def audit(self) -> "AuditReport":
        """Audit the ledger.

        Recomputes every invariant from the ledger's entries. Responds with 200 even if checks fail: see `ok`. The
        merchant stays usable during the audit.
        """
        from psp_sandbox.client.models import AuditReport

        return await self._caller.send(Call(AuditReport, "GET", "/sandbox/v1/audit"))

    async def drain(self, *, idempotency_key: str | None = None) -> "Drained":
        """Wait until all due work is done.

        Payout steps, bulk credits and webhooks. After 10,000 steps or 25 s of real time it responds with `drained`
        false.
        """
        from psp_sandbox.client.models import Drained

        return await self._caller.send(
            Call(Drained, "POST", "/sandbox/v1/drain", body=given({}), idempotency_key=idempotency_key or new_key())
        )

    async def overview(self) -> "Overview":
        """Get statistics of payouts, balance and webhooks.

        Covers the newest 1000 payouts, the newest 1000 transfers of the balance and the newest 1000 webhook deliveries,
        so it costs the same however many there are. `covers` says how far back each part goes.
        """
        from psp_sandbox.client.models import Overview

        return await self._caller.send(Call(Overview, "GET", "/sandbox/v1/overview"))

    async def reset(self, *, idempotency_key: str | None = None) -> "Reset":
        """Reset the merchant to its initial state.

        Affects this merchant only, in one transaction. Payouts, users, sales, bulk credits, the ledger, events,
        deliveries, idempotency keys, scenarios of your own, faults, aggregated data and the journal are deleted. The
        balance is the opening balance again. The clock shows the host's time, or is frozen if the merchant was created
        with `frozen_at`. Ids start over, so with a seed the same calls give the same ids again. API keys, webhook
        endpoints, the rate limit and snapshots are kept.

        Raises InvalidState.
        """
        from psp_sandbox.client.models import Reset

        return await self._caller.send(
            Call(Reset, "POST", "/sandbox/v1/reset", body=given({}), idempotency_key=idempotency_key or new_key())
        )
