"""An example of each scenario, and the failure codes. Built-in scenarios for payouts, and your own rules."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal

from psp_sandbox.client import inputs
from psp_sandbox.client._callers import AsyncCaller
from psp_sandbox.client._calls import Amount, Call, given, new_key, query, segment
from psp_sandbox.client.literals import WalletCode
from psp_sandbox.client.models.scenarios import Explanation, ScenarioCatalogue, ScenarioRule


class AsyncScenariosApi:
    """An example of each scenario, and the failure codes. Built-in scenarios for payouts, and your own rules."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def catalogue(self, *, bank_code: str | None = None) -> ScenarioCatalogue:
        """List all scenarios with an example of each, and all failure codes.

        For each scenario: an amount and an account number to copy, the changes with their times, events and money, and
        what else the account number decides: whether POST /verify-account accepts it, and whether sales are paid.

        bank_code: Examples are accounts of this bank; HBL by default.
        """
        return await self._caller.send(
            Call(ScenarioCatalogue, "GET", "/sandbox/v1/catalogue", query=query({"bank_code": bank_code}))
        )

    def list(self) -> AsyncIterator[ScenarioRule]:
        """List all scenarios; the first that matches wins.

        In the order in which they are tried: your own, then the built-in ones by amount and by suffix, then the
        default. The `X-Sandbox-Scenario` header of a create request selects one by name; an unknown name is refused.

        Requests each page when it is needed; `limit` is the number of items per page.
        """
        return self._caller.pages(Call(ScenarioRule, "GET", "/sandbox/v1/scenarios"))

    async def create(
        self,
        *,
        name: str,
        match: inputs.RuleMatch,
        steps: Sequence[inputs.RuleStep],
        position: int | None = None,
        idempotency_key: str | None = None,
    ) -> ScenarioRule:
        """Create a scenario of your own.

        A path starts from PENDING. It must be legal even if steps with a `probability` are skipped. A step to FAILED,
        CANCELLED or RETURNED ends the path, so `PROCESSING, FAILED (0.5), SUCCESS` fails half of the payouts. A
        merchant can have at most 100 scenarios. They are tried in order, before the built-in ones; the first that
        matches wins.

        Raises InvalidState.
        """
        return await self._caller.send(
            Call(
                ScenarioRule,
                "POST",
                "/sandbox/v1/scenarios",
                body=given({"name": name, "match": match, "steps": steps, "position": position}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def explain(
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
        user_id: str | None = None,
        scenario_header: str | None = None,
        rule: inputs.Rule | None = None,
        wallet_code: WalletCode | None = None,
        idempotency_key: str | None = None,
    ) -> Explanation:
        """Explain what a payout would do, without creating it.

        account_number: 10 to 16 digits, or a Pakistani IBAN of this bank or wallet (its check digits are verified). The
            last four digits choose the scenario.
        """
        return await self._caller.send(
            Call(
                Explanation,
                "POST",
                "/sandbox/v1/scenarios/explain",
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
                        "user_id": user_id,
                        "scenario_header": scenario_header,
                        "rule": rule,
                        "wallet_code": wallet_code,
                    }
                ),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def get(self, rule_id: str) -> ScenarioRule:
        """Get a scenario of your own.

        Raises NotFound.
        """
        return await self._caller.send(Call(ScenarioRule, "GET", f"/sandbox/v1/scenarios/{segment(rule_id)}"))

    async def replace(
        self,
        rule_id: str,
        *,
        name: str,
        match: inputs.RuleMatch,
        steps: Sequence[inputs.RuleStep],
        position: int | None = None,
        idempotency_key: str | None = None,
    ) -> ScenarioRule:
        """Replace a scenario of your own.

        A path starts from PENDING. It must be legal even if steps with a `probability` are skipped. A step to FAILED,
        CANCELLED or RETURNED ends the path, so `PROCESSING, FAILED (0.5), SUCCESS` fails half of the payouts. A
        merchant can have at most 100 scenarios. They are tried in order, before the built-in ones; the first that
        matches wins. Payouts that already follow it keep their path.

        Raises NotFound, InvalidState.
        """
        return await self._caller.send(
            Call(
                ScenarioRule,
                "PUT",
                f"/sandbox/v1/scenarios/{segment(rule_id)}",
                body=given({"name": name, "match": match, "steps": steps, "position": position}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def delete(self, rule_id: str, *, idempotency_key: str | None = None) -> None:
        """Delete a scenario of your own.

        Raises NotFound.
        """
        await self._caller.send(
            Call(
                type(None), "DELETE", f"/sandbox/v1/scenarios/{segment(rule_id)}", idempotency_key=idempotency_key or new_key()
            )
        )
