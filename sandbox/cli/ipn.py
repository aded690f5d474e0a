"""`psp ipn send`: sign and send a callback as a bank would."""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from sandbox.cli.app import App
from sandbox.cli.client import DEFAULT_URL, AsJson, Client, from_ready_file, host_of, show
from sandbox.cli.options import FailureCode, given
from sandbox.domain.enumerations import PayoutStatus

_PORT: Final = 8001
app = App("Send callbacks as a bank would.")


@app.callback()
def _group() -> None:
    """Make typer treat `send` as a subcommand although it is the only command."""


@app.command("send")
def send(
    payout: Annotated[str, typer.Argument(help="The payout's id or, with --by-reference, its psp_reference.")],
    status: Annotated[PayoutStatus, typer.Argument(help="The status that the bank reports.")],
    secret: Annotated[
        str | None, typer.Option("--secret", envvar="PSP_IPN_SECRET", help="The merchant's IPN secret (whsec_…).")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option("--ready-file", help="Read the URL and the secret from the ready file of `psp up`.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="PSP_IPN_URL",
            help=f"The URL of the IPN receiver. Default: port {_PORT} of the host in PSP_URL, or else of this machine.",
        ),
    ] = None,
    by_reference: Annotated[bool, typer.Option("--by-reference", help="Identify the payout by its psp_reference.")] = False,
    psp_reference: Annotated[str | None, typer.Option("--psp-reference", help="The bank's reference for the payout.")] = None,
    failure_code: FailureCode = None,
    failure_reason: Annotated[str | None, typer.Option("--failure-reason", help="Why it failed, in words.")] = None,
    message_id: Annotated[
        str | None, typer.Option("--message-id", help="The webhook-id. A repeated one has no effect. Default: a random one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign a callback with the merchant's IPN secret, and send it."""
    from sandbox.webhooks.signing.standard_webhooks import decode_secret, headers  # here, because it loads cryptography

    receiver = url or _beside(os.environ.get("PSP_URL") or DEFAULT_URL)
    url, secret = from_ready_file(ready_file, receiver, "ipn_url", secret, "ipn_secret")
    host_of(url)
    if secret is None:
        raise typer.BadParameter("Give the merchant's IPN secret with --secret, PSP_IPN_SECRET or --ready-file.")
    try:
        key = decode_secret(secret)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    fields = {
        "psp_reference" if by_reference else "payout_id": payout,
        "status": status,
        **given(
            psp_reference=None if by_reference else psp_reference, failure_code=failure_code, failure_reason=failure_reason
        ),
    }
    body = json.dumps(fields).encode()
    signed = headers(message_id or f"msg_{os.urandom(12).hex()}", int(time.time()), body, (key,))
    response = Client(url, {"Content-Type": "application/json"}).request_json(
        "POST", "/ipn/callback", content=body, headers=signed
    )
    show(response, as_json=as_json, text=f"Accepted: {response['id']}  {response['status']}")


def _beside(api_url: str) -> str:
    """Return the URL of the IPN receiver on the API's host. Raises BadParameter if that is not a URL."""
    host = host_of(api_url)
    return f"{urlsplit(api_url).scheme}://{f'[{host}]' if ':' in host else host}:{_PORT}"
