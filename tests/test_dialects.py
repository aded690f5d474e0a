"""A dialect of one's own is a file in a folder, and what the pages say of dialects is what the code has."""

import base64
import hmac
import re
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import pytest

from sandbox.domain import redaction
from sandbox.server.dialects.dialect import Services, load_dialects
from sandbox.server.dialects.registration import BUILT_IN
from sandbox.server.dialects.safepay.mapping import MAPPING
from sandbox.server.dialects.safepay.objects import Envelope, Payment
from tests.harness.code_blocks import ROOT
from tests.harness.receiver import Receiver
from tests.harness.safepay import IBANS
from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_docs_tables import names, rows

EXAMPLES = ROOT / "examples" / "dialects"


def call(world: World, method: str, path: str, body: Any = None, key: str | None = None) -> httpx.Response:
    headers = {"X-MyBank-Key": key or world.api_key}
    return httpx.request(method, f"{world.stack.api_url}/mybank{path}", json=body, headers=headers, timeout=60)


def test_the_example_is_a_whole_dialect(world: World, receiver: Receiver) -> None:
    secret = call(world, "POST", "/hooks", {"url": receiver.url}).json()["secret"]
    world.post("/sandbox/v1/clock/freeze")
    order = {"ref": "A-1", "paisa": 150_050, "account": "12345678900013"}
    assert call(world, "POST", "/transfers", order).json() == {"ref": "A-1", "state": "OPEN", "paisa": 150_050}
    world.post("/sandbox/v1/clock/advance", {"seconds": 30})
    until(lambda: call(world, "GET", "/transfers/A-1").json()["state"] == "BOOKED")
    (received,) = until(lambda: [one for one in receiver.received if one.event["state"] == "BOOKED"])
    mac = base64.b64encode(hmac.digest(secret.encode(), received.body, "sha512")).decode()
    assert received.headers["x-mybank-mac"] == mac
    assert not {"webhook-id", "traceparent", "x-sandbox-now"} & set(received.headers)
    assert world.get("/api/v1/payouts", merchant_reference="A-1").json()["data"][0]["amount"] == "1500.50"


def test_the_example_renders_each_refusal(world: World) -> None:
    assert call(world, "POST", "/transfers", {"ref": "A"}).json() == {"ERROR": "NO", "FIELDS": ["PAISA", "ACCOUNT"]}
    assert call(world, "GET", "/transfers/none").json() == {"ERROR": "NO_SUCH_THING", "FIELDS": []}
    assert call(world, "GET", "/nothing").json()["ERROR"] == "NO_SUCH_THING"
    assert call(world, "GET", "/transfers/A", key="wrong").json()["ERROR"] == "WHO_ARE_YOU"


def test_the_example_has_at_most_100_lines() -> None:
    assert len((EXAMPLES / "mybank.py").read_text().splitlines()) <= 100


def test_a_folder_with_a_dialect_twice_or_without_one_is_refused(tmp_path: Path) -> None:
    assert list(load_dialects(BUILT_IN, str(EXAMPLES))) == ["safepay", "mybank"]
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text((EXAMPLES / "mybank.py").read_text())
    with pytest.raises(ValueError, match="overlapping"):
        load_dialects(BUILT_IN, str(tmp_path))
    (tmp_path / "a.py").write_text("")
    with pytest.raises(ValueError, match="no DIALECT"):
        load_dialects(BUILT_IN, str(tmp_path))


def test_the_page_names_calls_that_exist() -> None:
    services = get_type_hints(Services)
    called = re.findall(r"`(\w+)\.(\w+)\(", (ROOT / "docs" / "dialects.md").read_text())
    assert {service for service, _ in called} >= {"payouts", "reads", "balance", "endpoints"}
    assert [f"{service}.{method}" for service, method in called if not hasattr(services[service], method)] == []


def test_the_page_lists_each_state_and_test_account() -> None:
    table = rows("safepay.md")
    listed = {names(row[0])[0]: (names(row[1])[0], (names(row[2]) or [""])[0], row[3]) for row in table if len(row) == 4}
    assert listed == {
        name: (state.status, state.event, "yes" if state.documented else "no") for name, state in MAPPING.states.items()
    }
    accounts = {names(row[0])[0]: names(row[1])[-1] for row in table if row[0].startswith("`PK")}
    assert accounts == {IBANS[suffix]: statuses[-1] for suffix, statuses in MAPPING.accounts.items()}


def test_the_journal_need_not_search_a_payment_for_secrets() -> None:
    assert not redaction.shape_of(Envelope[Payment]).hides_something


def test_nothing_but_the_dialect_names_its_provider() -> None:
    named = {
        str(path.relative_to(ROOT))
        for folder in ("sandbox", "worker", "ipn", "seeds")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sql", ".toml", ".html") and "guide" not in path.parts and "dialects" not in path.parts
        if "safepay" in path.read_text(encoding="utf-8").lower()
    }
    assert named == {
        "sandbox/domain/enumerations.py",
        "sandbox/infrastructure/db/migrations/schema_0_1_0.sql",
        "sandbox/server/console/pages/endpoints.py",
        "sandbox/webhooks/receiver_tests/checks.toml",
        "sandbox/webhooks/receiver_tests/events.py",
        "sandbox/webhooks/signing/body_headers.py",
        "sandbox/webhooks/signing/dialects.py",
    }
