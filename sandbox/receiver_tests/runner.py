"""Run the checks of one receiver test: send the requests, read the probe, judge. Knows no database."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final
from urllib.parse import quote

import msgspec

from sandbox.domain.clock import milliseconds, render
from sandbox.domain.ids import uuid7
from sandbox.domain.receiver_checks import BURST, CHECKS, NAMES, Check, Probing
from sandbox.domain.receiver_curl import curl
from sandbox.domain.receiver_events import Forge, Outgoing
from sandbox.domain.receiver_judges import Answer, Exchange, Limits, Observed, Reading, Verdict, described
from sandbox.domain.receiver_timing import FIRST_PAIRS, MAX_SECONDS, advice, reveals_progress, second_pairs
from sandbox.receiver_tests.results import StoredFinding, received_answer, sent_request
from sandbox.webhooks.sender import SendResult, WebhookSender

_IN_TURN: Final = 1.5
"""If two requests at once take this many times as long as one, the receiver handles them one after the other."""
_READING_PAUSE: Final = 0.2
_SHORTEST_HIDDEN: Final = 8
"""A secret shorter than this is not hidden in answers, where it could be any word."""
OnFinding = Callable[[StoredFinding], None]


@dataclass(frozen=True, slots=True)
class Target:
    """The receiver to test. `secret` is the one that it verifies webhooks with."""

    url: str
    secret: str
    signing: str = "v1"
    probe_url: str | None = None


class ReceiverRun:
    """One run of all checks against a receiver."""

    def __init__(self, sender: WebhookSender, target: Target, limits: Limits = Limits()) -> None:  # noqa: B008 -- immutable
        """`sender` must have a timeout of `limits.give_up`."""
        self._sender = sender
        self._target = target
        self._limits = limits
        self._usual_seconds = 0.0
        self._is_parallel = False
        self._hidden = _hidden_texts(target.secret)
        self._findings: dict[str, StoredFinding] = {}

    async def run(self, on_finding: OnFinding = lambda finding: None) -> list[StoredFinding]:
        """Run all checks, and return the findings in the order of CHECKS. Calls `on_finding` with each, as it is made.

        Failures of the receiver are findings. Raises nothing but CancelledError.
        """
        try:
            async with asyncio.timeout(self._limits.total):
                await self._run(on_finding)
        except TimeoutError:
            reason = f"The whole test is limited to {self._limits.total:g} s, and other checks took that long."
            self._skip_rest(reason, on_finding)
        return [self._findings[name] for name in NAMES]

    async def _run(self, on_finding: OnFinding) -> None:
        by_name = {check.name: check for check in CHECKS}
        first = await self._one(by_name["accepts_valid"], on_finding)
        if first.outcome == "failed":
            self._skip_rest("The receiver does not accept a valid webhook, so nothing else can be judged.", on_finding)
            return
        # Measure the time first, so that other checks do not slow the receiver down.
        await self._measure(by_name["answers_in_time"], on_finding)
        if first.outcome == "skipped":
            self._skip_rest("The receiver does not answer, so nothing else can be judged.", on_finding)
            return
        rest = [check for check in CHECKS if check.name not in self._findings and not check.is_burst]
        slots = asyncio.Semaphore(len(rest) if self._is_parallel else 1)

        async def run_one(check: Check) -> None:
            async with slots:
                await self._one(check, on_finding)

        async with asyncio.TaskGroup() as group:
            for check in rest:
                group.create_task(run_one(check))
        await self._one(by_name["survives_burst"], on_finding)

    async def _measure(self, check: Check, on_finding: OnFinding) -> None:
        """Run the check of the receiver's time, and decide whether to run the others at the same time.

        If the receiver is slow, all of them one after the other would take minutes. It gets them at once, unless it turns out
        that it handles requests one after the other.
        """
        if self._usual_seconds <= self._limits.advice:
            await self._one(check, on_finding)
            return
        forge = self._forge()
        another = forge.signed("Another webhook", forge.event(forge.new_id()))
        started = time.perf_counter()
        await asyncio.gather(self._one(check, on_finding), self._exchange(another))
        self._is_parallel = time.perf_counter() - started < self._usual_seconds * _IN_TURN

    def _skip_rest(self, reason: str, on_finding: OnFinding) -> None:
        for name in NAMES:
            if name not in self._findings:
                self._add(StoredFinding(name, "skipped", None, None, reason), on_finding)

    def _add(self, finding: StoredFinding, on_finding: OnFinding) -> None:
        self._findings[finding.name] = finding
        on_finding(finding)

    def _forge(self) -> Forge:
        now = datetime.now(UTC)
        return Forge(self._target.signing, self._target.secret, int(now.timestamp()), render(now), new_id)

    async def _one(self, check: Check, on_finding: OnFinding) -> StoredFinding:
        forge = self._forge()
        reason = check.not_applicable(forge)
        if reason is not None:
            finding = StoredFinding(check.name, "skipped", None, None, reason)
        else:
            finding = await self._checked(check, check.build(forge))
        self._add(finding, on_finding)
        return finding

    async def _checked(self, check: Check, requests: Sequence[Outgoing]) -> StoredFinding:
        needs_order = check.probing is Probing.BEFORE_AND_AFTER
        readings: Sequence[Reading] | None = None
        if needs_order and self._target.probe_url is not None:
            exchanges, readings = await self._probed(requests, self._target.probe_url)
        elif check.is_burst or (self._is_parallel and not needs_order):
            exchanges = list(await asyncio.gather(*map(self._exchange, requests)))
        else:
            exchanges = [await self._exchange(request) for request in requests]
        if (
            check.probing in _READERS
            and self._target.probe_url is not None
            and (check.probing is Probing.ONCE_EACH or all(exchange.answer.is_accepted for exchange in exchanges))
        ):
            read = partial(_READERS[check.probing], self, self._target.probe_url)
            readings = await asyncio.gather(*(read(_payout_of(request)) for request in requests))
        if check.name == "accepts_valid":
            self._usual_seconds = exchanges[0].answer.seconds
        observed = Observed(exchanges, readings, self._usual_seconds, self._limits, self._target.signing)
        verdict = check.judge(observed)
        if check.name == "refuses_wrong_key" and verdict.outcome == "passed":
            verdict = await self._judge_timing(exchanges[0].answer.seconds)
        # A duplicate or a late event can only be repeated together with the webhook before it.
        repeated = requests if needs_order else [requests[verdict.decisive]]
        command = curl(self._target.url, repeated, BURST if check.is_burst else 1)
        sent = sent_request(self._target.url, requests, verdict.decisive, command)
        received = received_answer(exchanges[verdict.decisive].answer, self._hidden)
        return StoredFinding(check.name, verdict.outcome, sent, received, verdict.observation)

    async def _exchange(self, request: Outgoing) -> Exchange:
        started = time.perf_counter()
        result = await self._sender.send(self._target.url, request.body, request.headers, request.method)
        return Exchange(request, _answer(result, time.perf_counter() - started))

    async def _probed(self, requests: Sequence[Outgoing], probe_url: str) -> tuple[list[Exchange], tuple[Reading, Reading]]:
        """Send two webhooks of one payout, and read the probe after each."""
        payout_id = _payout_of(requests[0])
        exchanges = [await self._exchange(requests[0])]
        before = await self._settled(probe_url, payout_id)
        exchanges.append(await self._exchange(requests[1]))
        if self._usual_seconds <= self._limits.advice:
            # A receiver may put events into a queue and answer at once. When a later event has had its effect, so has this one.
            # A receiver that answers slowly does the work before it answers.
            forge = self._forge()
            later = forge.new_id()
            await self._exchange(forge.signed("A later webhook", forge.event(later)))
            await self._settled(probe_url, later)
        return exchanges, (before, await self._read(probe_url, payout_id))

    async def _settled(self, probe_url: str, payout_id: str) -> Reading:
        """Return the probe's reading as soon as it shows an event of the payout, or the last one before the limit."""
        deadline = time.monotonic() + self._limits.probe
        pause = 0.01
        while True:
            reading = await self._read(probe_url, payout_id)
            is_shown = reading.status is not None and reading.applied >= 1
            # A receiver may answer 404 until it knows the payout.
            is_error = reading.error is not None and not reading.is_unknown
            if is_shown or is_error or time.monotonic() > deadline:
                return reading
            await asyncio.sleep(pause)
            pause = min(pause * 2, _READING_PAUSE)

    async def _read(self, probe_url: str, payout_id: str) -> Reading:
        separator = "&" if "?" in probe_url else "?"
        url = f"{probe_url.partition('#')[0]}{separator}payout_id={quote(payout_id)}"
        answer = _answer(await self._sender.send(url, b"", {"accept": "application/json"}, "GET"), 0)
        if answer.status != 200:
            error = described(answer).replace("the receiver", "it")
            return Reading(error=error, is_unknown=answer.status == 404)
        try:
            return _decode_reading(answer.body)
        except msgspec.MsgspecError:
            return Reading(error='its body must be JSON such as {"status": "SUCCESS", "applied": 1}')

    async def _judge_timing(self, usual_seconds: float) -> Verdict:
        """Compare how long it takes to refuse signatures that are wrong everywhere, and almost right."""
        if self._target.signing == "v1a" or usual_seconds > MAX_SECONDS or self._usual_seconds > self._limits.advice:
            return Verdict("passed")
        wrong: list[float] = []
        nearly_right: list[float] = []
        for is_first in (True, False):
            pairs = FIRST_PAIRS if is_first else second_pairs(nearly_right)
            wrong, nearly_right = [], []
            for number in range(pairs):
                forge = self._forge()
                webhook = forge.signed("", forge.event(forge.new_id()))
                two = [(wrong, forge.all_wrong(webhook)), (nearly_right, forge.almost_right(webhook))]
                # Take turns in going first, so that neither profits from the other's warm caches.
                for samples, request in two if number % 2 else reversed(two):
                    answer = (await self._exchange(request)).answer
                    if answer.status is None or answer.is_accepted:
                        return Verdict("passed")  # another check reports what is wrong
                    samples.append(answer.seconds)
            if not reveals_progress(wrong, nearly_right):
                return Verdict("passed")
        return Verdict("advice", advice(wrong, nearly_right))


