"""`psp ipn send`: sign a bank's callback and post it, as the bank would."""

import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated

import typer

from sandbox.webhooks.signing import decode_secret, headers

app = typer.Typer(help="Play the bank that calls back.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `send` a command of its own while it is the only one."""


@app.command("send")
def send(
    payout: Annotated[str, typer.Argument(help="The payout's id, or with --by-reference the bank's psp_reference.")],
    status: Annotated[str, typer.Argument(help="Where the bank says it is: SUCCESS, FAILED, RETURNED, PROCESSING, …")],
    secret: Annotated[
        str | None, typer.Option("--secret", envvar="PSP_IPN_SECRET", help="The merchant's IPN secret (whsec_…).")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option("--ready-file", help="Take URL and secret from the file that `psp up` wrote.")
    ] = None,
    url: Annotated[str, typer.Option("--url", envvar="PSP_IPN_URL", help="Where IPNs are taken.")] = "http://127.0.0.1:8001",
    by_reference: Annotated[bool, typer.Option("--by-reference", help="Name the payout by its psp_reference.")] = False,
    psp_reference: Annotated[str | None, typer.Option("--psp-reference", help="What the bank calls the payout.")] = None,
    failure_code: Annotated[str | None, typer.Option("--failure-code", help="Why it failed, as a code.")] = None,
    failure_reason: Annotated[str | None, typer.Option("--failure-reason", help="Why it failed, in words.")] = None,
    message_id: Annotated[str | None, typer.Option("--message-id", help="The webhook-id; the same again is a repeat.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer's body and nothing else.")] = False,
) -> None:
    """Sign a callback with the merchant's IPN secret and send it. Exit 0 for a 2xx, 1 for any other answer, 2 for wrong use."""
    if ready_file is not None:
        try:
            ready = json.loads(ready_file.read_text("utf-8"))
            url, secret = ready["ipn_url"], secret or ready["ipn_secret"]
        except (OSError, ValueError, KeyError) as error:
            raise typer.BadParameter(f"{ready_file} is not a ready file of `psp up`: {error}") from error
    if secret is None:
        raise typer.BadParameter("Give the merchant's IPN secret with --secret, PSP_IPN_SECRET or --ready-file.")
    try:
        key = decode_secret(secret)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    members = {
        "psp_reference" if by_reference else "payout_id": payout,
        "status": status.upper(),
        **({"psp_reference": psp_reference} if psp_reference and not by_reference else {}),
        **({"failure_code": failure_code} if failure_code else {}),
        **({"failure_reason": failure_reason} if failure_reason else {}),
    }
    body = json.dumps(members).encode()
    signed = headers(message_id or f"msg_{os.urandom(12).hex()}", int(time.time()), body, (key,))
    request = urllib.request.Request(  # noqa: S310 -- the user's own URL
        f"{url.rstrip('/')}/ipn/callback", data=body, headers={**signed, "Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 -- as above
            code, answer = response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        code, answer = error.code, error.read().decode()
    except (urllib.error.URLError, TimeoutError) as error:
        typer.echo(f"{url} cannot be reached: {getattr(error, 'reason', error)}", err=True)
        raise typer.Exit(1) from error
    typer.echo(answer if as_json else f"{code} {answer}")
    if not 200 <= code < 300:
        raise typer.Exit(1)
