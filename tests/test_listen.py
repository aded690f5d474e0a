"""`psp listen` gives a machine behind a firewall what a public endpoint gets, and survives interruptions."""

import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.certificates import certificate
from tests.harness.listener import Gate, Listener, listening
from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.world import World

Listen = Callable[..., AbstractContextManager[Listener]]


@pytest.fixture
def listen(world: World, receiver: Receiver) -> Listen:
    """Return a function that runs a listener in the test's world, which forwards to the test's receiver."""

    def start(
        *arguments: str, api_url: str = world.stack.api_url, to: str | None = receiver.url
    ) -> AbstractContextManager[Listener]:
        return listening(api_url, world.api_key, to, *arguments)

    return start


def endpoints(world: World) -> list[dict[str, Any]]:
    """Return the merchant's endpoints."""
    found: list[dict[str, Any]] = world.get("/api/v1/webhook-endpoints").json()["data"]
    return found


def counts(receiver: Receiver) -> Counter[str]:
    """Return how often each event was received."""
    return Counter(received.headers["webhook-id"] for received in list(receiver.received))


def test_webhooks_are_signed_logged_retried_and_resent_as_for_any_endpoint(
    world: World, receiver: Receiver, listen: Listen
) -> None:
    receiver.respond = lambda _: (200 if receiver.received else 500, {"x-test": "1"}, b"sorry")
    with listen("--events", "payout.created", "--retry-profile", "fast") as listener:
        payout = world.create_payout("0001", amount="12.50")
        failed, succeeded = listener.next(), listener.next()
        assert (failed["status"], failed["delivery_status"], failed["amount"]) == (500, "PENDING", "12.50")
        assert (failed["payout_id"], failed["next_attempt_at"] is None) == (payout["id"], False)
        assert (succeeded["status"], succeeded["delivery_status"], succeeded["attempt"]) == (200, "SUCCEEDED", 2)
        for received in receiver.received:
            assert received.verify(listener.endpoint["secret"])["type"] == "payout.created"
        assert [endpoint["relayed"] for endpoint in endpoints(world)] == [True]
        first = world.get(f"/api/v1/webhook-deliveries/{failed['delivery_id']}").json()["attempts"][0]
        assert (first["status"], first["error_class"]) == (500, "HTTP_STATUS")
        assert (first["response"]["body"], first["response"]["headers"]["x-test"]) == ("sorry", "1")
        assert first["request"]["headers"].items() <= receiver.received[0].headers.items()
        world.post(f"/api/v1/webhook-deliveries/{failed['delivery_id']}/resend")
        assert listener.next()["manual"]
    assert endpoints(world) == []


def test_several_listeners_run_each_with_its_own_filter_and_dialect(world: World, receiver: Receiver, listen: Listen) -> None:
    with listen("--signing", "stripe") as all_events, listen("--filter", "data.amount gte 1000", "--ordered") as large:
        world.create_payout("0004", amount="10.00")
        world.create_payout("0004", amount="2000.00")
        assert {all_events.next()["amount"] for _ in range(2)} == {"10.00", "2000.00"}
        assert large.next()["amount"] == "2000.00"
        assert sum("stripe-signature" in received.headers for received in receiver.received) == 2


def test_a_named_listener_resumes_with_the_same_secret_and_the_events_in_between(
    world: World, receiver: Receiver, listen: Listen
) -> None:
    with listen("--name", "laptop", "--events", "payout.created") as first:
        world.create_payout("0004")
        first.next()
    (kept,) = endpoints(world)
    missed = {world.create_payout("0004")["id"] for _ in range(2)}
    with listen("--name", "laptop", "--events", "payout.created") as second:
        assert (second.endpoint["id"], second.endpoint["secret"]) == (kept["id"], first.endpoint["secret"])
        assert {second.next()["payout_id"] for _ in missed} == missed
    skipped = world.create_payout("0004")["id"]
    with listen("--name", "laptop", "--events", "payout.created", "--latest") as third:
        latest = world.create_payout("0004")["id"]
        assert third.next()["payout_id"] == latest
    assert set(counts(receiver).values()) == {1}
    assert skipped not in {event["data"]["id"] for event in receiver.events()}


def test_it_reconnects_and_reports_the_results_of_before(world: World, receiver: Receiver, listen: Listen) -> None:
    gate = Gate(world.stack.api_url)

    def close_gate(_: Received) -> tuple[int, dict[str, str], bytes]:
        if not receiver.received:
            gate.close()
        return 200, {}, b""

    receiver.respond = close_gate
    with listen("--events", "payout.created", api_url=gate.url) as listener:
        payouts = [world.create_payout("0004")["id"]]
        until(lambda: receiver.received)
        payouts += [world.create_payout("0004")["id"] for _ in range(3)]
        gate.open()
        reported = [listener.next() for _ in payouts]
        assert {line["payout_id"] for line in reported} == {*payouts}
        assert {line["outcome"] for line in reported} == {"recorded"}
    assert set(counts(receiver).values()) == {1}


