"""The parts of a receiver test: its requests, its curl commands, its judgement of times, and the code that it shows."""

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandbox.domain.payout import Payout
from sandbox.webhooks.receiver_tests.checks import CHECKS, LARGEST_BODY, NAMES
from sandbox.webhooks.receiver_tests.curl import curl
from sandbox.webhooks.receiver_tests.events import Forge, Outgoing, encode, spelled_unusually
from sandbox.webhooks.receiver_tests.judges import Answer, Exchange, Observed
from sandbox.webhooks.receiver_tests.results import LANGUAGES, Cure, ReceivedAnswer, StoredFinding, shown
from sandbox.webhooks.receiver_tests.runner import new_id
from sandbox.webhooks.receiver_tests.timing import reveals_progress
from sandbox.webhooks.signing.standard_webhooks import decode_private_key, new_private_key, new_secret, public_key
from tests.harness.programs import needs
from tests.harness.receiver import Receiver

SECRET = new_secret(bytes(range(32)))
PRIVATE_KEY = new_private_key(bytes(range(32)))


def _forge(now: int = 1_900_000_000) -> Forge:
    return Forge("v1", SECRET, now, "2030-03-17T17:46:40.000Z", new_id)


def test_the_events_look_like_the_sandboxs_own() -> None:
    event = _forge().event(new_id())
    assert list(event) == ["id", "type", "timestamp", "livemode", "previous_status", "data"]
    assert list(event["data"]) == [field.name for field in msgspec.structs.fields(Payout)]
    msgspec.convert(event["data"], Payout, strict=False)


def test_the_unusual_spelling_is_the_same_json_and_survives_no_serializer() -> None:
    event = _forge().event(new_id())
    raw = spelled_unusually(encode(event))
    assert json.loads(raw) == event
    for separators in ((",", ":"), (", ", ": ")):
        for indent in (None, 2, "\t"):
            for sort_keys in (False, True):
                again = json.dumps(json.loads(raw), separators=separators, indent=indent, sort_keys=sort_keys)
                assert again.encode() != raw


@pytest.mark.parametrize("signing", ["v1", "v1a", "stripe", "github"])
def test_an_almost_right_signature_differs_only_at_its_end(signing: str) -> None:
    secret = PRIVATE_KEY if signing == "v1a" else SECRET
    forge = Forge(signing, secret, 1_900_000_000, "2030-03-17T17:46:40.000Z", new_id)
    webhook = forge.signed("", forge.event(new_id()))
    name = forge.signature_header
    right, almost = webhook.headers[name].rstrip("="), forge.almost_right(webhook).headers[name].rstrip("=")
    wrong = forge.all_wrong(webhook).headers[name].rstrip("=")
    assert len(right) == len(almost) == len(wrong)
    assert [right[at] == almost[at] for at in range(len(right))].count(False) == 1
    assert right[:-2] == almost[:-2]
    start = max(right.find(mark) + len(mark) for mark in ("v1,", "v1a,", "v1=", "sha256=") if mark in right)
    assert wrong[:start] == right[:start]
    assert all(one != other for one, other in zip(right[start:], wrong[start:], strict=True))


def _run(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)


@needs("curl")
def test_the_curl_commands_repeat_the_requests(receiver: Receiver) -> None:
    forge = _forge()
    event = forge.event(new_id())
    event["data"]["account_title"] = "O'Brien $HOME `id` \\ %"
    event["data"]["metadata"] = {"note": "x" * 300_000}
    plain = forge.signed("", forge.event(new_id()))
    requests = [forge.signed("", event), forge.with_header(plain, "", forge.signature_header, ""), plain]
    _run(curl(f"{receiver.url}?a=1&b=$c", requests))
    _run(curl(receiver.url, [plain], at_once=3))
    assert len(receiver.received) == 6
    assert receiver.received[0].path == "/webhooks?a=1&b=$c"
    for request, received in zip([*requests, plain, plain, plain], receiver.received, strict=True):
        assert received.body == request.body
        assert received.headers["content-type"] == "application/json"
        assert request.headers.items() <= received.headers.items()


# ---- judgement


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [(0.1, 0.2, "passed"), (5.5, 0.2, "passed"), (5.5, 6.0, "advice"), (16.0, 15.1, "failed"), (16.0, 0.1, "passed")],
)
def test_the_faster_of_two_answers_is_judged(first: float, second: float, outcome: str) -> None:
    assert _judged("answers_in_time", [_answer(200, second)], first) == outcome


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([(200, 0.1)] * 50, "passed"),
        ([(200, 15.9)] * 50, "passed"),
        ([(200, 16.1)], "failed"),
        ([(200, 0.1), (503, 0.1)], "failed"),
        ([(200, 0.1), (429, 0.1)], "failed"),
        ([(200, 0.1), (None, 30)], "failed"),
    ],
)
def test_in_a_burst_all_answers_must_be_right_and_no_later_than_usual_by_the_limit(
    answers: list[tuple[int | None, float]], outcome: str
) -> None:
    assert _judged("survives_burst", [_answer(*answer) for answer in answers], usual_seconds=1.0) == outcome


def test_a_burst_may_be_slowed_down() -> None:
    slowed = msgspec.structs.replace(_answer(429), headers={"retry-after": "1"})
    assert _judged("survives_burst", [_answer(200), slowed]) == "advice"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(401, "passed"), (404, "passed"), (200, "failed"), (302, "failed"), (500, "failed"), (None, "failed")],
)
def test_only_a_4xx_is_a_refusal(status: int | None, outcome: str) -> None:
    assert _judged("refuses_wrong_key", [_answer(status)]) == outcome


