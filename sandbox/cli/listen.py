"""`psp listen`: forward webhooks to a URL on this machine, which the sandbox does not have to reach."""

import asyncio
import json
import signal
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args
from urllib.parse import urlsplit

import typer

from sandbox.cli.client import DEFAULT_URL, ApiKey, AsJson, Client, ReadyFile, Url, connect, show
from sandbox.cli.failures import Failure
from sandbox.cli.files import read_json
from sandbox.cli.filters import FilterOptions
from sandbox.cli.filters import filters as parse_filters
from sandbox.cli.options import completion, event_types, given
from sandbox.domain.enumerations import EventType, RetryProfile, Signing

if TYPE_CHECKING:
    from sandbox.cli.forwarder import Delivery
    from sandbox.webhooks.outbound.sender import SendResult

_PATH: Final = "/sandbox/v1/listeners"
_PRINTED: Final = "http://localhost/printed-by-psp-listen"
"""The URL of an endpoint whose webhooks are printed and posted nowhere."""
_SELECTABLE: Final = 100
"""How many of the newest deliveries can be selected for a resend."""
_REASON_LENGTH: Final = 100
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""They stop the listener. SIGHUP comes when the terminal is closed."""


def listen(
    forward_to: Annotated[
        str | None,
        typer.Option(
            "--forward-to",
            help="The URL to post webhooks to, such as http://localhost:3000/. Without it, they are only printed, and count "
            "as delivered.",
        ),
    ] = None,
    events: Annotated[
        str,
        typer.Option(
            "--events",
            help="Only these types, comma-separated, such as payout.failed,payout.returned, or payout.*.",
            autocompletion=completion(("*", "payout.*", *get_args(EventType))),
        ),
    ] = "*",
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Keep the endpoint after the end: it collects events, and the next listener of this name receives them, with "
            "the same secret.",
        ),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Begin with new events. Those that wait from an earlier run are not sent.")
    ] = False,
    filters: FilterOptions = None,
    signing: Annotated[Signing | None, typer.Option("--signing", help="How to sign webhooks. Default: v1.")] = None,
    custom_signing: Annotated[
        Path | None,
        typer.Option(
            "--custom-signing", help="For --signing custom: a JSON file with header, algorithm, encoding and template."
        ),
    ] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="A failing delivery holds back later events of the same payout.")
    ] = False,
    retry_profile: Annotated[
        RetryProfile | None, typer.Option("--retry-profile", help="The retry schedule for failed attempts. Default: standard.")
    ] = None,
    skip_verify: Annotated[
        bool, typer.Option("--skip-verify", help="Do not verify the TLS certificate of the URL to forward to.")
    ] = False,
    print_json: Annotated[bool, typer.Option("--print-json", help="Also print the body of each webhook.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after this many deliveries.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Receive webhooks on this machine, even behind a firewall, and print a line for each delivery.

    This command fetches the deliveries and, with --forward-to, posts them itself. Signatures, retries, order and filters are
    those of any webhook endpoint, and its deliveries are in the log. After a lost connection or a restart of the sandbox it
    continues where it was.
    Several listeners can run, each with its own endpoint.

    On a terminal, r resends the last delivery, and the arrow keys select an earlier one. Ctrl-C stops. Without --name, the
    endpoint is deleted then.

    With --json, each line is one JSON object; the first is the endpoint with its secret.
    """
    client = connect(url, api_key, ready_file)
    body = given(
        forward_to=forward_to or _PRINTED, event_types=event_types(events), name=name, filters=parse_filters(filters),
        signing=signing, custom_signing=None if custom_signing is None else read_json(custom_signing),
        retry_profile=retry_profile,
    )  # fmt: skip
    endpoint = client.post(_PATH, body | {"ordered": ordered, "skip_waiting": latest})
    screen = _Screen(client, endpoint["id"], limit, print_json=print_json, as_json=as_json)
    show(endpoint, as_json=as_json, text=_greeting(endpoint, forward_to, name))
    try:
        asyncio.run(_forward(client, endpoint["id"], forward_to, screen, skip_verify=skip_verify))
    finally:
        if name is None:
            _delete(client, endpoint["id"], screen)
        else:
            screen.message(f"The endpoint stays and collects events for the next listener with --name {name}.")


class _Printer:
    """Stands for a receiver that accepts every webhook. The screen prints them."""

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> "SendResult":
        from sandbox.webhooks.outbound.sender import SendResult

        return SendResult(200, {}, "", None, 0)

    async def close(self) -> None:
        """Close nothing: it has no connections."""


async def _forward(client: Client, listener_id: str, forward_to: str | None, screen: "_Screen", *, skip_verify: bool) -> None:
    # These modules load aiohttp and httpx, which the shell's completion does not need.
    from aiohttp import ThreadedResolver

    from sandbox.cli.forwarder import Forwarder
    from sandbox.cli.keyboard import keys
    from sandbox.webhooks.listeners.requests import ANY_NETWORK
    from sandbox.webhooks.outbound.sender import WebhookSender

    loop = asyncio.get_running_loop()
    sender = (
        _Printer()
        if forward_to is None
        else WebhookSender(ANY_NETWORK, ssl_context=_tls(forward_to, skip_verify=skip_verify), resolver=ThreadedResolver())
    )
    forwarder = Forwarder(client, sender, listener_id, forward_to or _PRINTED, screen.attempt, screen.message)
    screen.stop = forwarder.stop
    for number in _SIGNALS:
        loop.add_signal_handler(number, forwarder.stop)
    try:
        with keys(screen.key):
            await forwarder.run()
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        await sender.close()


