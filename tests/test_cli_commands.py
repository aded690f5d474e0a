"""The commands that control a running sandbox: their effects, output and exit codes."""

import pytest
import typer

from sandbox.cli.clock import seconds_of
from tests.harness.command import invoke, run, run_json
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_users import DESTINATION, make_user

PENDING = DESTINATION | {"account_number": "12345678900004"}
REFUSED = DESTINATION | {"account_number": "12345678900003"}


def test_the_clock_can_be_shown_frozen_advanced_and_resumed(world: World) -> None:
    assert run_json(world, "clock", "show")["frozen"] is False
    assert run_json(world, "clock", "freeze", "--at", "2031-01-01T00:00:00Z")["now"] == "2031-01-01T00:00:00.000Z"
    assert run_json(world, "clock", "advance", "75h")["now"] == "2031-01-04T03:00:00.000Z"
    assert run_json(world, "clock", "advance", "--seconds", "1.5")["now"] == "2031-01-04T03:00:01.500Z"
    assert run_json(world, "clock", "advance", "--to", "2031-02-01T00:00:00Z")["now"] == "2031-02-01T00:00:00.000Z"
    payout = world.create_payout("0011")
    assert payout["id"] in run(world, "clock", "advance", "30d").output
    assert "Frozen at 2031-03-03" in run(world, "clock", "show").output
    assert run_json(world, "drain")["drained"] is True
    assert "Running" in run(world, "clock", "resume").output
    for wrong in ([], ["10s", "--seconds", "3"], ["soon"], [""], ["--seconds", "nan"]):
        assert run(world, "clock", "advance", *wrong).exit_code == 2
    assert run(world, "clock", "advance", "--to", "2030-01-01T00:00:00Z").exit_code == 1


def test_the_difference_between_a_running_clock_and_the_hosts_is_shown(world: World) -> None:
    assert "same as the host's" in run(world, "clock", "show").output
    run_json(world, "clock", "advance", "2000d")
    assert "2000 days, 0:00:00 ahead of the host's" in run(world, "clock", "show").output
    run_json(world, "reset")
    run_json(world, "clock", "freeze", "--at", "2001-01-01T00:00:00Z")
    run_json(world, "clock", "resume")
    assert "behind the host's" in run(world, "clock", "show").output


def test_a_group_without_a_subcommand_shows_its_state(world: World) -> None:
    for group in ("balance", "clock", "settings"):
        assert run_json(world, group).keys() == run_json(world, group, "show").keys()
        assert run(world, group).output
    assert "history" in invoke("balance", "--help").output


def test_durations_are_parsed() -> None:
    durations = {"75h": 270_000, "2m": 120, "10s": 10, "1d12h": 129_600, "90": 90, "1.5s": 1.5, "1h30": 3630}
    assert {duration: seconds_of(duration) for duration in durations} == durations
    for wrong in ("", "h", "5x", "-1s", "1m1h", "1.5h"):
        with pytest.raises(typer.BadParameter):
            seconds_of(wrong)


def test_events_can_be_listed_and_resent(world: World, receiver: Receiver) -> None:
    unsubscribed = run_json(world, "trigger", "payout.created")
    assert run(world, "events", "resend", unsubscribed["id"]).exit_code == 1
    endpoints = [world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).json()["id"] for _ in range(2)]
    event = run_json(world, "trigger", "payout.failed")
    until(lambda: [r.headers["webhook-id"] for r in list(receiver.received)].count(event["id"]) == 2)
    # A deleted endpoint, such as every `psp listen` leaves behind, does not prevent a resend.
    assert world.client.delete(f"/api/v1/webhook-endpoints/{endpoints[0]}").status_code == 204
    listed = run_json(world, "events", "list", "--payout", event["payout_id"])["data"]
    assert [item["type"] for item in listed] == ["payout.failed", "payout.processing", "payout.created"]
    assert "More results" in run(world, "events", "list", "--limit", "1").output
    assert len(run_json(world, "events", "resend", event["id"])["deliveries"]) == 1
    until(lambda: [r.headers["webhook-id"] for r in list(receiver.received)].count(event["id"]) == 3)
    assert world.client.delete(f"/api/v1/webhook-endpoints/{endpoints[1]}").status_code == 204
    assert run(world, "events", "resend", event["id"]).exit_code == 1


