"""The server: its tools and resources, over standard input and output or over HTTP."""

import asyncio
import socket
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

import httpx
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError
from mcp.server.transport_security import TransportSecuritySettings

from sandbox.cli.mcp_server import clock, faults, payouts, receivers, snapshots, webhooks, worlds
from sandbox.cli.mcp_server.access import Access, Keys
from sandbox.cli.mcp_server.tool import Definition, serve
from sandbox.server.protocol import Limits
from sandbox.server.serve import Server, uvicorn_config

TOOLS: Final[tuple[Definition, ...]] = (
    worlds.create_world,
    worlds.list_worlds,
    worlds.delete_world,
    payouts.list_scenarios,
    payouts.create_payout,
    payouts.get_payout,
    payouts.explain_payout,
    payouts.list_payouts,
    payouts.simulate_payout,
    payouts.list_ledger_entries,
    payouts.top_up_balance,
    clock.get_status,
    clock.freeze_clock,
    clock.advance_clock,
    clock.resume_clock,
    clock.drain,
    webhooks.create_webhook_endpoint,
    webhooks.list_webhook_endpoints,
    webhooks.update_webhook_endpoint,
    webhooks.delete_webhook_endpoint,
    webhooks.list_deliveries,
    webhooks.resend_webhook,
    receivers.certify_receiver,
    faults.inject_fault,
    faults.delete_fault,
    faults.list_requests,
    worlds.audit,
    snapshots.create_snapshot,
    snapshots.list_snapshots,
    snapshots.restore_snapshot,
    worlds.export_world,
)
"""All tools, in the order in which agents see them."""
PATH: Final = "/mcp"
_INSTRUCTIONS: Final = """\
PSP Sandbox is a mock payment service provider, to test payout integrations against. No real money moves.

A payout goes through statuses (PENDING, PROCESSING, SUCCESS, FAILED, RETURNED ...) along a scenario; list_scenarios lists them.
Each world (merchant) has its own balance, ledger and clock. Freeze the clock to decide when anything happens, and advance it to
let hours of retries or days until a return pass in a moment. inject_fault makes the API or the webhooks misbehave. audit checks
that the books are right. Amounts are in PKR, as text with two decimals. Times are the world's.\
"""
_MAX_REQUESTS: Final = 100
"""How many requests and connections there may be at the same time over HTTP. Others get 503."""
_GUIDE_SECONDS: Final = 10.0
_MAX_GUIDE: Final = 400_000


def create_server(access: Access, own: Keys | None) -> MCPServer[None]:
    """Return the server. With `own` keys, it runs over stdio and has the tools that these keys allow; otherwise over HTTP."""
    has_worlds = own is None or own.admin_key is not None
    shown = [
        definition
        for definition in TOOLS
        if (has_worlds or definition.scope != "operator") and (own is not None or not definition.is_local)
    ]
    server: MCPServer[None] = MCPServer(
        "psp-sandbox",
        title="PSP Sandbox",
        instructions=_INSTRUCTIONS,
        version=version("psp-sandbox"),
        tools=[serve(definition, access, has_worlds=has_worlds) for definition in shown],
        log_level="WARNING",
    )
    for name, path, title in (("guide", "/llms.txt", "The guide's index"), ("guide-full", "/llms-full.txt", "The whole guide")):
        read = _reader(access.url.rstrip("/") + path)
        server.resource(f"psp://{name}", name=name, title=title, description=f"{title}, as text.", mime_type="text/plain")(read)
    return server


def run_stdio(url: str, keys: Keys, folder: Path | None) -> None:
    """Serve one client over standard input and output, until the input ends. Tools may write files below `folder` only."""
    asyncio.run(create_server(Access(url, keys, folder), keys).run_stdio_async())


def run_http(url: str, server_socket: socket.socket) -> None:
    """Serve clients over streamable HTTP on a loopback address, until SIGINT or SIGTERM. Each request brings its own keys."""
    # The server checks the host of each request. This rule of the library checks the origin too.
    names = ("127.0.0.1", "localhost", "[::1]")
    security = TransportSecuritySettings(
        allowed_hosts=[f"{name}:*" for name in names], allowed_origins=[f"http://{name}:*" for name in names]
    )
    # No sessions: a request has exactly the rights of its own headers, and nothing is kept for clients that have left.
    app = create_server(Access(url, None), None).streamable_http_app(
        streamable_http_path=PATH, json_response=True, stateless_http=True, transport_security=security
    )
    config = uvicorn_config(app, url, (), Limits(), limit_concurrency=_MAX_REQUESTS)
    Server(config).run(sockets=[server_socket])


def _reader(url: str) -> Callable[[], object]:
    async def read() -> str:
        try:
            async with httpx.AsyncClient(timeout=_GUIDE_SECONDS, verify=url.startswith("https:")) as http:
                response = await http.get(url)
        except httpx.HTTPError as error:
            raise ResourceError(f"{url} cannot be read: {type(error).__name__}. Is the sandbox running?") from error
        if not response.is_success:
            raise ResourceError(f"{url} responded with {response.status_code}. The guide may not be built.")
        return response.text[:_MAX_GUIDE]

    return read