def _tls(forward_to: str, *, skip_verify: bool) -> ssl.SSLContext | None:
    if not skip_verify or urlsplit(forward_to).scheme.lower() != "https":
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _delete(client: Client, listener_id: str, screen: "_Screen") -> None:
    try:
        # Ignore a refusal: the endpoint may already have been deleted.
        client.send("DELETE", f"{_PATH}/{listener_id}")
    except Failure:
        screen.message(f"The endpoint could not be deleted. Later: psp endpoints delete {listener_id}")
        raise


def _greeting(endpoint: dict[str, Any], forward_to: str | None, name: str | None) -> str:
    doing = "Printing webhooks" if forward_to is None else f"Delivering to {endpoint['url']}"
    signed = f"signed with {endpoint['secret']}" if endpoint["secret"] else f"to verify with {endpoint['public_key']}"
    kept = "The endpoint is deleted at the end." if name is None else f"The endpoint of {name} is kept at the end."
    return f"{doing}, {signed}. {kept} Press Ctrl-C to stop, r to resend the last delivery."


class _Screen:
    """Prints what happens, and resends deliveries at the touch of a key."""

    def __init__(self, client: Client, listener_id: str, limit: int | None, *, print_json: bool, as_json: bool) -> None:
        self.stop: Callable[[], None] = lambda: None
        self._client = client
        self._listener_id = listener_id
        self._limit = limit
        self._print_json = print_json
        self._as_json = as_json
        self._count = 0
        self._recent: deque[tuple[str, str]] = deque(maxlen=_SELECTABLE)
        """The newest deliveries last: their ids and lines."""
        self._selected = 0
        """The distance of the selected delivery from the newest one."""
        self._resending: set[asyncio.Future[None]] = set()

    def message(self, text: str) -> None:
        """Show a message that is not about one delivery."""
        if not self._as_json:
            typer.echo(text, err=True)

    def attempt(self, delivery: "Delivery", reported: dict[str, Any]) -> None:
        """Print a reported attempt."""
        result, claimed = delivery.result, delivery.claimed
        assert result is not None, "only posted deliveries are reported"
        event = _parse(claimed["body"])
        data = event.get("data") or {}
        subject = data.get("id") or data.get("activity_id") or claimed["event_id"]
        fields = {
            "at": reported["at"],
            "delivery_id": claimed["delivery_id"],
            "event_id": claimed["event_id"],
            "endpoint_id": self._listener_id,
            "event_type": claimed["event_type"],
            "attempt": claimed["attempt"],
            "manual": claimed["manual"],
            "payout_id": data.get("id"),
            "amount": data.get("amount"),
            "status": result.status,
            "error": result.error,
            "duration_ms": result.duration_ms,
            "outcome": reported["outcome"],
            "delivery_status": reported["delivery_status"],
            "next_attempt_at": reported["next_attempt_at"],
        }
        line = "  ".join(
            (
                (reported["at"] or "")[11:19] or "--:--:--",
                f"{claimed['event_type']:<20}",
                subject,
                f"{data.get('amount', ''):>12}",
                str(result.status or result.error)[:_REASON_LENGTH],
                f"{result.duration_ms} ms{_remarks(claimed, reported)}",
            )
        )
        show(fields | ({"event": event} if self._print_json else {}), as_json=self._as_json, text=line)
        if self._print_json and not self._as_json:
            typer.echo(json.dumps(event, indent=2, ensure_ascii=False))
        self._recent.append((claimed["delivery_id"], line))
        self._selected = 0
        self._count += 1
        if self._count == self._limit:
            self.stop()

    def key(self, key: str) -> None:
        """Act on a key of the terminal."""
        from sandbox.cli.keyboard import DOWN, UP

        if not self._recent:
            return
        if key in (UP, DOWN):
            self._selected = min(max(self._selected + (1 if key == UP else -1), 0), len(self._recent) - 1)
            self.message(f"Selected: {self._recent[-1 - self._selected][1]}")
        elif key == "r":
            call = asyncio.get_running_loop().run_in_executor(None, self._resend, self._recent[-1 - self._selected][0])
            self._resending.add(call)
            call.add_done_callback(self._resending.discard)

    def _resend(self, delivery_id: str) -> None:
        try:
            self._client.post(f"/api/v1/webhook-deliveries/{delivery_id}/resend")
        except Failure as failure:
            self.message(f"Not resent. {failure.sentence}")


def _remarks(claimed: dict[str, Any], reported: dict[str, Any]) -> str:
    remarks = "  resent" if claimed["manual"] else ""
    if claimed["attempt"] > 1:
        remarks += f"  attempt {claimed['attempt']}"
    if reported["outcome"] == "unknown":
        return f"{remarks}  no longer in the sandbox"
    if reported["delivery_status"] == "FAILED":
        return f"{remarks}  gave up"
    if reported["next_attempt_at"] is not None:
        return f"{remarks}  next attempt at {reported['next_attempt_at'][11:19]}"
    return remarks


def _parse(body: str) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:  # a fault damaged it
        return {}
    return parsed if isinstance(parsed, dict) else {}
