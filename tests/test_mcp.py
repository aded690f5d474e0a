"""`psp mcp`, used by the official client: an agent gets a whole story done, and can do only what its key may do."""

import asyncio
import json
import re
import socket
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client

from sandbox.cli.mcp_server import results, wording
from sandbox.cli.mcp_server.access import Access, Keys
from sandbox.cli.mcp_server.server import TOOLS, create_server
from sandbox.domain.errors import CODES
from tests.harness.agent import Agent, agent_with
from tests.harness.command import invoke
from tests.harness.receiver import Receiver
from tests.harness.world import Stack, World

PAGE = Path(__file__).parent.parent / "docs/mcp.md"
PSP = (sys.executable, "-m", "sandbox.cli.main", "mcp")
SECRET = re.compile(r"sk_\w|whsec_\w|ak_\w")
"""What every key and secret of the sandbox begins with."""

HTTP_TERMS: Final = re.compile(r"[Hh]eader|X-[A-Z]\w|\b(?:GET|POST|PATCH|PUT|DELETE) |/(?:api|sandbox)/v1|new idempotency key")


async def test_a_whole_story_over_standard_input_and_output(stack: Stack, receiver: Receiver, tmp_path: Path) -> None:
    keys = {"PSP_URL": stack.api_url, "PSP_API_KEY": stack.api_key, "PSP_ADMIN_KEY": stack.admin_key}
    command = StdioServerParameters(command=PSP[0], args=list(PSP[1:]), env=keys, cwd=Path(__file__).parent.parent)
    log = tmp_path / "stderr.log"
    with log.open("w") as errors:
        async with Client(stdio_client(command, errlog=errors)) as client:
            agent = Agent(client)
            await _tell_the_story(agent, receiver)
    for text in (*agent.seen, log.read_text()):
        assert not SECRET.search(text), text


async def _tell_the_story(agent: Agent, receiver: Receiver) -> None:
    assert set(await agent.tools()) == {tool.name for tool in TOOLS}
    world = (await agent("create_world", name="story", opening_balance="500.00", frozen_at="2030-01-01T00:00:00Z"))["world"]
    scenarios = {entry["name"] for entry in (await agent("list_scenarios", world=world))["scenarios"]}
    assert "returned" in scenarios
    endpoint = (await agent("create_webhook_endpoint", url=receiver.url, world=world))["endpoint"]["id"]
    payout = (await agent("create_payout", amount="120.00", scenario="returned", world=world))["payout"]
    assert payout["status"] == "PENDING"
    assert (await agent("get_status", world=world))["clock"]["frozen"] is True
    run = await agent("advance_clock", seconds=30 * 86_400, world=world)
    assert (run["complete"], run["now"]) == (True, "2030-01-31T00:00:00.000Z")
    found = await agent("get_payout", payout_id=payout["id"], world=world)
    assert [entry["to"] for entry in found["timeline"]] == ["PENDING", "PROCESSING", "SUCCESS", "RETURNED"]
    assert found["payout"]["amount"] == "120.00"
    assert {delivery["status"] for event in found["events"] for delivery in event["deliveries"]} == {"SUCCEEDED"}
    assert len(found["ledger_entries"]) == 4
    assert (await agent("list_ledger_entries", world=world))["balance"]["available_balance"] == "500.00"
    assert (await agent("audit", world=world))["failed"] == []
    deliveries = (await agent("list_deliveries", endpoint_id=endpoint, world=world))["items"]
    assert [delivery["attempts"][0]["status"] for delivery in deliveries] == [200] * 4
    await agent("resend_webhook", delivery_id=deliveries[0]["id"], world=world)
    await agent("drain", world=world)
    assert len(receiver.received) == 5
    fault = (await agent("inject_fault", kind="error", status=503, method="POST", world=world))["fault"]["id"]
    await _until_hit(agent, "UNAVAILABLE", world=world)
    assert fault in agent.seen[-1]
    await agent("delete_fault", fault_id=fault, world=world)
    failed = (await agent("create_payout", amount="1.00", account_suffix="0004", world=world))["payout"]["id"]
    await agent("simulate_payout", payout_id=failed, status="FAILED", failure_code="BANK_REJECTED", world=world)
    assert [item["id"] for item in (await agent("list_payouts", status=["FAILED"], world=world))["items"]] == [failed]
    assert (await agent("resume_clock", world=world))["clock"]["frozen"] is False
    assert (await agent("freeze_clock", world=world))["frozen"] is True
    calls = await _calls(agent, world, fault)
    assert (calls[0]["status"], calls[0]["fault"]["id"], calls[0]["own"]) == (503, fault, True)
    assert (await agent("list_requests", world=world))["items"] == []
    explained = await agent("explain_payout", payout_id=payout["id"], world=world)
    assert [change.split(", by ")[0].split(": ")[1] for change in explained["changes"]][-1] == "SUCCESS → RETURNED"
    assert explained["next"] == ["Nothing is scheduled."]
    assert [webhook["status"] for webhook in explained["webhooks"]] == ["SUCCEEDED"] * 4
    assert all(webhook["explanation"] for webhook in explained["webhooks"])
    snapshot = (await agent("create_snapshot", name="before", world=world))["snapshot"]["id"]
    changed = await agent("update_webhook_endpoint", endpoint_id=endpoint, status="DISABLED", world=world)
    assert changed["endpoint"]["status"] == "DISABLED"
    await agent("delete_webhook_endpoint", endpoint_id=endpoint, world=world)
    assert (await agent("list_webhook_endpoints", world=world))["items"] == []
    assert [item["id"] for item in (await agent("list_snapshots", world=world))["items"]] == [snapshot]
    await agent("restore_snapshot", snapshot_id=snapshot, world=world)
    restored = (await agent("list_webhook_endpoints", world=world))["items"]
    assert [(item["id"], item["status"]) for item in restored] == [(endpoint, "ENABLED")]
    worlds = (await agent("list_worlds", limit=50))["items"]  # other tests create worlds meanwhile
    assert [item["usable"] for item in worlds if item["world"] == world] == [True]
    await agent("delete_world", world=world)
    assert await agent.refused("audit", world=world) == "UNKNOWN_WORLD"


