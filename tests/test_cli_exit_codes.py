"""Exit codes: 0 done, 1 refused, 2 usage error, 3 sandbox unreachable or 5xx, 4 awaited condition not met.

With --json, a failure prints exactly one problem object to stderr, and stdout holds the valid response or nothing.
"""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from sandbox.cli.client import Client
from tests.harness.command import CompletedCommand, invoke, run
from tests.harness.world import World

UNKNOWN_PAYOUT = "no-such-payout"


def problem_of(result: CompletedCommand) -> dict[str, Any]:
    """Return the only JSON object on stderr, which must be a problem."""
    problem: dict[str, Any] = json.loads(result.stderr)
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert isinstance(problem["status"], int)
    return problem


def test_a_refusal_exits_with_1_and_prints_the_apis_problem_unchanged(world: World) -> None:
    result = run(world, "payouts", "get", UNKNOWN_PAYOUT, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    expected = world.get(f"/api/v1/payouts/{UNKNOWN_PAYOUT}").json()
    assert problem_of(result) | {"request_id": ""} == expected | {"request_id": ""}
    plain = run(world, "payouts", "get", UNKNOWN_PAYOUT)
    assert (plain.exit_code, plain.stdout) == (1, "")
    assert plain.stderr.startswith("404 NOT_FOUND: ")


def test_a_refusal_names_every_invalid_field_once(world: World) -> None:
    plain = run(world, "payouts", "create", "nothing", "12")
    assert plain.exit_code == 1
    assert plain.stderr.count("amount: ") == plain.stderr.count("account_number: ") == 1


def test_advice_about_an_idempotency_key_is_given_only_to_who_chose_one(world: World) -> None:
    payment = ("payouts", "create", "5.00", "12345678900001", "--reference", "twice")
    assert run(world, *payment).exit_code == 0
    for more, is_advised in (((), False), (("--idempotency-key", "mine"), True)):
        for as_json in ((), ("--json",)):
            result = run(world, *payment, *more, *as_json)
            assert (result.exit_code, "DUPLICATE_REFERENCE" in result.stderr) == (1, True)
            assert ("send a new idempotency key" in result.stderr) is is_advised


def test_an_unreachable_sandbox_exits_with_3() -> None:
    url = "http://127.0.0.1:9"
    ipn = ("ipn", "send", "id", "SUCCESS", "--secret", f"whsec_{'A' * 43}=")
    for command in (("payouts", "list"), ipn, ("merchants", "list"), ("events", "watch")):
        result = invoke(*command, "--url", url, "--json")
        assert (result.exit_code, result.stdout) == (3, ""), command
        assert problem_of(result)["code"] == "UNREACHABLE"
        plain = invoke(*command, "--url", url)
        assert plain.exit_code == 3
        assert f"{url} cannot be reached" in plain.stderr


def test_a_5xx_response_exits_with_3(world: World) -> None:
    assert world.post("/sandbox/v1/faults", {"target": "api", "kind": "error", "status": 503}).status_code == 201
    result = run(world, "payouts", "list", "--json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert (problem_of(result)["status"], problem_of(result)["code"]) == (503, "UNAVAILABLE")


def test_an_invalid_choice_is_reported_in_plain_words() -> None:
    for arguments in (("keys", "create", "owner"), ("users", "transactions", "id", "--type", "owner")):
        result = invoke(*arguments, "--json")
        assert result.exit_code == 2
        assert "'owner' is not one of '" in problem_of(result)["detail"]
        assert "Value error" not in problem_of(result)["detail"]


def test_a_response_that_does_not_come_from_a_sandbox_exits_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    for status in (200, 302, 502):
        page = httpx.Response(status, html="<p>A proxy</p>", request=httpx.Request("GET", "http://127.0.0.1/"))
        monkeypatch.setattr(Client, "send", lambda *_, page=page, **__: page)
        result = invoke("payouts", "list", "--json")
        assert (result.exit_code, result.stdout) == (3, ""), status
        assert problem_of(result)["code"] == "UNEXPECTED_ANSWER"


def test_a_status_that_is_not_reached_in_time_exits_with_4(world: World) -> None:
    payout = world.create_payout("0004")["id"]
    result = run(world, "payouts", "get", payout, "--wait-for", "SUCCESS", "--timeout", "0", "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["status"] == "PENDING"
    assert problem_of(result)["code"] == "CONDITION_NOT_MET"
    plain = run(world, "payouts", "get", payout, "--wait-for", "success", "--timeout", "0")
    assert plain.exit_code == 4
    assert "PENDING" in plain.stderr
    assert run(world, "payouts", "get", payout, "--wait-for", "PENDING,FAILED").exit_code == 0


def test_wait_for_succeeds_if_the_payout_had_the_status_earlier(world: World) -> None:
    payout = world.create_payout("0003")["id"]
    world.wait_for(payout, "FAILED")
    for status, code in (("PROCESSING", 0), ("SUCCESS", 4)):
        assert run(world, "payouts", "get", payout, "--wait-for", status).exit_code == code


@pytest.mark.parametrize(
    ("command", "response"),
    [
        (("drain",), {"drained": False, "steps": 7, "stopped_because": "25 s have passed", "now": "", "ran": []}),
        (
            ("clock", "advance", "1h"),
            {
                "frozen": True, "now": "2031-01-01T00:00:00.000Z", "steps": 0, "ran": [], "complete": False,
                "stopped_because": "25 s have passed",
            },
        ),
    ],
)  # fmt: skip
def test_a_clock_command_that_stops_early_exits_with_4(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], response: dict[str, Any]
) -> None:
    monkeypatch.setattr(Client, "request_json", lambda *_, **__: response)
    result = invoke(*command, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (4, response)
    assert "25 s have passed" in problem_of(result)["detail"]


def test_a_bulk_credit_that_is_not_done_in_time_exits_with_4(monkeypatch: pytest.MonkeyPatch) -> None:
    activity = {"activity_id": "a", "status": "PROCESSING", "total": 5, "succeeded": 1, "failed": 0, "invalid": 0}
    monkeypatch.setattr(Client, "request_json", lambda *_, **__: activity)
    clock = SimpleNamespace(monotonic=itertools.count(0, 400).__next__, sleep=lambda _: None)
    monkeypatch.setattr("sandbox.cli.bulk_credit.time", clock)
    result = invoke("bulk-credit", "--retry", "a", "--json")
    assert (result.exit_code, result.stdout) == (4, "")
    assert problem_of(result)["code"] == "CONDITION_NOT_MET"


def test_events_that_do_not_arrive_in_time_exit_with_4(world: World) -> None:
    result = run(world, "events", "watch", "--types", "payout.failed", "--limit", "1", "--timeout", "0", "--json")
    assert (result.exit_code, result.stdout) == (4, '{"listening": true}\n')
    assert problem_of(result)["code"] == "CONDITION_NOT_MET"


def test_a_failed_audit_exits_with_1_and_prints_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"ok": False, "checks": [{"name": "zero_sum", "ok": False, "detail": "1.00 too much", "problems": []}]}
    monkeypatch.setattr(Client, "request_json", lambda *_, **__: report)
    result = invoke("audit", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, report)
    assert problem_of(result)["code"] == "CHECK_FAILED"


@pytest.mark.parametrize(
    "command",
    [
        ("payouts", "list", "--nonsense"),
        ("payouts", "list", "--dest-type", "CASH"),
        ("payouts", "list", "--status", "DONE"),
        ("payouts", "list", "--limit", "many"),
        ("payouts", "get"),
        ("payouts", "get", ""),
        ("payouts", "get", ".."),
        ("payouts",),
        ("payuots", "list"),
        ("clock", "advance"),
        ("faults", "add", "api", "explosion"),
        ("faults", "add", "api", "error", "--set", "status"),
        ("settings", "set"),
        ("settings", "set", "--rate-limit", "many"),
        ("sales", "reconcile"),
        ("payouts", "list", "--url", "https://psp.example.com"),
        ("payouts", "list", "--url", "psp.example.com", "--api-key", "sk"),
        ("payouts", "list", "--api-key", "sk\nx"),
        ("trigger", "payout.exploded"),
    ],
)
def test_usage_errors_exit_with_2(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--json")
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert (problem_of(result)["code"], problem_of(result)["status"]) == ("USAGE_ERROR", 400)
    plain = invoke(*command)
    assert (plain.exit_code, plain.stdout.strip() if command != ("payouts",) else "") == (2, "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "{"),
        ("b.json", '{"users": []}'),
        ("c.json", '"text"'),
        ("d.csv", "amount,bank_code\n1.00\n"),
        ("e.csv", "amount\n1.00,HBL\n"),
        ("f.csv", 'amount\n"1.00'),
        ("g.csv", "\udcff"),
    ],
)
def test_an_unreadable_file_exits_with_2_and_is_named(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode(errors="surrogateescape"))
    result = invoke("payouts", "batch", str(file), "--url", "http://127.0.0.1:9", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert str(file) in problem_of(result)["detail"]


def test_the_help_of_every_command_lists_the_exit_codes_once() -> None:
    for command in (("payouts", "list"), ("drain",), ("trigger",), ("endpoints", "create"), ("audit",), ("ipn", "send")):
        text = " ".join(invoke(*command, "--help").stdout.split())
        assert text.count("0 done, 1 refused, 2 usage error, 3 sandbox unreachable or 5xx, 4 awaited condition not met") == 1
