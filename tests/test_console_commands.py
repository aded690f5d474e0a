"""The console shows each API call as curl and as psp. Both commands make exactly the call that they stand for."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cli.client import DEFAULT_URL
from sandbox.http.operation import MULTIPART, Operation
from sandbox.http.psp_line import PspLine
from sandbox.http.psp_lines import psp_lines
from sandbox.server.console.commands import DEFAULT_CLI_URL, Commands
from tests.harness.command import invoke
from tests.harness.console import ConsoleClient
from tests.harness.console_calls import EXPRESSIBLE, FILTERS, ID, INEXPRESSIBLE, PAYOUT
from tests.harness.world import Stack, World
from tests.test_cli_help import LEAF_COMMANDS
from tests.test_operations import DOCUMENT, OPERATIONS

PSP_LINES = {operation.id: lines for operation in OPERATIONS if (lines := psp_lines(operation))}
WITHOUT_PSP_COMMAND = {
    *("root", "health", "ready", "metrics", "openapi"),  # they need no key
    *("create_listener", "claim_deliveries", "report_results", "delete_listener"),  # `psp listen` makes all these calls
    "get_receiver_test_junit",  # `psp certify --junit` writes it, for the test that it starts
}
BY_ID = {operation.id: operation for operation in OPERATIONS}
COMMANDS = Commands(OPERATIONS, DEFAULT_CLI_URL)
# Query parameters and body fields that no command has: they change nothing (the title is not a fact that a rule matches).
OF_HEADERS = {"create_payout": {"scenario"}, "create_payouts": {"scenario"}}
"""Operation → what its commands take from a header."""
OF_ACCESS = {"member": "list_payouts", "admin": "list_keys", "operator": "list_merchants"}
NOT_IN_COMMANDS = {("explain_scenario", "account_title")}


@dataclass(frozen=True)
class Sent:
    """A request, in a form that two requests with the same meaning share."""

    method: str
    path: str
    query: dict[str, str]
    body: Any


class Recorded(Exception):
    """The first request of a command, which is not sent."""

    def __init__(self, request: httpx.Request) -> None:
        self.request, self.content = request, request.read()


def path_of(operation: Operation) -> dict[str, str]:
    return dict.fromkeys(operation.path_parameters, ID)


SAMPLES = {"payout_id": ID, "user_id": ID, "bank_code": "HBL", "wallet_code": "EASYPAISA"}
"""Values that a command sends as they are: it looks up anything else as a reference, or writes it in capitals."""


def full_query(operation: Operation) -> dict[str, str]:
    """Return a value for every query parameter of an operation."""
    return {
        name: value
        for parameter in operation.query
        for name, value in (
            [("metadata[order no]", "a&b")]
            if parameter.name == "metadata"
            else [(parameter.name, SAMPLES.get(parameter.name) or _sample(parameter.schema))]
        )
    }


def _sample(schema: Mapping[str, Any]) -> str:
    if schema.get("type") == "array":
        return ",".join(schema["items"]["enum"][:2])
    if "enum" in schema:
        return str(schema["enum"][0])
    if schema.get("type") in ("integer", "number"):
        return str(schema.get("minimum", 1))
    return "2030-01-01T00:00:00+05:00" if "date" in str(schema) else "payout.*"


def normal(operation: Operation, method: str, url: str, body: Any) -> Sent:
    """Return a request without the parts that equal their defaults. JSON bodies are decoded as the API decodes them."""
    parts = urlsplit(url)
    query: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    for parameter in operation.query:
        if parameter.name in query and parameter.schema.get("type") == "number":
            query[parameter.name] = float(query[parameter.name])
        # Without `types`, a stream sends all types.
        if query.get(parameter.name) == ("*" if parameter.name == "types" else str(parameter.schema.get("default"))):
            del query[parameter.name]
    if operation.body is not None and operation.receive is None:
        decoder = msgspec.json.Decoder(operation.body)
        body = json.loads(msgspec.json.encode(decoder.decode(json.dumps(body or {}))))
    if isinstance(body, dict) and body.get("metadata") == {}:
        body["metadata"] = None
    if isinstance(body, list):
        body = sorted(body, key=json.dumps)
    return Sent(method, unquote(parts.path), query, body or None)


def expected(operation: Operation, query: Mapping[str, str], body: Any) -> Sent:
    url = str(httpx.URL("http://sandbox" + operation.path.format(**path_of(operation)), params=query))
    return normal(operation, operation.method, url, None if operation.receive is not None else body)


def sent_by_curl(operation: Operation, text: str) -> Sent:
    words = shlex.split(text.replace(" \\\n ", " "))
    assert words[:2] == ["curl", "-sS"]
    method, url, body, headers = "GET", "", None, {}
    rest = iter(words[2:])
    for word in rest:
        match word:
            case "-X":
                method = next(rest)
            case "-H":
                name, _, value = next(rest).partition(": ")
                headers[name] = value
            case "-d":
                body = json.loads(next(rest))
            case "-F":
                assert next(rest) == "file=@credits.csv"
                assert operation.body_media_type == MULTIPART
            case "--data-binary":
                assert next(rest) == "@world.json"
                assert headers.pop("Content-Type") == operation.body_media_type
            case _:
                assert not url
                url = word
    assert url.startswith(DEFAULT_URL + "/")
    keys = {"operator": {"X-ADMIN-KEY": "$PSP_ADMIN_KEY"}, "public": {}}
    wanted = dict(keys.get(operation.access, {"X-API-KEY": "$PSP_API_KEY"}))
    if operation.idempotency != "none":
        wanted["X-IDEMPOTENCY-KEY"] = "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')"
    if body is not None:
        wanted["Content-Type"] = "application/json"
    assert headers == wanted
    return normal(operation, method, url, body)


def sent_by_psp(operation: Operation, text: str) -> Sent:
    """Run a command, and return the first request that it would send."""
    words = shlex.split(text)
    assert words[0] == "psp"

    def record(_: httpx.Client, request: httpx.Request, **__: Any) -> httpx.Response:
        raise Recorded(request)

    try:
        with mock.patch.object(httpx.Client, "send", record):
            pytest.fail(f"{text} sent nothing: {invoke(*words[1:]).output}")
    except Recorded as recorded:
        request, content = recorded.request, recorded.content
    if operation.receive is not None:
        assert (b'filename="credits.csv"' if operation.body_media_type == MULTIPART else b"the world") in content
        content = b""
    return normal(operation, request.method, str(request.url), json.loads(content) if content else None)


def write_files(operation: Operation, body: Any) -> None:
    """Save what the files that commands name stand for."""
    Path("credits.csv").write_text(f"uuid,amount\n{ID},1.00\n")
    Path("world.json").write_text("the world")
    if isinstance(body, dict):
        Path("scenario.json").write_text(json.dumps(body.get("rule", body)))
        Path("signing.json").write_text(json.dumps(body.get("custom_signing")))
        for name in ("payouts", "users"):
            Path(f"{name}.csv").write_text(as_csv(body.get(name, [])))


def as_csv(items: list[dict[str, Any]]) -> str:
    rows = []
    for item in items:
        row: dict[str, str] = {}
        for name, value in item.items():
            row |= {f"{name}.{inner}": text for inner, text in value.items()} if isinstance(value, dict) else {name: value}
        rows.append({name: "true" if value is True else value for name, value in row.items()})
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def calls() -> Iterator[Any]:
    for operation in OPERATIONS:
        yield pytest.param(operation.id, {}, operation.example, id=operation.id)
        if operation.query:
            yield pytest.param(operation.id, full_query(operation), None, id=f"{operation.id}-query")
    for number, (name, body) in enumerate(EXPRESSIBLE):
        yield pytest.param(name, {}, body, id=f"{name}-{number}")


@pytest.mark.parametrize(("operation_id", "query", "body"), list(calls()))
def test_both_commands_make_the_call(
    operation_id: str, query: dict[str, str], body: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = BY_ID[operation_id]
    command = COMMANDS.of(operation_id, path_of(operation), query, body)
    call = expected(operation, query, body)
    assert sent_by_curl(operation, command.curl) == call
    assert bool(command.psp) == (operation_id not in WITHOUT_PSP_COMMAND)
    if command.psp:
        monkeypatch.chdir(tmp_path)
        write_files(operation, body)
        assert sent_by_psp(operation, command.psp) == call


@pytest.mark.parametrize(("operation_id", "body"), INEXPRESSIBLE)
def test_a_call_that_no_psp_command_can_make_has_none(operation_id: str, body: Any) -> None:
    operation = BY_ID[operation_id]
    command = COMMANDS.of(operation_id, path_of(operation), {}, body)
    assert command.psp == ""
    words = shlex.split(command.curl.replace(" \\\n ", " "))
    assert json.loads(words[words.index("-d") + 1]) == body


def test_every_operation_has_a_psp_command_or_a_reason_why_not() -> None:
    assert BY_ID.keys() - PSP_LINES.keys() == WITHOUT_PSP_COMMAND


@pytest.mark.parametrize("operation_id", list(PSP_LINES))
def test_every_line_names_a_command_its_options_and_fields_of_the_operation(operation_id: str) -> None:
    known = fields_of(operation_id)
    named: set[str] = set()
    for text in PSP_LINES[operation_id]:
        line = PspLine(text)
        names = next(words for words in LEAF_COMMANDS if list(words) == line.words[: len(words)])
        options = {
            option for parameter in LEAF_COMMANDS[names].params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {part for flag in re.findall(r"(--[\w/-]+)", text) for part in flag.split("/")} <= options
        named |= line.fields
    if "*" not in named:
        parents = {name.partition(".")[0] for name in named}
        missing = {name for name in known if name not in named and name not in parents and name.partition(".")[0] not in named}
        assert missing - {name for operation, name in NOT_IN_COMMANDS if operation == operation_id} == set()
    assert named - {"*"} - OF_HEADERS.get(operation_id, set()) <= known


def fields_of(operation_id: str) -> set[str]:
    """Return the names of an operation's path and query parameters and body fields, nested ones with dots."""
    operation = BY_ID[operation_id]
    names = [*operation.path_parameters, *(parameter.name for parameter in operation.query)]
    documented = DOCUMENT["paths"][operation.path][operation.method.lower()]
    if operation_id == "reconcile_sales":
        names += ["APPROVED", "DECLINED"]
    elif "requestBody" in documented:
        media = next(iter(documented["requestBody"]["content"].values()))
        names += sorted(_properties(media["schema"], depth=2))
    assert len(names) == len(set(names)), "a parameter and a field have the same name"
    return set(names)