async def _until_hit(agent: Agent, code: str, **arguments: Any) -> dict[str, Any]:
    """Create payouts until a fault hits one, and return its arguments. It takes effect within a second in all processes."""
    for number in range(1000):
        own = {"amount": "0.01", "merchant_reference": f"hit-{number}", "idempotency_key": f"hit-{number}"} | arguments
        result = await agent.client.call_tool("create_payout", own)
        assert isinstance(result.structured_content, dict)
        agent.seen.append(json.dumps(result.structured_content))
        if result.is_error:
            assert result.structured_content["error"]["code"] == code
            return own
    raise AssertionError("the fault does not hit")


async def _calls(agent: Agent, world: str, fault: str) -> list[dict[str, Any]]:
    """Return the calls that a fault hit. The journal shows them within a second."""
    for _ in range(300):
        items: list[dict[str, Any]] = (await agent("list_requests", fault_id=fault, include_own=True, world=world))["items"]
        if items:
            return items
        await asyncio.sleep(0.1)
    raise AssertionError("the journal does not show the call")


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("create_payout", {}, "INVALID_ARGUMENTS"),
        ("create_payout", {"amount": 5}, "INVALID_ARGUMENTS"),
        ("create_payout", {"amount": "5.00", "acount_suffix": "0001"}, "INVALID_ARGUMENTS"),
        ("create_payout", {"amount": "5.00", "account_suffix": "1"}, "INVALID_ARGUMENTS"),
        ("create_payout", {"amount": "5.001"}, "VALIDATION_ERROR"),
        ("create_payout", {"amount": "5.00", "scenario": "nonsense"}, "VALIDATION_ERROR"),
        ("create_payout", {"amount": "5.00", "scenario": "a\r\nb: c"}, "INVALID_ARGUMENTS"),
        ("create_payout", {"amount": "5.00", "metadata": {"a": "\ud800"}}, "MALFORMED_JSON"),
        ("create_payout", {"amount": "5.00", "metadata": {"a": {"b": [[[]]]}}}, "INVALID_ARGUMENTS"),
        ("create_payout", {"amount": "9999999.00"}, "INSUFFICIENT_BALANCE"),
        ("create_payout", {"amount": "5.00", "idempotency_key": "ü"}, "INVALID_ARGUMENTS"),
        ("get_payout", {"payout_id": ""}, "INVALID_ARGUMENTS"),
        ("get_payout", {"payout_id": ".."}, "INVALID_ARGUMENTS"),
        ("get_payout", {"payout_id": "../../sandbox/v1/world?x=\x00"}, "NOT_FOUND"),
        ("get_payout", {"payout_id": "x", "wait_for": ["SENT"]}, "INVALID_ARGUMENTS"),
        ("list_payouts", {"limit": 51}, "INVALID_ARGUMENTS"),
        ("list_payouts", {"created_from": "yesterday"}, "VALIDATION_ERROR"),
        ("advance_clock", {}, "VALIDATION_ERROR"),
        ("advance_clock", {"seconds": -1}, "INVALID_ARGUMENTS"),
        ("advance_clock", {"seconds": float("nan")}, "VALIDATION_ERROR"),
        ("advance_clock", {"seconds": 1e300}, "VALIDATION_ERROR"),
        ("inject_fault", {"kind": "error"}, "VALIDATION_ERROR"),
        ("inject_fault", {"kind": "truncated_body"}, "INVALID_ARGUMENTS"),
        ("inject_fault", {"kind": "drop", "method": "POST"}, "VALIDATION_ERROR"),
        ("delete_fault", {"fault_id": "none"}, "NOT_FOUND"),
        ("create_webhook_endpoint", {"url": "ftp://x"}, "VALIDATION_ERROR"),
        ("update_webhook_endpoint", {"endpoint_id": "none", "status": "ENABLED"}, "NOT_FOUND"),
        ("restore_snapshot", {"snapshot_id": "none"}, "NOT_FOUND"),
        ("explain_payout", {"payout_id": "none"}, "NOT_FOUND"),
        ("certify_receiver", {"url": "http://127.0.0.1:9"}, "INVALID_ARGUMENTS"),
        ("certify_receiver", {"test_id": "none"}, "NOT_FOUND"),
        ("inject_fault", {"kind": "latency", "milliseconds": 1, "hits": 10**9}, "VALIDATION_ERROR"),
        ("export_world", {"file": "/etc/passwd"}, "INVALID_ARGUMENTS"),
        ("get_status", {"world": "\ud800"}, "INVALID_ARGUMENTS"),
    ],
)
async def test_wrong_arguments_are_tool_errors(
    stack: Stack, world: World, name: str, arguments: dict[str, Any], code: str
) -> None:
    async with agent_with(stack, Keys(world.api_key)) as agent:
        assert await agent.refused(name, **arguments) == code
        # An agent sends no headers, and knows no paths.
        assert not HTTP_TERMS.search(agent.seen[-1]), agent.seen[-1]
        assert (await agent("list_payouts"))["items"] == []


