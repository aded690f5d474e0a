"""The console's pages about webhooks: what they show, and the main flows in a browser."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from examples.receivers.broken import NoDedup
from sandbox.server.console.forms import body_of
from sandbox.server.console.pages.certify import causes, skipped
from sandbox.server.console.pages.deliveries import BAR_WIDTH, phases
from sandbox.server.console.pages.endpoints import as_entered, filter_rows
from sandbox.server.console.texts import delivery_state
from tests.harness.console import ConsoleClient
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_receiver_checks import SECRET, served

if TYPE_CHECKING:
    from tests.harness.browser import Browsing


@pytest.fixture
def no_dedup() -> Iterator[str]:
    """Yield the URL of a receiver that acts twice on a webhook that arrives twice."""
    with served(NoDedup(SECRET)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def add_endpoint(world: World, url: str, **fields: Any) -> dict[str, Any]:
    created: dict[str, Any] = world.post("/api/v1/webhook-endpoints", {"url": url, **fields}).json()
    return created


def failed_delivery(world: World, receiver: Receiver) -> dict[str, Any]:
    """Return the delivery of an event to which the receiver has responded with 500."""
    receiver.respond = lambda _: (500, {"content-type": "application/json"}, b'{"error": "database is locked"}')
    endpoint = add_endpoint(world, receiver.url, event_types=["payout.created"])
    world.create_payout()

    def attempted() -> dict[str, Any] | None:
        found = world.get("/api/v1/webhook-deliveries", endpoint_id=endpoint["id"]).json()["data"]
        return found[0] if found and found[0]["attempt_count"] else None

    return until(attempted)


def test_an_endpoint_is_added_broken_and_repaired(world: World, receiver: Receiver, browsing: "Browsing") -> None:
    receiver.respond = lambda _: (500, {"content-type": "application/json"}, b'{"error": "database is locked"}')
    page = browsing.open("/console/webhooks", world.api_key)
    page.keyboard.press("n")
    page.get_by_role("textbox", name="URL").fill(receiver.url)
    page.get_by_role("button", name="Add endpoint").click()
    page.get_by_role("heading", name="Endpoint added").wait_for()
    secret = page.locator("pre[aria-label=Secret]").inner_text()
    page.get_by_role("link", name="Open the endpoint").click()
    page.get_by_role("button", name="Send", exact=True).click()
    page.wait_for_url("**/console/m/*/webhooks/deliveries/*")
    page.locator("#attempts").get_by_text("database is locked").first.wait_for()
    page.locator("body[data-listening]").wait_for()
    receiver.respond = lambda _: (200, {}, b"thanks")
    page.get_by_role("button", name="Resend").click()
    page.locator("#delivery-status").get_by_text("SUCCEEDED").wait_for()
    page.locator("#attempts").get_by_text("thanks").wait_for()
    assert secret.startswith("whsec_")
    receiver.received[-1].verify(secret)
    page.go_back()
    assert secret not in page.content()


def test_the_list_shows_which_endpoint_is_failing_and_why(world: World, receiver: Receiver, console: ConsoleClient) -> None:
    world.post("/sandbox/v1/clock/freeze")
    failed = failed_delivery(world, receiver)
    page = " ".join(console.get(f"{world.console}/webhooks").text.split())
    assert 'class="badge bad">FAILING<' in page
    assert "Last failure: HTTP 500" in page
    assert ">ENABLED<" not in page
    assert ">FAILING<" in console.get(f"{world.console}/webhooks/{failed['endpoint_id']}").text


def test_a_delivery_that_keeps_failing_is_not_just_pending(world: World, receiver: Receiver, console: ConsoleClient) -> None:
    world.post("/sandbox/v1/clock/freeze")
    failed = failed_delivery(world, receiver)
    payout = world.get("/api/v1/payouts").json()["data"][0]["id"]
    paths = ("webhooks/deliveries", f"webhooks/deliveries/{failed['id']}", f"webhooks/events/{failed['event_id']}",
             f"webhooks/{failed['endpoint_id']}", f"payouts/{payout}")  # fmt: skip
    for path in paths:
        assert 'class="badge warn">PENDING: failing, retrying<' in console.get(f"{world.console}/{path}").text, path


@pytest.mark.parametrize(
    ("changes", "state"),
    [({}, "PENDING"), ({"attempt_count": 2}, "PENDING: failing, retrying"), ({"status": "FAILED"}, "FAILED"),
     ({"attempt_count": 2, "next_attempt_at": None}, "PENDING: failing"),
     ({"attempt_count": 1, "attempts": [{"error_class": None}]}, "PENDING")],
)  # fmt: skip
def test_a_delivery_is_failing_if_its_last_attempt_failed(changes: dict[str, Any], state: str) -> None:
    assert delivery_state({"status": "PENDING", "attempt_count": 0, "next_attempt_at": "2031", **changes}) == state


def test_filters_are_tried_on_past_events_and_saved(world: World, receiver: Receiver, browsing: "Browsing") -> None:
    delivery = failed_delivery(world, receiver)
    page = browsing.open(f"/console/webhooks/{delivery['endpoint_id']}", world.api_key)
    page.get_by_role("heading", name="Try filters on past events").click()
    form = page.locator("form[id^=form-preview]")
    form.get_by_label("Field").first.fill("data.amount")
    form.get_by_label("Condition").first.select_option("gte")
    form.get_by_label("Value").first.fill("1000000")
    form.get_by_role("button", name="Try").click()
    page.locator("#table-preview").get_by_text("data.amount").first.wait_for()
    page.get_by_role("button", name="Save these event types and filters").click()
    page.get_by_text("Filters saved.").wait_for()
    saved = world.get(f"/api/v1/webhook-endpoints/{delivery['endpoint_id']}").json()
    assert saved["filters"] == [{"op": "gte", "field": "data.amount", "value": 1000000}]
    assert saved["event_types"] == ["payout.created"]


def test_events_are_counted_before_they_are_recovered(world: World, receiver: Receiver, browsing: "Browsing") -> None:
    delivery = failed_delivery(world, receiver)
    receiver.respond = lambda _: (200, {}, b"")
    page = browsing.open(f"/console/webhooks/{delivery['endpoint_id']}", world.api_key)
    page.get_by_role("heading", name="Recover events").click()
    page.get_by_label("Which events").select_option("all")
    page.get_by_label("Since").fill(world.get("/sandbox/v1/clock").json()["now"][:10] + "T00:00:00Z")
    received = len(receiver.received)
    page.get_by_role("button", name="Count").click()
    page.get_by_text("event would be sent again").wait_for()
    page.get_by_role("button", name="Send 1 event again").click()
    page.get_by_text("being sent again").wait_for()
    until(lambda: len(receiver.received) > received)


def test_a_new_secret_is_shown_once(world: World, receiver: Receiver, browsing: "Browsing") -> None:
    endpoint = add_endpoint(world, receiver.url)
    page = browsing.open(f"/console/webhooks/{endpoint['id']}", world.api_key)
    page.get_by_role("heading", name="Replace the secret").click()
    page.get_by_role("button", name="Replace", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Yes").click()
    secret = page.locator("pre[aria-label=Secret]").inner_text()
    assert secret.startswith("whsec_")
    assert secret != endpoint["secret"]
    page.goto(f"/console/webhooks/{endpoint['id']}")
    assert secret not in page.content()


def test_a_receiver_is_certified(world: World, no_dedup: str, browsing: "Browsing") -> None:
    page = browsing.open(f"/console/webhooks/certify?url={no_dedup}/webhooks&probe_url={no_dedup}/probe", world.api_key)
    page.get_by_label("Secret").fill(SECRET)
    page.get_by_role("button", name="Test the receiver").click()
    page.wait_for_url("**/console/m/*/webhooks/certify/*")
    page.locator("#test-status").get_by_text("FAILED").wait_for(timeout=60_000)
    tile = page.locator(".check-tile.bad", has_text="Handles duplicate")
    reason = tile.locator(".check-reason").inner_text()
    assert reason
    tile.click()
    assert page.locator("#check-handles_duplicate").inner_text().startswith(reason)
    for other in page.locator(".check-tile").all():
        assert other.locator(".check-reason").count() == ("passed" not in other.inner_text())
    first = page.locator(".cause").first
    assert first.locator("h3").inner_text() == "Handles duplicate and 1 more"
    assert first.locator("h4").all_inner_texts() == ["Handles duplicate", "Handles concurrent duplicates"]
    assert SECRET not in page.content()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as JUnit XML").click()
    assert 'name="handles_duplicate"' in download.value.path().read_text()


def test_findings_with_one_cure_are_together_and_failures_come_before_advice() -> None:
    def check(name: str, outcome: str, code: str) -> dict[str, object]:
        return {"name": name, "outcome": outcome, "why": "no probe", "cure": {"python": code}}

    checks = [
        check("a", "passed", "x"), check("b", "advice", "y"), check("c", "failed", "z"), check("d", "skipped", "z"),
        check("e", "failed", "z"), check("f", "failed", "x"), check("g", "skipped", "y"),
    ]  # fmt: skip
    assert [[one["name"] for one in group] for group in causes(checks)] == [["c", "e"], ["f"], ["b"]]
    assert {why: len(found) for why, found in skipped(checks).items()} == {"no probe": 2}


def test_all_fields_of_an_endpoint_are_sent_and_changed(world: World, console: ConsoleClient) -> None:
    fields = {
        "url": "http://127.0.0.1:9/a", "description:blank": "Orders", "event_types:list": "payout.failed", "filters:rows": "",
        "filters.0.field": "data.amount", "filters.0.op": "gte", "filters.0.value:json": "1000",
        "filters.1.field": "", "filters.1.op": "", "filters.1.value:json": "",
        "signing": "custom", "signing_time": "merchant", "custom_signing.header": "X-Signature",
        "custom_signing.algorithm": "sha256", "custom_signing.encoding": "hex", "custom_signing.template": "{body}",
        "custom_signing.prefix": "", "custom_signing.timestamp_header": "", "retry_profile": "fast", "ordered:bool": "true",
        "rate_limit:int_or_null": "5", "max_in_flight:int_or_null": "2",
    }  # fmt: skip
    console.act("create_webhook_endpoint", "/console/webhooks/new", _then="stay", **fields)
    (created,) = world.get("/api/v1/webhook-endpoints").json()["data"]
    custom = {"header": "X-Signature", "algorithm": "sha256", "encoding": "hex", "template": "{body}"}
    expected = {
        "url": "http://127.0.0.1:9/a", "description": "Orders", "event_types": ["payout.failed"], "signing": "custom",
        "filters": [{"op": "gte", "field": "data.amount", "value": 1000}], "signing_time": "merchant", "ordered": True,
        "custom_signing": custom, "retry_profile": "fast", "rate_limit": 5, "max_in_flight": 2,
    }  # fmt: skip
    assert {name: created[name] for name in expected} == expected
    emptied = fields | {"filters.0.field": "", "filters.0.op": "", "filters.0.value:json": "", "description:blank": ""}
    emptied |= {"rate_limit:int_or_null": "", "max_in_flight:int_or_null": "", "ordered:bool": "false"}
    page = f"/console/webhooks/{created['id']}"
    console.act("change_webhook_endpoint", page, **{"path.endpoint_id": created["id"]}, **emptied)
    changed = world.get(f"/api/v1/webhook-endpoints/{created['id']}").json()
    expected |= {"filters": [], "description": "", "rate_limit": None, "max_in_flight": None, "ordered": False}
    assert {name: changed[name] for name in expected} == expected


def test_a_member_disables_enables_and_deletes_an_endpoint(world: World) -> None:
    endpoint = add_endpoint(world, "http://127.0.0.1:9/a")
    path = {"path.endpoint_id": endpoint["id"]}
    page = f"/console/webhooks/{endpoint['id']}"
    with ConsoleClient(world.stack.api_url) as member:
        member.sign_in(world.post("/sandbox/v1/keys", {"role": "member"}).json()["api_key"])
        shown = member.act("change_webhook_endpoint", page, **path, status="DISABLED", _said="Endpoint disabled.").text
        assert "Endpoint disabled." in shown
        assert "It was disabled through the API." in shown
        member.act("change_webhook_endpoint", page, **path, status="ENABLED")
        assert world.get(f"/api/v1/webhook-endpoints/{endpoint['id']}").json()["status"] == "ENABLED"
        shown = member.act("delete_webhook_endpoint", page, **path, _done="/console/webhooks").text
        assert "No endpoints yet" in shown
        assert member.get(page).status_code == 404


def test_a_refused_endpoint_keeps_the_input(console: ConsoleClient) -> None:
    fields = {"url": "http://127.0.0.1:9/kept", "filters:rows": "", "filters.0.field": "data.amount", "filters.0.op": "gte"}
    shown = console.act("create_webhook_endpoint", "/console/webhooks/new", _form="create", _then="stay", **fields)
    assert shown.status_code == 400
    assert "http://127.0.0.1:9/kept" in shown.text
    assert 'role="alert"' in shown.text


@pytest.mark.parametrize("value", [1000, "1000", "SUCCESS", "0012", ["a", "b"], True, None, "true", 'say "hi"', "[x"])
def test_a_filter_is_edited_as_it_was_entered(value: Any) -> None:
    row = filter_rows([{"field": "data.amount", "op": "eq", "value": value}])[0]
    fields = [("filters:rows", ""), ("filters.0.field", row["field"]), ("filters.0.op", row["op"])]
    body = body_of([*fields, ("filters.0.value:json", row["value"])])
    assert body == {"filters": [{"field": "data.amount", "op": "eq", "value": value}]}
    assert as_entered(value) == row["value"]


@pytest.mark.parametrize(
    "timings",
    [
        {"dns_ms": None, "connect_ms": None, "tls_ms": None, "first_byte_ms": None, "total_ms": 0},
        {"dns_ms": 0.01, "connect_ms": 0.02, "tls_ms": None, "first_byte_ms": 15000.0, "total_ms": 15001},
        {"dns_ms": 3.0, "connect_ms": 3.0, "tls_ms": 3.0, "first_byte_ms": 3.0, "total_ms": 1},
    ],
)
def test_the_phases_of_an_attempt_fill_at_most_the_bar(timings: dict[str, Any]) -> None:
    found = phases(timings)
    assert found[0].x == 0
    assert all(phase.width >= 0 and phase.x + phase.width <= BAR_WIDTH + 0.2 for phase in found)