def test_a_stopped_process_continues(world: World, receiver: Receiver, listen: Listen) -> None:
    with listen("--events", "payout.created") as listener:
        listener.process.send_signal(signal.SIGSTOP)
        payouts = {world.create_payout("0004")["id"] for _ in range(3)}
        listener.process.send_signal(signal.SIGCONT)
        assert {listener.next()["payout_id"] for _ in payouts} == payouts
    assert set(counts(receiver).values()) == {1}


def test_a_receiver_that_is_down_gets_the_event_later(world: World, receiver: Receiver, listen: Listen) -> None:
    with listen("--events", "payout.created", "--retry-profile", "fast", to="http://127.0.0.1:9/") as listener:
        world.create_payout("0004")
        line = listener.next()
        assert (line["status"], line["error"], line["delivery_status"]) == (None, "connection refused", "PENDING")
        logged = world.get(f"/api/v1/webhook-deliveries/{line['delivery_id']}").json()["attempts"][0]
        assert logged["error_class"] == "CONNECTION_REFUSED"


def test_skip_verify_accepts_a_certificate_of_nobody(world: World, receiver: Receiver, listen: Listen, tmp_path: Path) -> None:
    context = certificate(tmp_path, "localhost")
    receiver.wrap(context)
    url = receiver.url.replace("http://127.0.0.1", "https://localhost")
    with listen("--events", "payout.created", to=url) as strict, listen("--skip-verify", "--name", "lax", to=url) as lax:
        world.create_payout("0004")
        assert "certificate" in strict.next()["error"]
        assert lax.next()["status"] == 200


def test_the_clock_does_not_wait_for_a_listener_and_it_gets_events_one_by_one(
    world: World, receiver: Receiver, listen: Listen
) -> None:
    with listen("--name", "away"):
        pass
    world.post("/sandbox/v1/clock/freeze")
    payout = world.create_payout("0001")["id"]
    assert world.post("/sandbox/v1/clock/advance", {"seconds": 60}).json()["stopped_because"] is None
    assert world.payout(payout)["status"] == "SUCCESS"
    assert world.post("/sandbox/v1/drain").json()["drained"]
    with listen("--name", "away") as listener:
        types = [listener.next()["event_type"] for _ in range(3)]
    assert types == ["payout.created", "payout.processing", "payout.succeeded"]


def test_410_disables_the_endpoint_and_ends_the_listener(world: World, receiver: Receiver, listen: Listen) -> None:
    receiver.respond = lambda _: (410, {}, b"")
    with listen("--name", "gone") as listener:
        world.create_payout("0004")
        assert listener.process.wait(30) == 1
    assert [endpoint["status"] for endpoint in endpoints(world)] == ["DISABLED"]


def test_faults_apply(world: World, receiver: Receiver, listen: Listen) -> None:
    for kind in ("duplicate", "wrong_key"):
        body = {"target": "webhooks", "kind": kind, "count": 1, "match": {"event_type": "payout.created"}}
        assert world.post("/sandbox/v1/faults", body).status_code == 201
    with listen("--events", "payout.created") as listener:
        for _ in range(2):
            world.create_payout("0004")
            listener.next()
        assert sorted(counts(receiver).values()) == [1, 2]
        last = world.get("/api/v1/webhook-deliveries").json()["data"][0]
        attempt = world.get(f"/api/v1/webhook-deliveries/{last['id']}").json()["attempts"][0]
        assert (attempt["fault_kind"], attempt["status"]) == ("wrong_key", 200)


def test_without_a_url_to_forward_to_webhooks_are_only_printed(world: World, listen: Listen) -> None:
    with listen("--events", "PAYOUT.created", to=None) as listener:
        payout = world.create_payout("0004")["id"]
        printed = listener.next()
        assert (printed["payout_id"], printed["status"], printed["delivery_status"]) == (payout, 200, "SUCCEEDED")
    assert endpoints(world) == []