async def test_a_lost_answer_can_be_asked_for_again_with_the_same_key(stack: Stack, world: World) -> None:
    async with agent_with(stack, Keys(world.api_key)) as agent:
        await agent("inject_fault", kind="connection_reset", method="POST")
        lost = await _until_hit(agent, "UNREACHABLE")
        payout = (await agent("create_payout", **lost))["payout"]
        found = (await agent("list_payouts", merchant_reference=lost["merchant_reference"]))["items"]
        assert [item["id"] for item in found] == [payout["id"]]


def test_the_advice_for_every_code_is_in_terms_of_tools() -> None:
    for code in CODES:
        assert not HTTP_TERMS.search(wording.advice(code)), code


async def test_a_receiver_can_be_certified(stack: Stack, world: World, receiver: Receiver) -> None:
    async with agent_with(stack, Keys(world.api_key)) as agent:
        found = await agent("certify_receiver", url=receiver.url, secret=f"whsec_{'A' * 43}=", language="go")
        while found["status"] == "RUNNING":
            found = await agent("certify_receiver", test_id=found["test_id"])
        # It accepts everything.
        wrong = next(item for item in found["findings"] if item["outcome"] == "failed")
        assert found["status"] == "FAILED"
        assert wrong["fix"]
        assert wrong["answered"]["status"] == 200
        assert "func" in wrong["code"] or ":=" in wrong["code"]


