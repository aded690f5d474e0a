"""Receive webhooks on a machine that the sandbox cannot reach. `psp listen` does it."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import Sequence
from typing import Literal

from psp_sandbox.client import inputs
from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Call, given, new_key, segment
from psp_sandbox.client.literals import EventPattern, SigningScheme
from psp_sandbox.client.models.listeners import Claimed, Reported
from psp_sandbox.client.models.shared import CreatedEndpoint


class ListenersApi:
    """Receive webhooks on a machine that the sandbox cannot reach. `psp listen` does it."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def create(
        self,
        forward_to: str,
        *,
        event_types: Sequence[EventPattern] | None = None,
        filters: Sequence[
            inputs.EqFilter
            | inputs.NeFilter
            | inputs.InFilter
            | inputs.GteFilter
            | inputs.LteFilter
            | inputs.PrefixFilter
            | inputs.ExistsFilter
        ]
        | None = None,
        signing: SigningScheme | None = None,
        custom_signing: inputs.CustomSigning | None = None,
        signing_time: Literal["host", "merchant"] | None = None,
        retry_profile: Literal["fast", "standard"] | None = None,
        ordered: bool | None = None,
        rate_limit: int | None = None,
        max_in_flight: int | None = None,
        name: str | None = None,
        skip_waiting: bool | None = None,
        idempotency_key: str | None = None,
    ) -> CreatedEndpoint:
        """Open a listener, or resume one.

        A listener receives webhooks on a machine that the sandbox cannot reach, such as a laptop behind a firewall. It
        claims its due deliveries, posts them itself, and reports the results; `psp listen` does this. It is a webhook
        endpoint with `relayed: true`. Its signatures, filters, limits, retries and log are those of any endpoint, but
        no worker sends its deliveries. With a `name`, a later listener of that name gets the same endpoint and secret,
        and the events that happened in between; `skip_waiting` fails those instead. `forward_to` may be a private
        address.

        event_types: The event types to send; patterns such as `payout.*` are allowed.
        signing_time: The clock of `webhook-timestamp`: the host's (the default; every library can verify it) or the
            merchant's.
        forward_to: http:// or https://; private addresses are allowed, because the listener connects.

        Raises InvalidState.
        """
        return self._caller.send(
            Call(
                CreatedEndpoint,
                "POST",
                "/sandbox/v1/listeners",
                body=given(
                    {
                        "event_types": event_types,
                        "filters": filters,
                        "signing": signing,
                        "custom_signing": custom_signing,
                        "signing_time": signing_time,
                        "retry_profile": retry_profile,
                        "ordered": ordered,
                        "rate_limit": rate_limit,
                        "max_in_flight": max_in_flight,
                        "forward_to": forward_to,
                        "name": name,
                        "skip_waiting": skip_waiting,
                    }
                ),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def delete(self, listener_id: str, *, idempotency_key: str | None = None) -> None:
        """Delete a listener.

        Its deliveries stay in the log. Pending deliveries become failed.

        Raises NotFound.
        """
        self._caller.send(
            Call(
                type(None),
                "DELETE",
                f"/sandbox/v1/listeners/{segment(listener_id)}",
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def claim(
        self, listener_id: str, *, max: int | None = None, wait_seconds: float | None = None, idempotency_key: str | None = None
    ) -> Claimed:
        """Claim a listener's due deliveries.

        Returns deliveries that are due, signed and ready to send. If there are none, waits for one up to `wait_seconds`
        (at most 30). Each delivery is leased until its result is reported; once a lease has ended, the delivery can be
        claimed again. With a frozen clock, a listener gets one delivery at a time. INVALID_STATE if the endpoint is
        disabled.

        Raises NotFound, InvalidState.
        """
        return self._caller.send(
            Call(
                Claimed,
                "POST",
                f"/sandbox/v1/listeners/{segment(listener_id)}/claim",
                body=given({"max": max, "wait_seconds": wait_seconds}),
                waits=wait_seconds or 0.0,
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def report(
        self, listener_id: str, results: Sequence[inputs.Result], *, idempotency_key: str | None = None
    ) -> list[Reported]:
        """Report the results of a listener's attempts.

        Each result becomes an attempt in the delivery's log, and decides its status and its next attempt. A repeated
        report changes nothing. If the lease has passed to another attempt, the result is only logged. A result has a
        `status`, an `error`, or both if the response broke off.

        Raises NotFound.
        """
        return self._caller.send(
            Call(
                list[Reported],
                "POST",
                f"/sandbox/v1/listeners/{segment(listener_id)}/results",
                body=given({"results": results}),
                member="data",
                idempotency_key=idempotency_key or new_key(),
            )
        )
