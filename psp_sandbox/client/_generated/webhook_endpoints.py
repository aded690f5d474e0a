"""The URLs to which webhooks are delivered."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

import builtins
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from psp_sandbox.client import inputs
from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import OMITTED, Call, Omitted, given, new_key, query, segment
from psp_sandbox.client.literals import EventPattern, EventType, SigningScheme
from psp_sandbox.client.models.shared import (
    CreatedEndpoint,
    Delivery,
)
from psp_sandbox.client.models.webhook_endpoints import Endpoint, EventPreview, Recovery, RotatedSecret, SigningExample


class WebhookEndpointsApi:
    """The URLs to which webhooks are delivered."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(self, *, limit: int | None = None) -> Iterator[Endpoint]:
        """List webhook endpoints, newest first.

        Requests each page when it is needed; `limit` is the number of items per page.
        """
        return self._caller.pages(Call(Endpoint, "GET", "/api/v1/webhook-endpoints", query=query({"limit": limit})))

    def create(
        self,
        url: str,
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
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> CreatedEndpoint:
        """Create a webhook endpoint.

        The secret is returned only here. At most 16 per merchant. An address that webhooks must not be delivered to is
        refused. With `ordered`, a failing delivery holds back later events of the same payout, until it succeeds or its
        retries are used up. `rate_limit` is in attempts per second, evenly spaced; `max_in_flight` is the number of
        attempts that await their responses. Both hold across all workers, and in a frozen world, where deliveries go
        one at a time, neither causes a wait. An event is sent if it matches `event_types` and all `filters`. For `v1a`
        the secret is null: receivers verify with the `public_key`. `stripe`, `github` and `custom` send the signature
        headers of that dialect, keyed with the whole text of the secret, and `webhook-id`.

        event_types: The event types to send; patterns such as `payout.*` are allowed.
        signing_time: The clock of `webhook-timestamp`: the host's (the default; every library can verify it) or the
            merchant's.
        url: http:// or https://, with no user name or password; an IPv4 address is four decimal numbers; private
            addresses may be rejected.

        Raises InvalidState.
        """
        return self._caller.send(
            Call(
                CreatedEndpoint,
                "POST",
                "/api/v1/webhook-endpoints",
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
                        "url": url,
                        "description": description,
                    }
                ),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def get(self, endpoint_id: str) -> Endpoint:
        """Get a webhook endpoint.

        Raises NotFound.
        """
        return self._caller.send(Call(Endpoint, "GET", f"/api/v1/webhook-endpoints/{segment(endpoint_id)}"))

    def change(
        self,
        endpoint_id: str,
        *,
        url: str | None = None,
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
        custom_signing: inputs.CustomSigning | Omitted | None = OMITTED,
        signing_time: Literal["host", "merchant"] | None = None,
        retry_profile: Literal["fast", "standard"] | None = None,
        ordered: bool | None = None,
        rate_limit: int | Omitted | None = OMITTED,
        max_in_flight: int | Omitted | None = OMITTED,
        description: str | None = None,
        status: Literal["DISABLED", "ENABLED"] | None = None,
        idempotency_key: str | None = None,
    ) -> Endpoint:
        """Change a webhook endpoint.

        Omitted fields keep their value; `filters: []` removes all filters. Deliveries due to a disabled endpoint wait
        until it is enabled; newer events are kept and can be recovered. An endpoint is disabled automatically if it
        responds with 410, or if an attempt fails and none has succeeded for 5 days of the merchant's time; `history`
        shows when and why. A change of `signing` keeps the secret, except to or from `v1a`: then the endpoint gets a
        new key, and `rotate-secret` shows the secret.

        url: http:// or https://, with no user name or password; an IPv4 address is four decimal numbers; private
            addresses may be rejected.
        event_types: The event types to send; patterns such as `payout.*` are allowed.
        signing_time: The clock of `webhook-timestamp`: the host's (the default; every library can verify it) or the
            merchant's.

        Raises NotFound.
        """
        return self._caller.send(
            Call(
                Endpoint,
                "PATCH",
                f"/api/v1/webhook-endpoints/{segment(endpoint_id)}",
                body=given(
                    {
                        "url": url,
                        "event_types": event_types,
                        "filters": filters,
                        "signing": signing,
                        "signing_time": signing_time,
                        "retry_profile": retry_profile,
                        "ordered": ordered,
                        "description": description,
                        "status": status,
                    },
                    {"custom_signing": custom_signing, "rate_limit": rate_limit, "max_in_flight": max_in_flight},
                ),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def delete(self, endpoint_id: str, *, idempotency_key: str | None = None) -> None:
        """Delete a webhook endpoint.

        Its deliveries stay in the log. Pending deliveries become failed, and none can be resent.

        Raises NotFound.
        """
        self._caller.send(
            Call(
                type(None),
                "DELETE",
                f"/api/v1/webhook-endpoints/{segment(endpoint_id)}",
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def preview(
        self,
        endpoint_id: str,
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
        limit: int | None = None,
        idempotency_key: str | None = None,
    ) -> builtins.list[EventPreview]:
        """Preview which recent events an endpoint would have received.

        Checks the most recent events against `event_types` and `filters`; by default those of the endpoint. `reason` is
        the first condition that does not hold. Nothing is sent or changed, so it can be called before a PATCH.

        event_types: The event types to send; patterns such as `payout.*` are allowed.

        Raises NotFound.
        """
        return self._caller.send(
            Call(
                list[EventPreview],
                "POST",
                f"/api/v1/webhook-endpoints/{segment(endpoint_id)}/preview",
                body=given({"event_types": event_types, "filters": filters, "limit": limit}),
                member="data",
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def recover(
        self,
        endpoint_id: str,
        *,
        since: datetime | str,
        which: Literal["all", "failed"],
        until: datetime | str | None = None,
        event_types: Sequence[EventPattern] | None = None,
        dry_run: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Recovery:
        """Send an endpoint's events again.

        `failed` sends events whose last attempt failed, also if a retry is scheduled, and events that were kept while
        the endpoint was disabled. `all` replays every event of the period, also those that the endpoint has received
        and those that it would have received if it had existed. Events whose first attempt is due, or that are being
        sent, are not counted. `since` is inclusive, `until` exclusive; both are in the merchant's time. Each webhook
        keeps its webhook-id, and its retry schedule starts over. A dry run only counts. 409 if the endpoint is
        disabled, except for a dry run. After an interruption, the same request with the same key continues where it
        stopped.

        event_types: The event types to send; patterns such as `payout.*` are allowed.

        Raises NotFound, InvalidState.
        """
        return self._caller.send(
            Call(
                Recovery,
                "POST",
                f"/api/v1/webhook-endpoints/{segment(endpoint_id)}/recover",
                body=given({"since": since, "until": until, "which": which, "event_types": event_types, "dry_run": dry_run}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def rotate_secret(
        self, endpoint_id: str, *, grace_seconds: int | None = None, idempotency_key: str | None = None
    ) -> RotatedSecret:
        """Replace the secret of a webhook endpoint.

        Until `previous_expires_at`, in the merchant's time, webhooks are signed with the previous secret too, so that
        receivers can change over. `github` and `custom` send one signature only, so the new secret alone signs there.
        After several rotations, at most 4 previous secrets still sign. With `grace_seconds: 0`, none does.

        Raises NotFound.
        """
        return self._caller.send(
            Call(
                RotatedSecret,
                "POST",
                f"/api/v1/webhook-endpoints/{segment(endpoint_id)}/rotate-secret",
                body=given({"grace_seconds": grace_seconds}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def explain_signature(
        self,
        endpoint_id: str,
        *,
        body: str | Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        id: str | None = None,
        idempotency_key: str | None = None,
    ) -> SigningExample:
        """Show step by step how a webhook is signed.

        Compare each step with your own code to find where the two begin to differ. Of a key, only the start of its
        SHA-256 is shown. Nothing is sent.

        Raises NotFound, InvalidState.
        """
        return self._caller.send(
            Call(
                SigningExample,
                "POST",
                f"/api/v1/webhook-endpoints/{segment(endpoint_id)}/signing-example",
                body=given({"body": body, "timestamp": timestamp, "id": id}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def test(self, endpoint_id: str, event_type: EventType, *, idempotency_key: str | None = None) -> Delivery:
        """Send a sample event to an endpoint.

        Sends it now, like any other event: signed, retried and in the delivery log. The endpoint receives it whatever
        its `event_types` and `filters` are. Its payout does not exist and no money moves; its metadata is `{"sample":
        "true"}`. In the event log, `payout_id` is null. 409 if the endpoint is disabled.

        Raises NotFound, InvalidState.
        """
        return self._caller.send(
            Call(
                Delivery,
                "POST",
                f"/api/v1/webhook-endpoints/{segment(endpoint_id)}/test",
                body=given({"event_type": event_type}),
                idempotency_key=idempotency_key or new_key(),
            )
        )