async def test_secrets_are_returned_only_when_asked_for(stack: Stack, world: World, receiver: Receiver) -> None:
    async with agent_with(stack, Keys(world.api_key, stack.admin_key)) as agent:
        created = await agent("create_world")
        assert "api_key" not in created
        assert "secret" not in (await agent("create_webhook_endpoint", url=receiver.url, world=created["world"]))["endpoint"]
        assert not SECRET.search("".join(agent.seen))
        shown = await agent("create_world", show_key=True)
        arguments = {"url": receiver.url, "show_secret": True, "world": shown["world"]}
        endpoint = (await agent("create_webhook_endpoint", **arguments))["endpoint"]
        async with agent_with(stack, Keys(shown["api_key"])) as own:
            await own("create_payout", amount="5.00")
        receiver.wait_for("payout.created")
        receiver.received[0].verify(endpoint["secret"])
        # A key that got into the data, for example because the user pasted it, is not repeated.
        pasted = {"merchant_reference": "pasted", "metadata": {"key": world.api_key}}
        await agent("create_payout", amount="5.00", **pasted)
        assert world.api_key not in agent.seen[-1]
        await agent("list_payouts", search="pasted")
        assert "[redacted]" in agent.seen[-1]
        assert world.api_key not in agent.seen[-1]
        for one in (created, shown):
            await agent("delete_world", world=one["world"])


async def test_lists_and_long_texts_are_cut_and_say_so(stack: Stack, world: World) -> None:
    for _ in range(3):
        world.create_payout("0004", metadata={str(number): "x" * 500 for number in range(20)})
    async with agent_with(stack, Keys(world.api_key)) as agent:
        found = await agent("list_payouts", limit=2)
        assert (len(found["items"]), found["has_more"]) == (2, True)
        assert (await agent("list_payouts", limit=3))["has_more"] is False
        requests = (await _calls_of(agent, 3))["items"]
        assert all("[cut: " in request["request_body"] for request in requests)
    result = results.succeeded(results.Result("", {"items": ["x" * 3000] * 50, "others": [1, 2]}), ())
    data = result.structured_content
    assert data is not None
    assert len(json.dumps(data)) < 42_000
    assert data["items"][0].endswith("[cut: 3000 characters]")
    assert data["note"] == "Cut: items has 50 items. Use filters or a smaller limit to see the others."
    assert data["others"] == [1, 2]


async def _calls_of(agent: Agent, number: int) -> dict[str, Any]:
    """Return the journal's calls that created payouts. It shows them within a second."""
    for _ in range(300):
        found = await agent("list_requests", method="POST", path="/api/v1/payouts")
        if len(found["items"]) == number:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("the journal does not show the calls")


async def test_an_export_can_be_imported_and_never_overwrites_a_file(stack: Stack, world: World, tmp_path: Path) -> None:
    payout = world.create_payout("0004")["id"]
    file = tmp_path / "world.json"
    async with agent_with(stack, Keys(world.api_key), tmp_path) as agent:
        assert (await agent("export_world", file="world.json"))["bytes"] == file.stat().st_size
        assert await agent.refused("export_world", file=str(file)) == "NOT_WRITTEN"
    assert not SECRET.search(file.read_text())
    with World.create(stack) as other:
        imported = invoke("world", "import", str(file), "--yes", "--url", stack.api_url, "--api-key", other.api_key)
        assert imported.exit_code == 0, imported.output
        assert other.payout(payout)["status"] == "PENDING"