_READERS: Final = {Probing.ONCE_EACH: ReceiverRun._read, Probing.UNTIL_APPLIED: ReceiverRun._settled}


def _hidden_texts(secret: str) -> list[str]:
    texts = (secret, secret.removeprefix("whsec_").removeprefix("whsk_"))
    return [text for text in texts if len(text) >= _SHORTEST_HIDDEN]


class _Probe(msgspec.Struct):
    status: str | None
    applied: int


_PROBE: Final = msgspec.json.Decoder(_Probe)


def _decode_reading(body: str) -> Reading:
    found = _PROBE.decode(body)
    return Reading(found.status, found.applied)


def _answer(result: SendResult, seconds: float) -> Answer:
    return Answer(
        status=result.status,
        headers=result.response_headers,
        body=result.response_body,
        error=result.error,
        seconds=seconds,
        timed_out=result.error_class == "TIMEOUT" and result.status is None,
    )


def _payout_of(request: Outgoing) -> str:
    payout_id: str = msgspec.json.decode(request.body)["data"]["id"]
    return payout_id


def new_id() -> str:
    # Not for secrets: events of a receiver test need ids that no other event has.
    random_bits = random.SystemRandom()
    return uuid7(milliseconds(datetime.now(UTC)), random_bits.getrandbits(32), random_bits.getrandbits(42))
