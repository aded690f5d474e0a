"""The client's methods, models and problems are those of the OpenAPI document."""

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from psp_sandbox.client import _clients, _http, errors, models, problems
from psp_sandbox.client._calls import Call
from psp_sandbox.client._decode import decode
from psp_sandbox.client._generated import nouns
from sandbox.domain.errors import CODES

ROOT = Path(__file__).parent.parent
DOCUMENT: dict[str, Any] = json.loads((ROOT / "openapi/openapi.json").read_text())
OPERATIONS = {(verb.upper(), path): operation for path, item in DOCUMENT["paths"].items() for verb, operation in item.items()}
PLACES = {(verb, re.sub(r"\{\w+\}", "{}", path)): (verb, path) for verb, path in OPERATIONS}
"""The operations by their paths without the names of parameters."""
PAYOUT: dict[str, Any] = DOCUMENT["components"]["schemas"]["Payout"]["examples"][0]


class Recorder:
    """Stands in for a caller, and records the calls."""

    def __init__(self) -> None:
        self.calls: list[Call[Any]] = []

    def send(self, call: Call[Any]) -> None:
        self.calls.append(call)

    def pages(self, call: Call[Any]) -> None:
        """Record the call for a page, whose result is its items."""
        self.send(replace(call, result=cast(Any, list)[call.result], member="data"))


def apis(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the generated nouns of a client, and itself as the noun without a name."""
    recorder = Recorder()
    yield "", kind(recorder)
    for name, member in inspect.getmembers(kind):
        if hasattr(member, "func"):
            yield name, getattr(kind(recorder), name)


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the generated methods of all nouns with their names, such as payouts.create."""
    for noun, api in apis(kind):
        for name, method in inspect.getmembers(api, inspect.ismethod):
            if not name.startswith("_"):
                generated = next(c.__dict__[name] for c in reversed(type(api).__mro__) if name in c.__dict__)
                if "_generated" in generated.__module__:
                    yield f"{noun}.{name}".lstrip("."), generated.__get__(method.__self__)


def test_the_generated_files_are_those_of_the_document(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "openapi/generate_client.py", tmp_path], check=True)
    written = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.py")}
    folder = ROOT / "psp_sandbox/client"
    present = {
        path.relative_to(folder): path.read_text()
        for path in folder.rglob("*.py")
        if "Generated from openapi" in path.read_text()[:1000]
    }
    assert written == present, "run: .venv/bin/python openapi/generate_client.py"


def test_the_operations_of_the_command_line_are_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "openapi/cli_operations.py", tmp_path / "operations.json"], check=True)
    written, present = (path.read_text() for path in (tmp_path / "operations.json", ROOT / "sandbox/cli/operations.json"))
    assert written == present, "run: .venv/bin/python openapi/generate_client.py"


def calls() -> Iterator[tuple[tuple[str, str], Call[Any]]]:
    """Yield the call of each generated method, and the method and path of its operation."""
    for _, method in methods(nouns.Nouns):
        parameters = inspect.signature(method).parameters.values()
        method(**{p.name: "{x}" for p in parameters if p.default is inspect.Parameter.empty})
        call = method.__self__._caller.calls.pop()
        yield PLACES[call.method, re.sub("%7Bx%7D", "{}", call.path)], call


def test_every_operation_has_one_method() -> None:
    called = set()
    for place, call in calls():
        operation = OPERATIONS[place]
        assert place not in called
        called.add(place)
        takes_key = any("idempotency-key" in parameter.get("$ref", "") for parameter in operation.get("parameters", []))
        assert takes_key == (call.idempotency_key is not None) == (call.method != "GET")
        assert call.auth == (
            "none" if not operation["security"] else "operator" if "OperatorKey" in operation["security"][0] else "merchant"
        )
    assert OPERATIONS.keys() - called == {("GET", "/sandbox/v1/stream")}


def test_both_clients_have_the_same_methods() -> None:
    def signatures(client: type, its_nouns: type) -> dict[str, str]:
        kinds = {"": client, **{noun: type(api) for noun, api in apis(its_nouns) if noun}}
        return {
            f"{noun}.{name}": str(inspect.signature(method).replace(return_annotation=inspect.Signature.empty))
            for noun, kind in kinds.items()
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name not in ("close", "aclose")
        }

    found = signatures(_clients.Client, nouns.Nouns)
    assert found == signatures(_clients.AsyncClient, nouns.AsyncNouns)
    assert found.keys() >= {".drain", ".stream", ".with_key", "payouts.create", "payouts.wait_for", "clock.advance"}


def test_the_page_about_the_client_lists_all_methods() -> None:
    listed = dict(re.findall(r"^\| `?([\w ]+)`? \| (`.+) \|$", (ROOT / "docs/client.md").read_text(), re.M))
    expected = {}
    for noun, api in apis(nouns.Nouns):
        kind = type(api) if noun else _clients.Client
        names = {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
        expected[noun or "the client itself"] = ", ".join(f"`{name}`" for name in sorted(names - {"close", "with_key"}))
    assert {noun: methods for noun, methods in listed.items() if noun != "NotReached"} == expected


def test_every_code_of_the_document_has_an_exception() -> None:
    documented = {
        code
        for response in DOCUMENT["components"]["responses"].values()
        for code in response["content"]["application/problem+json"]["examples"]
    }
    assert problems.BY_CODE.keys() == documented
    assert documented <= CODES.keys()
    error = _http.problem_error(418, {"code": "TEAPOT"}, "short and stout", "r-1")
    assert type(error) is errors.ProblemError
    assert str(error) == "418 HTTP_418: short and stout (request id r-1)"


def test_all_models_can_be_decoded() -> None:
    kinds = [kind for name in models.__all__ if inspect.isclass(kind := getattr(models, name))]
    assert len(kinds) > 100
    for kind in kinds:
        assert decode(cast(Any, list)[kind], []) == []  # compiles the decoder of the model, and of all that it contains


def test_a_newer_sandbox_may_send_more() -> None:
    payout = decode(models.Payout, {**PAYOUT, "status": "TELEPORTED", "colour": "blue"})
    assert (payout.status, payout.amount, payout.processed_at) == ("TELEPORTED", Decimal("1500.00"), None)
    assert payout.created_at == datetime(2026, 1, 31, 12, tzinfo=UTC)
    run = {"drained": True, "now": "2026-01-31T12:00:00.000Z", "stopped_because": None, "steps": 1, "ran": [{"kind": "dance"}]}
    assert cast(Any, decode(models.Drained, run).ran) == [{"kind": "dance"}]


def test_importing_the_package_loads_nothing_that_takes_time() -> None:
    """pytest imports the package in every project that has it installed."""
    code = (
        "import sys, psp_sandbox; assert 'psp_sandbox.client' not in sys.modules\n"
        "from psp_sandbox import Client; client = Client(); client.payouts\n"
        "print(*{'httpx', 'asyncio', 'msgspec', 'sandbox', 'psp_sandbox.client.models.users'} & sys.modules.keys())"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.strip() == ""