async def test_an_export_is_written_only_below_the_servers_folder(stack: Stack, world: World, tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    for path in (outside, folder / "inner"):
        path.mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    (folder / "dangling.json").symlink_to(outside / "dangling.json")
    async with agent_with(stack, Keys(world.api_key), folder) as agent:
        for file in (f"{outside}/x.json", "../outside/x.json", "inner/../../outside/x.json", f"{folder}-2.json"):
            assert await agent.refused("export_world", file=file) == "OUTSIDE_FOLDER", file
        for file in ("link/x.json", "dangling.json", "missing/x.json", "inner/../link/../link/x.json"):
            assert await agent.refused("export_world", file=file) == "NOT_WRITTEN", file
        await agent("export_world", file="inner/x.json")
        await agent("export_world", file=f"{folder}/y.json")
    async with agent_with(stack, Keys(world.api_key)) as agent:
        assert await agent.refused("export_world", file=f"{folder}/z.json") == "OUTSIDE_FOLDER"
    assert _files_below(folder) == ["dangling.json", "x.json", "y.json"]
    assert _files_below(outside) == []


def _files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.json"))


async def test_a_sandbox_that_is_down_is_a_tool_error() -> None:
    keys = Keys("sk_any")
    async with Client(create_server(Access("http://127.0.0.1:9", keys), keys)) as client:
        agent = Agent(client)
        assert await agent.refused("get_status") == "UNREACHABLE"
        with pytest.raises(MCPError, match="cannot be read"):
            await client.read_resource("psp://guide")


async def test_an_unexpected_error_does_not_show_its_text(stack: Stack, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with agent_with(stack, Keys(world.api_key)) as agent:
        monkeypatch.setattr(results, "plain", lambda value: 1 / 0)
        assert await agent.refused("audit") == "Error executing tool audit"


async def test_the_guide_is_a_resource(stack: Stack, world: World) -> None:
    served = world.get("/llms.txt")
    keys = Keys(world.api_key)
    async with Client(create_server(Access(stack.api_url, keys), keys)) as client:
        assert {str(resource.uri) for resource in (await client.list_resources()).resources} == {
            "psp://guide",
            "psp://guide-full",
        }
        if served.status_code == 200:
            content = (await client.read_resource("psp://guide")).contents[0]
            assert content.model_dump()["text"] == served.text
        else:
            # The guide is built by `make install`, so it may be absent in a checkout.
            with pytest.raises(MCPError, match="responded with 404"):
                await client.read_resource("psp://guide")


async def test_every_tool_explains_itself(stack: Stack) -> None:
    async with agent_with(stack, Keys("sk_any", "ak_any")) as agent:
        for tool in (await agent.tools()).values():
            assert tool.title
            assert len(tool.description or "") > 25, tool.name
            assert not HTTP_TERMS.search(tool.description or ""), tool.name
            assert tool.annotations is not None
            assert tool.input_schema["additionalProperties"] is False
            for name, schema in tool.input_schema["properties"].items():
                assert schema.get("description") or "enum" in schema, (tool.name, name)
                # A path is only that of the calls of the code under test.
                assert name == "path" or not HTTP_TERMS.search(schema.get("description", "")), (tool.name, name)
                assert {"type": "null"} not in schema.get("anyOf", ()) or "null" in schema["description"], (tool.name, name)


def test_the_page_lists_every_tool() -> None:
    table = PAGE.read_text().partition("## Tools")[2].partition("\n## ")[0]
    named = [name for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert named == [tool.name for tool in TOOLS]


def test_the_command_explains_what_is_missing_or_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("0.0.0.0:8765", "example.com:1", "[::]:8765", "8765x", "70000", ""):
        assert invoke("mcp", "--http", address).exit_code == 2, address
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = invoke("mcp", "--http", str(taken.getsockname()[1]), "--json")
    assert (used.exit_code, used.stdout, json.loads(used.stderr)["code"]) == (1, "", "NOT_STARTED")
    assert invoke("mcp", "--url", "http://sandbox.example").exit_code == 2
    monkeypatch.setattr("sandbox.cli.mcp.find_spec", lambda name: None)
    missing = invoke("mcp")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "pip install 'psp-sandbox[mcp]'" in missing.stderr


async def test_every_list_returns_as_many_items_as_the_page_says(stack: Stack) -> None:
    (most,) = re.findall(r"Lists return up to (\d+) items", PAGE.read_text())
    async with agent_with(stack, Keys(stack.api_key, stack.admin_key)) as agent:
        limits = {name: tool.input_schema["properties"].get("limit") for name, tool in (await agent.tools()).items()}
    found = {name: limit["maximum"] for name, limit in limits.items() if limit is not None}
    assert set(found) >= {"list_deliveries", "list_payouts", "list_requests", "list_ledger_entries"}
    assert set(found.values()) == {int(most)}
