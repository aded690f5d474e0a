"""Make the API or webhooks misbehave."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import AsyncIterator
from typing import Literal

from psp_sandbox.client import inputs
from psp_sandbox.client._callers import AsyncCaller
from psp_sandbox.client._calls import Call, given, new_key, query, segment
from psp_sandbox.client.models.faults import Fault


class AsyncFaultsApi:
    """Make the API or webhooks misbehave."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    def list(self, *, limit: int | None = None) -> AsyncIterator[Fault]:
        """List faults, newest first.

        Requests each page when it is needed; `limit` is the number of items per page.
        """
        return self._caller.pages(Call(Fault, "GET", "/sandbox/v1/faults", query=query({"limit": limit})))

    async def create(
        self,
        *,
        kind: Literal[
            "latency",
            "error",
            "rate_limit",
            "connection_reset",
            "slow_after_commit",
            "truncated_body",
            "drop",
            "duplicate",
            "delay",
            "reorder",
            "stale_timestamp",
            "wrong_key",
            "tampered_body",
        ],
        target: Literal["api", "webhooks"],
        probability: float | None = None,
        count: int | None = None,
        ttl_seconds: float | None = None,
        seed: int | None = None,
        match: inputs.RequestMatch | inputs.EitherMatch | inputs.DeliveryMatch | None = None,
        milliseconds: float | None = None,
        sigma: float | None = None,
        status: int | None = None,
        retry_after: int | None = None,
        seconds: int | None = None,
        idempotency_key: str | None = None,
    ) -> Fault:
        """Create a fault.

        A fault hits the API (`/api/v1`, `/vendor`, `/aggregator`; never `/sandbox`) or webhook deliveries. Only the
        first fault that matches and hits takes effect. `count` is the exact number of hits, `ttl_seconds` is in the
        merchant's time, and the same `seed` gives the same hits. Faults never corrupt the ledger. At most 50 per
        merchant.

        Raises InvalidState.
        """
        return await self._caller.send(
            Call(
                Fault,
                "POST",
                "/sandbox/v1/faults",
                body=given(
                    {
                        "kind": kind,
                        "probability": probability,
                        "count": count,
                        "ttl_seconds": ttl_seconds,
                        "seed": seed,
                        "target": target,
                        "match": match,
                        "milliseconds": milliseconds,
                        "sigma": sigma,
                        "status": status,
                        "retry_after": retry_after,
                        "seconds": seconds,
                    }
                ),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    async def get(self, fault_id: str) -> Fault:
        """Get a fault.

        Raises NotFound.
        """
        return await self._caller.send(Call(Fault, "GET", f"/sandbox/v1/faults/{segment(fault_id)}"))

    async def delete(self, fault_id: str, *, idempotency_key: str | None = None) -> None:
        """Delete a fault.

        Raises NotFound.
        """
        await self._caller.send(
            Call(type(None), "DELETE", f"/sandbox/v1/faults/{segment(fault_id)}", idempotency_key=idempotency_key or new_key())
        )
