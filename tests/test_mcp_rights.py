"""An agent can do only what its key may do, over standard input and output and over HTTP."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from sandbox.cli.mcp_server.access import Keys
from tests.harness.agent import agent_over_http, agent_with
from tests.harness.supervised import end
from tests.harness.waiting import until
from tests.harness.world import Stack, World
from tests.test_mcp import PSP, SECRET


@pytest.fixture(scope="module")
def http_url(stack: Stack) -> Iterator[str]:
    """Yield the URL of a server over HTTP, whose own environment has keys that no client may use."""
    environment = {**os.environ, "PSP_URL": stack.api_url, "PSP_API_KEY": stack.api_key, "PSP_ADMIN_KEY": stack.admin_key}
    process = subprocess.Popen([*PSP, "--http", "0", "--json"], env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        url: str = json.loads(process.stdout.readline())["url"]
        until(lambda: _is_open(url), 60)
        yield url
    finally:
        end(process)
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == 0


def _is_open(url: str) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", httpx.URL(url).port or 0)) == 0


async def test_a_member_key_gets_the_apis_refusal(stack: Stack, world: World) -> None:
    member = world.post("/sandbox/v1/keys", {"role": "member"}).json()["api_key"]
    async with agent_with(stack, Keys(member)) as agent:
        payout = (await agent("create_payout", amount="5.00", requires_approval=True))["payout"]
        assert payout["status"] == "REQUESTED"
        assert await agent.refused("simulate_payout", payout_id=payout["id"], status="PENDING") == "FORBIDDEN"
    assert world.payout(payout["id"])["status"] == "REQUESTED"
    async with agent_with(stack, Keys(world.api_key)) as admin:
        assert (await admin("simulate_payout", payout_id=payout["id"], status="PENDING"))["payout"]["status"] == "PENDING"


async def test_without_an_admin_key_there_are_no_worlds(stack: Stack, world: World) -> None:
    async with agent_with(stack, Keys(world.api_key)) as agent:
        tools = await agent.tools()
        assert not {"create_world", "list_worlds", "delete_world"} & set(tools)
        assert all("world" not in tool.input_schema["properties"] for tool in tools.values())
        assert "Unknown tool" in await agent.refused("create_world")
        assert await agent.refused("get_status", world=stack.merchant_id) == "INVALID_ARGUMENTS"


async def test_a_key_finds_only_its_own_merchant(stack: Stack, world: World) -> None:
    with World.create(stack) as other:
        payout = world.create_payout()["id"]
        async with agent_with(stack, Keys(other.api_key)) as agent:
            assert await agent.refused("get_payout", payout_id=payout) == "NOT_FOUND"
            assert await agent.refused("simulate_payout", payout_id=payout, status="CANCELLED") == "NOT_FOUND"
            assert (await agent("list_payouts"))["items"] == []
        async with agent_with(stack, Keys(world.api_key)) as agent:
            assert (await agent("get_payout", payout_id=payout))["payout"]["id"] == payout


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_over_http_each_client_has_the_rights_of_its_own_headers(http_url: str, stack: Stack, mode: str) -> None:
    with World.create(stack) as first, World.create(stack, opening_balance="7.00") as second:
        payout = second.create_payout(amount="5.00")["id"]
        async with (
            agent_over_http(http_url, mode, Authorization=f"Bearer {first.api_key}") as bearer,
            agent_over_http(http_url, mode, X_API_KEY=second.api_key) as header,
            agent_over_http(http_url, mode) as nobody,
            agent_over_http(http_url, mode, X_API_KEY="sk_wrong") as wrong,
        ):
            for _ in range(2):
                assert await bearer.refused("get_payout", payout_id=payout) == "NOT_FOUND"
                assert (await header("get_payout", payout_id=payout))["payout"]["id"] == payout
                assert await nobody.refused("get_status") == "MISSING_API_KEY"
                assert await nobody.refused("create_world") == "MISSING_ADMIN_KEY"
                assert await header.refused("list_worlds") == "MISSING_ADMIN_KEY"
                assert await wrong.refused("get_status") == "INVALID_API_KEY"
            # Files would be the server's, not the client's.
            assert "export_world" not in await bearer.tools()
            for agent in (bearer, header, nobody, wrong):
                assert not [text for text in agent.seen if SECRET.search(text)]


async def test_over_http_a_world_belongs_to_the_admin_key_that_created_it(http_url: str, stack: Stack, world: World) -> None:
    async with (
        agent_over_http(http_url, X_ADMIN_KEY=stack.admin_key) as creator,
        agent_over_http(http_url, X_ADMIN_KEY="guess", X_API_KEY=world.api_key) as guesser,
        agent_over_http(http_url, X_API_KEY=world.api_key) as merchant,
    ):
        created = (await creator("create_world", opening_balance="3.00"))["world"]
        assert (await creator("get_status", world=created))["balance"]["available_balance"] == "3.00"
        assert await guesser.refused("get_status", world=created) == "UNKNOWN_WORLD"
        assert await merchant.refused("get_status", world=created) == "UNKNOWN_WORLD"
        assert await guesser.refused("create_world") == "INVALID_API_KEY"
        assert await guesser.refused("delete_world", world=created) == "INVALID_API_KEY"
        await creator("delete_world", world=created)


def test_over_http_other_hosts_and_origins_are_refused(http_url: str) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Accept": "application/json, text/event-stream"}
    assert httpx.post(http_url, json=ping, headers=headers).status_code < 400
    assert httpx.post(http_url, json=ping, headers=headers | {"Host": "evil.example"}).status_code == 403
    assert httpx.post(http_url, json=ping, headers=headers | {"Origin": "http://evil.example"}).status_code == 403