def test_a_user_can_be_created_changed_and_traced(world: World) -> None:
    user = run_json(world, "users", "create", "Ayesha Khan", "--external-id", "ayesha", "--account", REFUSED["account_number"])[
        "id"
    ]
    assert run(world, "users", "create", "B", "--external-id", "ayesha").exit_code == 1
    assert run(world, "users", "create", "B", "--bank", "HBL").exit_code == 2
    assert run_json(world, "users", "get", user)["destination"]["bank_code"] == "HBL"
    assert run(world, "users", "change", user).exit_code == 2
    changed = run_json(world, "users", "change", user, "--account", "03001234567", "--wallet", "JAZZCASH")
    assert (changed["destination"]["wallet_code"], changed["name"]) == ("JAZZCASH", "Ayesha Khan")
    assert "JAZZCASH 03001234567" in run(world, "users", "get", user).output
    run_json(world, "users", "record", user, "earned", "100.00")
    payout = run_json(world, "users", "request", user, "40.00")["id"]
    run_json(world, "payouts", "approve", payout)
    assert {t["amount"] for t in run_json(world, "users", "transactions", user, "--type", "PAYOUT")["data"]} == {"40.00"}
    assert "EARNED" in run(world, "users", "transactions", user).output
    assert run(world, "users", "transactions", user, "--type", "GIFT").exit_code == 2
    assert [e["reason"] for e in run_json(world, "users", "history", user, "--payout-id", payout)["data"]] == ["WALLET_PAYOUT"]
    assert "WALLET_EARN" in run(world, "users", "history", user).output


def test_a_sales_run_with_a_failed_payment_exits_with_1(world: World) -> None:
    user = make_user(world, destination=REFUSED)
    sale = run_json(world, "sales", "create", user, "Khaadi", "40.00")["id"]
    assert run_json(world, "sales", "run", "advance", code=1)["failed"] == 1
    assert run_json(world, "sales", "get", sale)["attempts"] >= 1
    assert "BANK_REJECTED" in run(world, "sales", "get", sale).output
    assert [found["id"] for found in run_json(world, "sales", "list", "--user-id", user)["data"]] == [sale]


def test_the_aggregator_can_be_inspected_and_configured_and_dead_letters_replayed(world: World) -> None:
    assert "the sandbox's own feed" in run(world, "aggregator", "source").output
    for command in ("waiting", "fetches", "dead-letters"):
        assert run_json(world, "aggregator", command)["data"] == []
        assert "No results" in run(world, "aggregator", command).output
    assert run_json(world, "aggregator", "replay") == {"replayed": 0, "remaining": 0}
    assert run(world, "aggregator", "user", "074092").exit_code == 1
    source = run_json(world, "aggregator", "source", "--set", "http://127.0.0.1:9/feed", "--header", "X-API-KEY=secret")
    assert source == {"url": "http://127.0.0.1:9/feed", "header_names": ["X-API-KEY"]}
    assert run_json(world, "aggregator", "source", "--own")["url"] is None
    assert run(world, "aggregator", "source", "--own", "--set", "http://127.0.0.1:9/feed").exit_code == 2
    assert run(world, "aggregator", "source", "--header", "X-API-KEY=secret").exit_code == 2
    wrong = run(world, "aggregator", "source", "--set", "http://127.0.0.1:9/feed", "--header", "secret")
    assert wrong.exit_code == 2
    assert "secret" not in wrong.output
    assert run_json(world, "aggregator", "source")["url"] is None


def test_a_list_continues_with_the_cursor_that_the_previous_page_shows(world: World) -> None:
    first, second = (world.create_payout()["id"] for _ in range(2))
    page = run_json(world, "payouts", "list", "--limit", "1")
    assert f"--cursor {page['next_cursor']}" in run(world, "payouts", "list", "--limit", "1").output
    listed = run(world, "payouts", "list", "--cursor", page["next_cursor"]).output
    assert first in listed
    assert second not in listed