def test_r_resends_the_last_delivery_on_a_terminal(world: World, receiver: Receiver) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sandbox.cli.main", "listen", "--forward-to", receiver.url, "--limit", "2", "--print-json"]
    environment = {**os.environ, "PSP_URL": world.stack.api_url, "PSP_API_KEY": world.api_key, "TERM": "xterm"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        until(lambda: endpoints(world))
        payout = world.create_payout("0004", amount="7.00")["id"]
        screen = ""
        while payout not in screen or '"type": "payout.created"' not in screen:
            screen += os.read(ours, 65_536).decode()
        os.write(ours, b"r")
        while "resent" not in screen:
            screen += os.read(ours, 65_536).decode()
        assert process.wait(30) == 0
    os.close(ours)
    assert [*counts(receiver).values()] == [2]
    assert "payout.created" in screen
    assert "7.00" in screen


@pytest.fixture
def claimed(world: World) -> tuple[str, dict[str, Any]]:
    """Claim one delivery over the API. Return its listener's path, and the delivery."""
    listener = world.post("/sandbox/v1/listeners", {"forward_to": "http://localhost:1/"}).json()
    path = f"/sandbox/v1/listeners/{listener['id']}"
    world.create_payout("0004")
    (delivery,) = world.post(f"{path}/claim", {"max": 1, "wait_seconds": 30}).json()["data"]
    return path, delivery


def report(world: World, path: str, lease: str, status: int = 200) -> dict[str, Any]:
    """Report a result, and return what became of it."""
    response: httpx.Response = world.post(f"{path}/results", {"results": [{"lease": lease, "status": status}]})
    found: dict[str, Any] = response.json()["data"][0]
    return found


def test_a_repeated_report_records_nothing_twice(world: World, claimed: tuple[str, dict[str, Any]]) -> None:
    path, delivery = claimed
    outcomes = [report(world, path, delivery["lease"], 500)["outcome"] for _ in range(3)]
    assert outcomes == ["recorded", "repeated", "repeated"]
    logged = world.get(f"/api/v1/webhook-deliveries/{delivery['delivery_id']}").json()
    assert (logged["attempt_count"], len(logged["attempts"]), logged["status"]) == (1, 1, "PENDING")


def test_a_report_after_the_lease_has_passed_on_is_only_logged(world: World, claimed: tuple[str, dict[str, Any]]) -> None:
    path, delivery = claimed
    expire = "UPDATE webhook_deliveries SET leased_until = now() - interval '1 s' WHERE merchant_id = $1"
    world.stack.execute(f"{expire} RETURNING id", world.merchant_id)
    (again,) = world.post(f"{path}/claim").json()["data"]
    assert (again["delivery_id"], again["attempt"]) == (delivery["delivery_id"], delivery["attempt"])
    assert report(world, path, delivery["lease"])["outcome"] == "late"
    assert report(world, path, delivery["lease"])["outcome"] == "repeated"
    found = world.get(f"/api/v1/webhook-deliveries/{delivery['delivery_id']}").json()
    assert (found["status"], len(found["attempts"])) == ("PENDING", 1)
    assert report(world, path, again["lease"], 500)["outcome"] == "recorded"
    found = world.get(f"/api/v1/webhook-deliveries/{delivery['delivery_id']}").json()
    assert [attempt["status"] for attempt in found["attempts"]] == [200, 500]


def test_a_lease_of_another_listener_or_merchant_is_refused(world: World, claimed: tuple[str, dict[str, Any]]) -> None:
    path, delivery = claimed
    other = world.post("/sandbox/v1/listeners", {"forward_to": "http://localhost:1/"}).json()["id"]
    assert report(world, f"/sandbox/v1/listeners/{other}", delivery["lease"])["outcome"] == "unknown"
    assert report(world, path, "AQIDBA==")["outcome"] == "unknown"
    with World.create(world.stack) as stranger:
        assert stranger.post(f"{path}/claim").status_code == 404
        assert report(stranger, path, delivery["lease"])["outcome"] == "unknown"
        assert stranger.client.delete(path).status_code == 404


def test_an_ordinary_endpoint_is_no_listener(world: World, receiver: Receiver) -> None:
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).json()
    assert endpoint["relayed"] is False
    path = f"/sandbox/v1/listeners/{endpoint['id']}"
    assert world.post(f"{path}/claim").status_code == 404
    assert world.client.delete(path).status_code == 404


def test_invalid_bodies_are_refused_with_every_field(world: World) -> None:
    body = {"forward_to": "ftp://x", "event_types": ["payout.exploded"], "signing": "custom"}
    problem = world.post("/sandbox/v1/listeners", body).json()
    assert {error["field"] for error in problem["errors"]} == {"forward_to", "event_types[0]", "custom_signing"}
    path = "/sandbox/v1/listeners/01920f3a-7c00-7000-8000-000000000001"
    assert world.post(f"{path}/results", {"results": [{"lease": "x"}]}).json()["errors"][0]["field"] == "results[0]"
