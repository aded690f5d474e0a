"""How an endpoint does: an event that fails for days is not hidden by others that arrive, and the sickest endpoint is first."""

from typing import Any

from sandbox.server.console.endpoint_health import in_short
from tests.harness.console import ConsoleClient
from tests.harness.receiver import Received, Receiver
from tests.harness.world import World

DAY = 86_400


def health(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.get("/api/v1/webhook-endpoints/health").json()["data"]
    return found


def test_an_event_that_fails_for_days_counts_from_its_first_attempt(
    world: World, receiver: Receiver, console: ConsoleClient
) -> None:
    def refuse(request: Received) -> tuple[int, dict[str, str], bytes]:
        return (503 if first["id"].encode() in request.body and b"payout.created" in request.body else 200, {}, b"")

    started = world.post("/sandbox/v1/clock/freeze").json()["now"]
    receiver.respond = lambda _: (503, {}, b"")
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.created"]}).json()["id"]
    first = world.create_payout("0001")
    world.post("/sandbox/v1/drain")
    receiver.respond = refuse
    world.post("/sandbox/v1/clock/advance", {"seconds": 2 * DAY})
    arrived = world.create_payout("0001")
    world.post("/sandbox/v1/drain")
    (found,) = health(world)
    tries = found["oldest_failing"]["attempts"]
    assert (found["state"], found["failing_since"], found["given_up"]) == ("PARTLY_FAILING", None, 0)
    assert (found["oldest_failing"]["event_type"], found["oldest_failing"]["since"]) == ("payout.created", started)
    assert (found["succeeded"], found["failed"]) == (1, 5), "of each delivery, the newest attempts count"
    receiver.respond = lambda _: (500, {}, b"")
    world.create_payout("0001")
    world.post("/sandbox/v1/drain")
    (found,) = health(world)
    now = world.get("/sandbox/v1/clock").json()["now"]
    assert (found["state"], found["failing_since"]) == ("FAILING", now)
    assert found["last_failure"]["failure"] == "HTTP 500"
    said = in_short(found, now)["trouble"]
    assert said.startswith(f"payout.created has failed for 2 d, since {started[:10]} {started[11:19]}, in {tries} attempts.")
    assert said.endswith("No attempt has succeeded for 1 s.")
    console.sign_in(world.api_key)
    for page in ("", "/webhooks", f"/webhooks/{endpoint}"):
        shown = " ".join(console.get(f"{world.console}{page}").text.split())
        assert ">FAILING<" in shown
        assert "payout.created has failed for 2 d" in shown
    receiver.respond = lambda _: (200, {}, b"")
    world.post("/sandbox/v1/clock/advance", {"seconds": DAY})
    assert [(one["state"], one["oldest_failing"]) for one in health(world)] == [("OK", None)]
    delivery = world.get("/api/v1/webhook-deliveries", payout_id=arrived["id"]).json()["data"][0]["id"]
    world.post("/sandbox/v1/clock/freeze")
    world.post(f"/api/v1/webhook-deliveries/{delivery}/resend")
    assert health(world)[0]["oldest_failing"] is None, "what has arrived and is resent does not fail"


def test_the_sickest_endpoint_is_first_and_the_overview_shows_a_few(
    world: World, receiver: Receiver, console: ConsoleClient
) -> None:
    world.post("/sandbox/v1/clock/freeze")
    receiver.respond = lambda request: (404 if request.path.startswith("/ill") else 200, {}, b"")

    def add(path: str, *types: str) -> str:
        body = {"url": f"{receiver.url.rsplit('/', 1)[0]}{path}", "event_types": types, "retry_profile": "server_errors"}
        return str(world.post("/api/v1/webhook-endpoints", body).json()["id"])

    add("/well", "payout.created")
    ill, off = add("/ill", "payout.created"), add("/off", "payout.*")
    world.patch(f"/api/v1/webhook-endpoints/{off}", {"status": "DISABLED"})
    for _ in range(4):
        add("/unused", "payout.returned")
    world.create_payout("0001")
    world.post("/sandbox/v1/drain")
    found = health(world)
    assert [one["state"] for one in found] == ["FAILING", "DISABLED", "OK", *["NOTHING_SENT"] * 4]
    assert (found[0]["endpoint_id"], found[0]["given_up"]) == (ill, 1)
    assert "1 delivery was given up" in str(in_short(found[0], found[0]["failing_since"])["trouble"])
    console.sign_in(world.api_key)
    page = console.get(world.console).text
    assert page.count('data-label="Endpoint"') == 5
    assert "All 7 endpoints" in page