def _answer(status: int | None, seconds: float = 0.01) -> Answer:
    return Answer(status, {}, "", "timed out" if status is None else None, seconds, timed_out=status is None)


def _judged(name: str, answers: Sequence[Answer], usual_seconds: float = 0.01) -> str:
    check = next(check for check in CHECKS if check.name == name)
    request = Outgoing("A webhook", {}, b"")
    return check.judge(Observed([Exchange(request, answer) for answer in answers], None, usual_seconds)).outcome


# ---- timing


def test_timing_is_advice_only_for_a_clear_difference() -> None:
    noise = [0.0010, 0.0011, 0.0013, 0.0010, 0.0012, 0.0011, 0.0400, 0.0010, 0.0012, 0.0011]
    slower = [sample + 0.003 for sample in noise]
    assert reveals_progress(noise, slower)
    assert not reveals_progress(noise, noise)
    assert not reveals_progress(slower, noise)
    assert not reveals_progress(noise, [sample + 0.0001 for sample in noise]), "too small to be measured over a network"
    scattered = [0.001, 0.009, 0.002, 0.015, 0.004, 0.030, 0.001, 0.011, 0.003, 0.020]
    assert not reveals_progress(scattered, [sample + 0.003 for sample in scattered]), "less than the usual deviation"
    assert not reveals_progress(noise, [0.040, *noise[1:]]), "one slow sample"


# ---- cures


def cure(name: str, signing: str = "v1") -> Cure:
    """Return a check's cure."""
    return shown(StoredFinding(name, "passed", None, None, ""), signing).cure


@pytest.mark.parametrize("signing", ["v1", "v1a", "stripe", "github", "safepay"])
def test_every_check_has_a_cure_in_five_languages_and_the_python_code_is_valid(signing: str) -> None:
    for name in NAMES:
        found = cure(name, signing)
        assert found.summary, name
        assert all(getattr(found, language).strip() for language in LANGUAGES), name
        # Some snippets are parts of a function.
        body = "def handle():\n" + "".join(f"    {line}\n" for line in found.python.splitlines()) + "    return None\n"
        compile(body, name, "exec")


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (308, "redirect"),
        (401, "secret"),
        (404, "path"),
        (405, "POST"),
        (415, "application/json"),
        (500, "log"),
        (None, "running"),
    ],
)
def test_the_cure_of_a_refused_valid_webhook_fits_the_answer(status: int | None, cause: str) -> None:
    answer = ReceivedAnswer(status, {}, "", 1.0, None if status else "connection refused")
    found = shown(StoredFinding("accepts_valid", "failed", None, answer, ""), "v1").cure
    assert cause in found.summary
    assert ("secret" in found.summary) == (status == 401)


def test_a_large_body_that_the_sandbox_never_sends_may_be_refused() -> None:
    assert _judged("accepts_large_body", [_answer(200), _answer(413)]) == "advice"
    assert _judged("accepts_large_body", [_answer(413), _answer(413)]) == "failed"
    # The largest payout: 20 entries of metadata, with keys of 64 characters and values of 500, of 4 bytes each.
    event = _forge().event_of("payout.succeeded", metadata={f"{n:02}" + "😀" * 62: "😀" * 500 for n in range(20)})
    assert len(encode(event)) < LARGEST_BODY


def _vectors(signing: str) -> list[tuple[dict[str, str], str, bool]]:
    """Return webhooks as (headers, body, whether it is valid)."""
    now = int(time.time())
    forge = Forge(signing, PRIVATE_KEY if signing == "v1a" else SECRET, now, "2030-03-17T17:46:40.000Z", new_id)
    event = forge.event(new_id())
    good = forge.signed("", event)
    cases = [
        (good, True),
        (forge.rotated(event, wrong_first=True), True),
        (forge.rotated(event, wrong_first=False), True),
        (forge.signed("", event, age=3600), False),
        (forge.signed("", event, age=-3600), False),
        (forge.signed("", event, secrets=[forge.other_secret]), False),
        (forge.almost_right(good), False),
        *(
            (webhook, False)
            for check in CHECKS
            if check.name == "refuses_malformed_signature"
            for webhook in check.build(forge)
        ),
        *((forge.with_header(good, "", name, None), False) for name in forge.required_headers),
    ]
    return [(dict(webhook.headers), webhook.body.decode(), is_valid) for webhook, is_valid in cases]


VERIFIERS = {"v1": SECRET, "v1a": public_key(decode_private_key(PRIVATE_KEY))}
"""Ways of signing whose code is a whole function, with its key."""


@pytest.mark.parametrize("signing", VERIFIERS)
def test_the_python_function_that_verifies_is_right(signing: str) -> None:
    names: dict[str, Any] = {}
    exec(cure("refuses_wrong_key", signing).python, names)  # noqa: S102 -- the code that the report shows
    for headers, body, is_valid in _vectors(signing):
        assert names["is_valid"](VERIFIERS[signing], headers, body.encode()) is is_valid, headers


@pytest.mark.parametrize("signing", VERIFIERS)
def test_the_node_function_that_verifies_is_right(signing: str) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed, so its code is not tested")
    script = cure("refuses_wrong_key", signing).node + (
        '\nconst [key, cases] = JSON.parse(require("fs").readFileSync(0, "utf8"));'
        "\nconsole.log(JSON.stringify(cases.map(([headers, body]) => isValid(key, headers, Buffer.from(body)))));"
    )
    vectors = _vectors(signing)
    given = json.dumps([VERIFIERS[signing], vectors])
    done = subprocess.run(["node", "-e", script], input=given, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [is_valid for *_, is_valid in vectors]


def test_every_check_is_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "certify.md").read_text("utf-8")
    assert [name for name in NAMES if f"`{name}`" not in text] == []
