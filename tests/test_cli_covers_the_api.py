"""Every API operation has a command, and the client decodes its answers. This fails if a new operation has no command."""

import json
import re
import threading
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from psp_sandbox.client._http import result
from sandbox.domain.enumerations import Method
from tests.harness.command import invoke
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_client_generated import calls

# Operations for load balancers, browsers and tools; they need no key and no command.
WITHOUT_COMMAND = {"root", "health", "ready", "metrics", "openapi", "docs"}
# The commands below call these only in vain: no vendor knows the user, and no line of the file can be tried again.
ALWAYS_REFUSED = {"get_vendor_balance", "get_requested_payout", "retry_bulk_credit"}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Response]:
    """Record the answer to every request that a command sends, and return the list."""
    found: list[httpx.Response] = []
    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def record(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        found.append(send(self, request, **options))
        return found[-1]

    async def record_async(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        found.append(await send_async(self, request, **options))
        return found[-1]

    monkeypatch.setattr(httpx.Client, "send", record)
    monkeypatch.setattr(httpx.AsyncClient, "send", record_async)
    return found


class Shell:
    """Runs commands with --json against the same world."""

    def __init__(self, world: World) -> None:
        self._api = ["--url", world.stack.api_url]
        self._merchant = ["--api-key", world.api_key]
        self._operator = ["--admin-key", world.stack.admin_key]

    def __call__(self, line: str, *more: str, code: int = 0, operator: bool = False) -> Any:
        """Run the command in `line`, split at spaces, plus the arguments `more`. Return the JSON in its last output line."""
        words = [*line.split(), *more, "--json", *self._api, *(self._operator if operator else self._merchant)]
        result = invoke(*words)
        assert result.exit_code == code, (words, result.output)
        return json.loads(result.stdout.splitlines()[-1]) if result.stdout else None


def test_every_operation_has_a_command_and_the_client_decodes_its_answers(
    world: World, receiver: Receiver, answers: list[httpx.Response], tmp_path: Path
) -> None:
    psp = Shell(world)
    document = world.get("/openapi.json").json()
    for run_commands in (_users, _payouts, _money, _webhooks, _scenarios_and_faults, _time, _administration):
        run_commands(psp, receiver, tmp_path)
    _listen(psp, receiver, world)
    operations = {
        (method.upper(), path): operation["operationId"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method.upper() in get_args(Method) and operation["operationId"] not in WITHOUT_COMMAND
    }
    # Look for an exact match first: /payouts/requests is an operation, not a payout with the id "requests".
    patterns = {key: re.compile(re.sub(r"\{\w+\}", "[^/]+", key[1]) + r"\Z") for key in operations}
    used, decoded = set(), set()
    client_calls = dict(calls())
    for answer in answers:
        method, path = answer.request.method, answer.request.url.path
        keys = {key for key, pattern in patterns.items() if key[0] == method and pattern.match(path)}
        keys = {(method, path)} if (method, path) in operations else keys
        used |= keys
        if answer.is_success and len(found := [client_calls[key] for key in keys if key in client_calls]) == 1:
            result(found[0], answer)  # raises UnexpectedResponse
            decoded |= keys
    assert not sorted(name for key, name in operations.items() if key not in used)
    assert not {operations[key] for key in client_calls.keys() & used - decoded} - ALWAYS_REFUSED
    world.assert_clean()


def _users(psp: Shell, _: Receiver, folder: Path) -> None:
    user = psp("users create Ayesha --external-id a --account 12345678900001 --bank HBL --vendor-user-id 0742")["id"]
    csv = folder / "users.csv"
    csv.write_text(
        "name,external_id,destination.dest_type,destination.bank_code,destination.account_number\nB,b,BANK,HBL,123\n"
    )
    assert psp("users batch", str(csv), code=1)["results"][0]["status"] == 400
    csv.write_text(csv.read_text().replace("123", "12345678900001"))
    assert psp("users batch", str(csv))["results"][0]["user"]["destination"]["bank_code"] == "HBL"
    assert psp("users list --external-id b")["data"][0]["name"] == "B"
    assert psp("users list --search b --external-id b")["data"][0]["name"] == "B"
    psp(f"users change {user} --name", "Ayesha Khan")
    psp(f"users get {user}")
    psp(f"users record {user} earned 100.00")
    credit = folder / "credit.csv"
    credit.write_text(f"uuid,amount\n{user},25.00\n{user},25\n")
    activity = psp("bulk-credit", str(credit))["activity_id"]
    assert psp(f"bulk-credit --show {activity}")["succeeded"] == 2
    assert psp("bulk-credit --list")["data"][0]["activity_id"] == activity
    assert psp(f"bulk-credit --items {activity} --status SUCCEEDED")["data"][0]["amount"] == "25.00"
    assert psp(f"bulk-credit --items {activity} --duplicates")["data"][0]["same_as_line"] == 2
    assert psp(f"users balance {user}")["available"] == "150.00"
    psp(f"users summary {user}")
    psp(f"users transactions {user}")
    psp(f"users history {user}")
    payout = psp(f"users request {user} 20.00")["id"]
    assert psp("payouts requests")["data"][0]["total_requested"] == "20.00"
    assert psp(f"payouts list --user-id {user}")["data"][0]["id"] == payout
    psp(f"payouts reject {payout}")


def _payouts(psp: Shell, _: Receiver, folder: Path) -> None:
    created = psp("payouts create 5.00 12345678900004 --metadata order=7 --reference first")
    assert created["metadata"] == {"order": "7"}
    assert psp("payouts list --metadata order=7 --status pending,FAILED")["data"] == [created]
    assert psp("payouts list --search FIRS")["data"] == [created]
    assert psp(f"payouts get {created['id']} --wait-for PENDING")["status"] == "PENDING"
    assert psp(f"payouts timeline {created['id']}")["data"][0]["to"] == "PENDING"
    assert psp(f"payouts simulate {created['id']} failed --failure-code TIMEOUT")["failure_code"] == "TIMEOUT"
    actions = psp(f"payouts actions {created['id']}")["actions"]
    assert [action["operation"] for action in actions] == ["reinitiate_payout", "simulate_payout"]
    psp(f"payouts reinitiate {created['id']}")
    psp(f"payouts cancel {created['id']}")
    batch = folder / "payouts.json"
    body = {"amount": "5.00", "dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
    batch.write_text(json.dumps([body | {"merchant_reference": "first"}, body | {"merchant_reference": "second"}]))
    assert [item["status"] for item in psp("payouts batch", str(batch), code=1)["results"]] == [409, 201]
    waiting = psp("payouts create 5.00 12345678900001 --requires-approval")["id"]
    psp(f"payouts approve {waiting}")


def _money(psp: Shell, _: Receiver, folder: Path) -> None:
    before = psp("balance show")["version"]
    assert psp("balance top-up 10.00")["version"] > before
    assert {entry["account"] for entry in psp("balance history --account LOCKED")["data"]} == {"LOCKED"}
    user = psp("users list --external-id a")["data"][0]["id"]
    sale = psp(f"sales create {user} Khaadi 40.00")["id"]
    psp("sales run advance")
    psp(f"sales reconcile --approve {sale}")
    psp("sales run final")
    psp("sales list --status APPROVED")
    assert psp(f"sales get {sale}")["final_amount"] == "36.00"
    assert psp("aggregator feed --limit 1")["meta"]["itemCount"] == 1
    for name in ("waiting", "fetches", "dead-letters", "replay", "source"):
        psp(f"aggregator {name}")
    # These fail because the aggregator has no such user.
    psp("aggregator user nobody", code=1)
    psp("aggregator requested nobody", code=1)
    psp("aggregator source --own")
    psp("directory")
    assert psp("verify-account 12345678900003")["valid"] is False
    assert psp("audit")["ok"] is True
    assert psp("balance flows")["is_complete"] is True
    assert psp("overview")["payouts"]["covers"]["is_complete"] is True


def _webhooks(psp: Shell, receiver: Receiver, folder: Path) -> None:
    created = psp(f"endpoints create {receiver.url} --events payout.failed,payout.succeeded --retry-profile fast --signing v1")
    assert (created["event_types"], created["retry_profile"]) == (["payout.failed", "payout.succeeded"], "fast")
    endpoint = created["id"]
    assert psp(f"endpoints update {endpoint} --signing-time merchant --description test")["signing_time"] == "merchant"
    assert psp(f"endpoints disable {endpoint}")["status"] == "DISABLED"
    assert psp(f"endpoints enable {endpoint}")["status"] == "ENABLED"
    given = [{"field": "data.amount", "op": "gte", "value": 1}]
    assert psp(f"endpoints update {endpoint} --filter", "data.amount gte 1")["filters"] == given
    psp("endpoints list")
    psp(f"endpoints get {endpoint}")
    signed = psp(f"endpoints signing-example {endpoint} --body {{}} --timestamp 1700000000 --id evt-1")
    assert signed["signed_content"] == "evt-1.1700000000.{}"
    assert psp(f"endpoints rotate-secret {endpoint} --grace-seconds 60")["secret"] != created["secret"]
    settings = {"header": "X-Sign", "algorithm": "sha256", "encoding": "hex", "template": "{body}"}
    (folder / "signing.json").write_text(json.dumps(settings))
    changed = psp(f"endpoints update {endpoint} --signing custom --custom-signing", str(folder / "signing.json"))
    assert changed["custom_signing"] == settings
    event = psp("trigger payout.failed")["id"]
    psp("drain")
    delivery = psp(f"deliveries list --event {event} --status SUCCEEDED")["data"][0]["id"]
    assert psp(f"deliveries attempts --endpoint {endpoint}")["data"][0]["attempts"][0]["status"] == 200
    assert psp(f"deliveries get {delivery}")["attempts"][0]["status"] == 200
    assert psp(f"deliveries explain {delivery}")["next_attempt"]["reason"] == "SUCCEEDED"
    recover = f"endpoints recover {endpoint} --since 2020-01-01T00:00:00Z --which all --events payout.failed"
    assert psp(f"{recover} --dry-run") == {"count": 2, "by_type": {"payout.failed": 2}}
    psp(f"deliveries resend {delivery}")
    assert psp(f"endpoints preview {endpoint} --events payout.failed --limit 1")["data"][0]["matches"] is True
    assert psp(f"endpoints test {endpoint} payout.failed")["event_type"] == "payout.failed"
    assert psp(f"events get {event}")["deliveries"][0]["id"] == delivery
    psp("events list")
    psp(f"events resend {event}")
    assert psp("events watch --timeout 0 --types payout.*") == {"listening": True}
    psp("drain")
    # It fails, because this receiver accepts everything.
    psp(f"certify {receiver.url} --secret {created['secret']} --junit", str(folder / "junit.xml"), code=1)
    test = psp("receiver-tests list")["data"][0]["id"]
    assert psp(f"receiver-tests get {test}")["status"] == "FAILED"
    assert psp("endpoints health")["data"][0]["endpoint_id"] == endpoint
    psp(f"endpoints delete {endpoint}")
    until(lambda: psp("requests list --method post --path /api/v1/webhook-endpoints")["data"])
    assert "data" in psp("requests refused")
    entry = psp("requests list --limit 1")["data"][0]["id"]
    assert psp(f"requests get {entry}")["id"] == entry


def _listen(psp: Shell, receiver: Receiver, world: World) -> None:
    def create_when_listening() -> None:
        until(lambda: any(endpoint["relayed"] for endpoint in world.get("/api/v1/webhook-endpoints").json()["data"]))
        world.create_payout("0004")

    creating = threading.Thread(target=create_when_listening)
    creating.start()
    assert psp(f"listen --forward-to {receiver.url} --limit 1")["status"] == 200
    creating.join()


def _scenarios_and_faults(psp: Shell, _: Receiver, folder: Path) -> None:
    rule = folder / "rule.json"
    rule.write_text(json.dumps({"name": "slow", "match": {"suffix": "7777"}, "steps": [{"to": "PROCESSING"}]}))
    scenario = psp("scenarios add", str(rule))["id"]
    rule.write_text(rule.read_text().replace("7777", "8888"))
    assert psp(f"scenarios replace {scenario}", str(rule))["match"] == {"suffix": "8888"}
    assert psp(f"scenarios get {scenario}")["match"] == {"suffix": "8888"}
    psp("scenarios list")
    assert psp("scenarios catalogue --bank UBL")["scenarios"][0]["example"]["bank_code"] == "UBL"
    assert psp("scenarios explain 5 12345678908888")["scenario"] == "slow"
    psp(f"scenarios delete {scenario}")
    line = "faults add webhooks delay --set milliseconds=5 --event-type payout.* --probability 0.5 --count 3 --ttl 60 --seed 7"
    fault = psp(line)
    assert (fault["match"], fault["count"], fault["seed"], fault["probability"]) == ({"event_type": "payout.*"}, 3, 7, 0.5)
    assert psp(f"faults get {fault['id']}")["expires_at"] is not None
    psp("faults list")
    psp(f"faults delete {fault['id']}")


def _time(psp: Shell, _: Receiver, folder: Path) -> None:
    psp("clock show")
    assert psp("clock due --limit 1")["data"] == []
    psp("clock freeze")
    psp("clock advance 1s")
    psp("clock resume")
    snapshot = psp("snapshots create")["id"]
    psp("snapshots list")
    assert psp(f"snapshots get {snapshot}")["id"] == snapshot
    psp(f"snapshots restore {snapshot}")
    psp(f"snapshots delete {snapshot}")
    psp("world export", str(folder / "world.json"))
    assert psp("world import", str(folder / "world.json"))["imported"]


def _administration(psp: Shell, _: Receiver, folder: Path) -> None:
    merchant = psp("merchants create ci --opening-balance 5.00 --seed 1 --frozen-at 2031-01-01T00:00:00Z", operator=True)
    psp("merchants list", operator=True)
    psp(f"merchants delete {merchant['merchant_id']}", operator=True)
    key = psp("keys create member --name ci")["id"]
    assert key in {found["id"] for found in psp("keys list")["data"]}
    psp(f"keys revoke {key}")
    psp("settings show")
    psp("settings set --rate-limit 100000")
    psp("settings set --rate-limit none")
    # The retry fails, because the only row is invalid and so cannot be retried.
    bad = folder / "bad.csv"
    bad.write_text("uuid,amount\nnobody,1.00\n")
    psp(f"bulk-credit --retry {psp('bulk-credit', str(bad), code=1)['activity_id']}", code=1)
    psp("reset")
