"""The command line's help, choices and shell completion, and the modules that it loads at startup."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.testing import CliRunner

from sandbox.cli.main import create_app
from sandbox.domain import enumerations
from sandbox.domain.payout_states import TRANSITIONS
from sandbox.payouts.scenarios.builtin import load_catalogue
from tests.harness.command import invoke
from tests.harness.world import World


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (words, command) for every command and group."""

    def commands_in(group: TyperGroup, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        for name, command in group.commands.items():
            yield (*words, name), command
            if isinstance(command, TyperGroup):
                yield from commands_in(command, (*words, name))

    root = typer.main.get_command(create_app())
    assert isinstance(root, TyperGroup)
    return commands_in(root, ())


COMMANDS = dict(commands())
LEAF_COMMANDS = {words: command for words, command in COMMANDS.items() if not isinstance(command, TyperGroup)}


def complete(line: str) -> set[str]:
    """Return the completions that bash offers at the end of a line."""
    words = line.split(" ")
    environment = {"_PSP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return set(CliRunner().invoke(create_app(), [], env=environment).stdout.split())


def test_help_is_in_plain_words() -> None:
    """Help shows no Python types, no hard line breaks, and no description of exit codes other than the shared one."""
    for words, command in COMMANDS.items():
        ctx = command.make_context(words[-1], [], resilient_parsing=True)
        for parameter in command.get_params(ctx):
            assert not re.search(r"<|list\[|\brange\b|\bbool\b", parameter.display_type_rich(ctx)), (words, parameter.name)
        assert "Exit code 0" not in command.help, words
        assert not re.search(r"[^\n]\n[^\n]", command.help), (words, "a hard line break")
    shown = invoke("payouts", "list", "--help").stdout
    assert {"REQUESTED", "RETURNED", "BANK"} <= set(re.findall(r"\w+", shown))


def test_the_guide_lists_every_command() -> None:
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
    lines = [" ; ".join(re.findall(r"`([^`]+)`", line)) for line in page.splitlines()]
    for words in LEAF_COMMANDS:
        group = "bench" if words[0] == "bench" else words[-1]
        named = [line for line in lines if f"psp {words[0]}" in line and re.search(rf"(?<![\w-]){group}(?![\w-])", line)]
        assert named, f"psp {' '.join(words)} is not in docs/cli.md"


def test_every_parameter_has_help_and_every_command_except_run_has_json_output() -> None:
    for words, command in LEAF_COMMANDS.items():
        assert command.help, words
        for parameter in command.params:
            assert isinstance(parameter, TyperOption | TyperArgument)
            assert parameter.help, (words, parameter.name)
        if words != ("run",):
            assert "--json" in {option for parameter in command.params for option in parameter.opts}, words


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("psp payouts list --status ", set(get_args(enumerations.PayoutStatus))),
        ("psp payouts list --status SUCCESS,F", {"SUCCESS,FAILED"}),
        ("psp trigger ", set(get_args(enumerations.EventType))),
        ("psp settings set --default-scenario ", set(get_args(enumerations.DefaultScenario))),
        ("psp faults add webhooks re", {"reorder"}),
        ("psp keys create ", set(get_args(enumerations.Role))),
        ("psp payouts simulate ID FAILED --failure-code ACCOUNT_C", {"ACCOUNT_CLOSED"}),
        ("psp payouts create 5 1 --scenario retry", {"retry_then_success"}),
        ("psp verify-account 1 --wallet JAZZ", {"JAZZCASH"}),
        ("psp pay", {"payouts"}),
    ],
)
def test_choices_are_completed(line: str, offered: set[str]) -> None:
    assert complete(line) == offered


def test_choices_match_the_openapi_document(world: World) -> None:
    """Fails if the API accepts a value that the command line does not know."""
    document = world.get("/openapi.json").json()
    enums = {frozenset(found) for found in _enums(document)}
    kinds = {fault["properties"]["kind"]["enum"][0] for fault in document["components"]["schemas"].values() if _is_fault(fault)}
    assert set(get_args(enumerations.FaultKind)) == kinds
    assert set(get_args(enumerations.EventType)) == {
        "bulk_credit.completed",
        *(change.event for change in TRANSITIONS.values()),
    }
    for name in (
        "PayoutStatus", "DestType", "Account", "TransactionType", "RecordedType", "SaleStatus", "Verdict", "ItemStatus",
        "DeliveryStatus", "EndpointStatus", "SigningTime", "RetryProfile", "Role", "DefaultScenario", "Method",
    ):  # fmt: skip
        known = frozenset(get_args(getattr(enumerations, name)))
        assert known in enums or all(frozenset({value}) in enums for value in known), name


def _is_fault(schema: dict[str, Any]) -> bool:
    properties = schema.get("properties", {})
    return {"kind", "target", "match", "probability"} <= properties.keys() and "enum" in properties["kind"]


def _enums(node: Any) -> Iterator[list[str]]:
    if isinstance(node, dict):
        if isinstance(node.get("enum"), list):
            values = [value for value in node["enum"] if isinstance(value, str)]
            # A filter may also accept its values in lower case.
            yield [value for value in values if value.isupper() or value.upper() not in values]
        for value in node.values():
            yield from _enums(value)
    elif isinstance(node, list):
        for value in node:
            yield from _enums(value)


def test_scenarios_are_listed_with_their_delays(world: World) -> None:
    lines = invoke("scenarios", "list", "--url", world.stack.api_url, "--api-key", world.api_key).stdout.splitlines()
    found = {line.split()[0]: line for line in lines}
    assert found.keys() >= {scenario.name for scenario in load_catalogue().scenarios}
    assert "PROCESSING → RETRY → (2 s) PROCESSING → SUCCESS" in found["retry_then_success"]
    assert "PROCESSING → SUCCESS → (60 s) RETURNED" in found["returned"]
    assert "PROCESSING → FAILED BANK_REJECTED" in found["failed"]
    assert "PROCESSING → ON_HOLD, waits" in found["on_hold"]


def test_starting_a_command_loads_no_heavy_modules() -> None:
    """Shell completion starts the command at each press of the tab key, so slow imports must wait until they are needed."""
    heavy = (
        "litestar", "asyncpg", "piccolo", "cryptography", "redis", "arq", "aiohttp", "structlog", "httpx", "rich", "asyncio",
    )  # fmt: skip
    script = f"import json, sys, sandbox.cli.main; print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(loaded) == []