def _properties(schema: Mapping[str, Any], depth: int) -> set[str]:
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found = set()
    for option in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        found |= _properties(option, depth)
    for name, inner in schema.get("properties", {}).items():
        # A field that can only be null is not a field of this variant.
        if inner.get("type") != "null":
            found.add(name)
            found |= {f"{name}.{nested}" for nested in _properties(inner, depth - 1)} if depth > 1 else set()
    return found


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
LINES = TEXTS.filter(lambda text: not any(character < " " or character == "\x7f" for character in text))
"""What the API accepts as a title or in metadata."""


@given(LINES, LINES, st.dictionaries(LINES, LINES, max_size=3), TEXTS)
def test_any_text_is_passed_unchanged(reference: str, title: str, metadata: dict[str, str], path: str) -> None:
    body = PAYOUT | {"merchant_reference": reference, "account_title": title, "metadata": metadata}
    operation = BY_ID["create_payout"]
    command = COMMANDS.of("create_payout", {}, {}, body)
    assert command.curl.replace("\\\n", "").isprintable()
    assert sent_by_curl(operation, command.curl) == expected(operation, {}, body)
    # A control character could be interpreted by the terminal, and `=` ends a key.
    texts = [reference, title, *metadata, *metadata.values()]
    has_control = any(unicodedata.category(character) == "Cc" for text in texts for character in text)
    assert (command.psp == "") == (has_control or any("=" in key for key in metadata))
    if command.psp:
        assert sent_by_psp(operation, command.psp) == expected(operation, {}, body)
    read = COMMANDS.of("get_user", {"user_id": path}, {"q": path}).curl
    url = urlsplit(shlex.split(read.replace(" \\\n ", " "))[2])
    assert (url.path.count("/"), unquote(url.path)) == (4, f"/api/v1/users/{path}")
    assert dict(parse_qsl(url.query, keep_blank_values=True)) == {"q": path}


