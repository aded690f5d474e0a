"""`psp certify --app`: start the receiver, test it, and kill and restart it in between."""

import asyncio
import shlex
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any, Final

import msgspec

from sandbox.cli.failures import usage_error
from sandbox.server.dialects.dialect import load_dialects
from sandbox.server.dialects.registration import BUILT_IN
from sandbox.server.dialects.rendering import wire_formats
from sandbox.webhooks.outbound.sender import WebhookSender
from sandbox.webhooks.receiver_tests.application import Application, ApplicationError
from sandbox.webhooks.receiver_tests.requests import ReceiverTestBody
from sandbox.webhooks.receiver_tests.restart import check_restart
from sandbox.webhooks.receiver_tests.results import shown, summary
from sandbox.webhooks.receiver_tests.runner import target_of

_EVERYWHERE: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))
"""The command sends from the user's own machine, to a URL that the user gave."""


def certified_with_app(command: str, body: dict[str, Any], test: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Start the receiver with `command`, run the `test` and then the check of a restart, and return the test with both.

    `body` is that of the request for the test. Raises Failure if the command is not usable, or without a probe.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise usage_error(f"--app is not a command: {error}.") from None
    if not words:
        raise usage_error("--app is empty: give the command that starts the receiver.")
    if "probe_url" not in body:
        raise usage_error("--app needs --probe-url: only the probe shows what a restart loses.")
    return asyncio.run(_run(Application(words, body["url"]), body, test))


async def _run(application: Application, body: dict[str, Any], test: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    target = target_of(msgspec.convert(body, ReceiverTestBody), wire_formats(load_dialects(BUILT_IN, None)))
    try:
        async with application:
            found = await asyncio.to_thread(test)
            if found["error"] is not None or found["checks"][0]["outcome"] != "passed":
                return found
            sender = WebhookSender(_EVERYWHERE)
            try:
                finding = shown(await check_restart(sender, target, application), body["signing"])
            finally:
                await sender.close()
    except ApplicationError as error:
        raise usage_error(str(error)) from None
    checks = [*found["checks"], msgspec.to_builtins(finding)]
    outcomes = [check["outcome"] for check in checks]
    return {
        **found,
        "status": "FAILED" if "failed" in outcomes else "PASSED",
        "checks": checks,
        "summary": msgspec.to_builtins(summary(outcomes, has_probe=True)),
        "not_visible": [one for one in found["not_visible"] if one["seen_with"] != "--app"],
    }
