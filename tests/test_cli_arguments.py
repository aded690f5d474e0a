"""What people may type: references in place of ids, dates, any case, global options first, and names that are almost right."""

import re
from pathlib import Path

import pytest

from sandbox.cli.entry import delete_stale_ready_file
from tests.harness.command import invoke, run, run_json
from tests.harness.receiver import Receiver
from tests.harness.world import World


def test_a_reference_is_accepted_wherever_an_id_is(world: World) -> None:
    user = run_json(world, "users", "create", "Ayesha", "--external-id", "order/7", "--account", "12345678900004")["id"]
    run_json(world, "users", "record", "order/7", "earned", "100.00")
    reference = "3f2b8c1e-0000-4000-8000-000000000001"  # a UUID, but not an id
    payout = run_json(world, "payouts", "create", "5.00", "12345678900004", "--reference", reference)["id"]
    assert run_json(world, "payouts", "get", reference)["id"] == payout
    assert run_json(world, "payouts", "simulate", reference, "processing")["status"] == "PROCESSING"
    assert {event["payout_id"] for event in run_json(world, "events", "list", "--payout", reference)["data"]} == {payout}
    assert run_json(world, "balance", "history", "--payout-id", reference)["data"]
    assert run_json(world, "clock", "due", "--payout", reference)["data"] is not None
    assert run_json(world, "users", "balance", "order/7")["balance"] == "100.00"
    assert run_json(world, "users", "request", "order/7", "40.00")["user_id"] == user
    assert run_json(world, "payouts", "list", "--user-id", "order/7")["data"][0]["user_id"] == user
    sale = run_json(world, "sales", "create", "order/7", "Khaadi", "40.00")
    assert run_json(world, "sales", "list", "--user-id", "order/7")["data"] == [
        {**sale, **run_json(world, "sales", "get", sale["id"])}
    ]
    snapshot = run_json(world, "snapshots", "create", "before")["id"]
    assert run_json(world, "snapshots", "get", "before")["id"] == snapshot
    for command in (("payouts", "get", "no/such"), ("sales", "create", "nobody", "Khaadi", "1.00"), ("snapshots", "get", "x")):
        result = run(world, *command)
        assert (result.exit_code, "NOT_FOUND" in result.stderr or "No user" in result.stderr) == (1, True), command


def test_own_scenarios_can_be_named(world: World) -> None:
    rule = {"name": "slow_bank", "match": {"suffix": "7777"}, "steps": [{"to": "PROCESSING"}]}
    created = world.post("/sandbox/v1/scenarios", rule).json()["id"]
    assert run_json(world, "scenarios", "get", "slow_bank")["id"] == created
    assert run_json(world, "scenarios", "delete", "slow_bank") == {"deleted": created}


def test_lists_lead_with_references_and_have_readable_times_that_options_accept(world: World) -> None:
    assert run(world, "clock", "freeze", "--at", "2031-01-02").exit_code == 0
    world.create_payout("0004", merchant_reference="INV-7")
    header, row = (line.split() for line in run(world, "payouts", "list").stdout.splitlines() if "─" not in line)
    assert header[:3] == ["merchant_reference", "id", "created_at"]
    assert (row[0], row[2:4]) == ("INV-7", ["2031-01-02", "00:00:00Z"])
    for moment, is_before in (
        ("2031-01-02", True),
        ("2031-01-02 00:00:00Z", True),
        ("2031-01-02T05:00+05:00", True),
        ("2031-01-02 00:01", False),
    ):
        listed = run_json(world, "payouts", "list", "--created-from", moment)["data"]
        assert bool(listed) is is_before, moment
    wrong = run(world, "payouts", "list", "--created-to", "yesterday")
    assert (wrong.exit_code, "is not a time" in wrong.stderr) == (2, True)


def test_case_is_ignored_in_choices_codes_and_names(world: World, receiver: Receiver) -> None:
    payout = run_json(world, "payouts", "create", "5.00", "12345678900001", "--bank", "hbl", "--scenario", "On_Hold")
    assert payout["bank_code"] == "HBL"
    assert run_json(world, "payouts", "get", payout["id"], "--wait-for", "on_hold")["status"] == "ON_HOLD"
    assert (
        run_json(world, "payouts", "simulate", payout["id"], "Failed", "--failure-code", "timeout")["failure_code"] == "TIMEOUT"
    )
    assert run_json(world, "payouts", "list", "--dest-type", "bank", "--status", "Failed")["data"]
    assert run_json(world, "events", "list", "--limit", "1")["data"][0]["data"]["failure_code"] == "TIMEOUT"
    assert run_json(world, "deliveries", "list", "--status", "succeeded")["data"] == []
    assert run_json(world, "sales", "list", "--status", "approved")["data"] == []
    endpoint = run_json(world, "endpoints", "create", receiver.url, "--events", "PAYOUT.Failed", "--signing", "STRIPE")
    assert (endpoint["event_types"], endpoint["signing"]) == (["payout.failed"], "stripe")
    assert run_json(world, "endpoints", "test", endpoint["id"])["event_type"] == "payout.succeeded"
    assert run_json(world, "trigger", "Payout.Created")["type"] == "payout.created"
    assert run_json(world, "keys", "create", "MEMBER")["role"] == "member"


@pytest.mark.parametrize("words", [("balance",), ("balance", "show"), ("payouts", "list"), ("drain",)])
def test_global_options_may_come_before_any_part_of_a_command(world: World, words: tuple[str, ...]) -> None:
    options = ("--url", world.stack.api_url, f"--api-key={world.api_key}", "--json")
    for position in range(len(words) + 1):
        result = invoke(*words[:position], *options, *words[position:])
        assert (result.exit_code, result.stdout[:1]) == (0, "{"), result.output
    assert invoke("--url", "http://127.0.0.1:9", *words).exit_code == 3
    assert invoke("--url", "http://127.0.0.1:9").exit_code == 2
    assert "--url" in invoke("--help").stdout


def test_a_ready_file_is_deleted_only_by_the_commands_that_write_it(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    file.touch()
    delete_stale_ready_file(["--ready-file", str(file), "payouts", "list"])
    assert file.exists()
    delete_stale_ready_file(["--ready-file", str(file), "up"])
    assert not file.exists()


def test_the_ipn_receiver_is_looked_for_on_the_host_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    send = ("ipn", "send", "id", "SUCCESS", "--secret", f"whsec_{'A' * 43}=")
    for variable, url in (("PSP_URL", "http://psp.invalid:9000"), ("PSP_IPN_URL", "http://ipn.invalid:7000")):
        monkeypatch.setenv(variable, url)
        result = invoke(*send)
        assert (result.exit_code, f"{url.replace('9000', '8001')} cannot be reached" in result.stderr) == (3, True)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("payuots",), "Did you mean 'payouts'"),
        (("payouts", "lst"), "Did you mean 'list'"),
        (("payouts", "show"), "Did you mean 'get'"),
        (("endpoints", "rm"), "Did you mean 'delete'"),
        (("balance", "histroy"), "Did you mean 'history'"),
        (("ipn", "post"), "Known: send."),
        (("bench", "speed"), "Known: compare, "),
        (("payouts", "list", "--stauts"), "Did you mean --status"),
    ],
)
def test_an_unknown_name_gets_a_suggestion_at_every_level(words: tuple[str, ...], advice: str) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert advice in re.sub(r"[│\s]+", " ", result.stderr).replace("(Possible options: ", "Did you mean ")