def test_a_shell_passes_the_words_on_unchanged() -> None:
    """A real shell reads the commands as `shlex` does, and runs nothing that is in a value."""
    nasty = '$(touch x) `id` "q" it\'s ; & | > \\ \\n !! ~ * {a,b} #'
    command = COMMANDS.of("create_payout", {}, {}, PAYOUT | {"account_title": nasty, "metadata": {nasty[:5]: nasty}})
    script = f'curl() {{ printf \'%s\\0\' "$@"; }}\npsp() {{ curl "$@"; }}\n{command.curl}\n{command.psp}'
    words = run_in_shell(script, PSP_API_KEY="sk 1").stdout.split("\0")
    assert words[4:7] == ["-H", "X-API-KEY: sk 1", "-H"]
    assert re.fullmatch(r"X-IDEMPOTENCY-KEY: [0-9a-f]{32}", words[7])
    assert json.loads(words[words.index("-d") + 1])["account_title"] == nasty
    assert words[words.index("--title") + 1] == nasty
    assert words[words.index("--metadata") + 1] == f"{nasty[:5]}={nasty}"


def test_psp_does_nothing_without_a_key_of_the_merchant_whose_page_shows_the_command() -> None:
    found = {access: COMMANDS.of(name, path_of(BY_ID[name]), {}, merchant_id=ID).psp for access, name in OF_ACCESS.items()}
    script = f'psp() {{ echo "$PSP_API_KEY" "$@"; }}\n{found["member"]}'
    refused = run_in_shell(script)
    assert (refused.returncode == 0, refused.stdout, ID in refused.stderr) == (False, "", True)
    assert run_in_shell(script, PSP_API_KEY="sk 1").stdout.startswith("sk 1 ")
    assert found["admin"].startswith("PSP_API_KEY=")
    assert found["operator"].startswith("psp ")


def run_in_shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment["PATH"] = os.environ["PATH"]
    return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False, env=environment)


def test_a_body_that_is_too_long_for_an_argument_is_a_file() -> None:
    body = {"payouts": [PAYOUT] * 1000}
    command = COMMANDS.of("create_payouts", {}, {}, body)
    assert command.curl.endswith("-d @body.json")
    assert command.psp == "psp payouts batch payouts.csv"


def test_psp_is_told_a_url_that_is_not_its_default() -> None:
    assert DEFAULT_CLI_URL == DEFAULT_URL
    commands = Commands(OPERATIONS, "https://sandbox.example/")
    assert commands.of("reset", {}, {}).psp == "psp reset --url https://sandbox.example"
    assert commands.of("create_user", {}, {}, {"name": "-n"}).psp == "psp users create --url https://sandbox.example -- -n"
    assert "\n" not in commands.of("get_balance", {}, {"a": ""}).psp
    assert commands.of("get_balance", {}, {"a": ""}).curl == (
        'curl -sS https://sandbox.example/api/v1/balance \\\n  -H "X-API-KEY: $PSP_API_KEY"'
    )


def test_the_scenario_header_is_in_both_commands() -> None:
    command = COMMANDS.of("create_payout", {}, {}, PAYOUT, "returned")
    assert "-H 'X-Sandbox-Scenario: returned'" in command.curl
    assert command.psp == f"{COMMANDS.of('create_payout', {}, {}, PAYOUT).psp} --scenario returned"


def test_commands_are_readable() -> None:
    command = COMMANDS.of("create_payout", {}, {}, PAYOUT)
    assert command.psp == ("psp payouts create 1500.00 12345678900001 --bank HBL --reference INV-1001 --title 'AYESHA KHAN'")
    command = COMMANDS.of("change_webhook_endpoint", {"endpoint_id": "e"}, {}, {"filters": FILTERS[:2], "ordered": False})
    assert command.psp == (
        "psp endpoints update e --filter 'data.amount gte 1000' --filter 'data.amount lte \"1000.50\"' --unordered"
    )


@pytest.mark.parametrize("text", ["users get {user_id:nothing}", "users get [user_id]", "users get <id>"])
def test_a_line_with_a_mistake_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a"):
        PspLine(text)


def test_commands_say_which_merchant_they_are_for(world: World, stack: Stack) -> None:
    """Without a key, `psp` calls as the demo merchant, whose pages show the commands as they are."""
    for key, name in ((world.api_key, "test"), (stack.api_key, "")):
        with ConsoleClient(stack.api_url) as client:
            client.sign_in(key)
            page = unescape(client.get(f"{client.home}/payouts").text)
            assert ("psp payouts list" in page, f"For the merchant {name}:" in page) == (True, bool(name))
            needed = f'PSP_API_KEY="${{PSP_API_KEY:?set it to a key of the merchant {world.merchant_id}}}" psp payouts list'
            assert (needed in page) == bool(name)
