"""Run the checks of one receiver test: send the requests, read the probe, judge. Knows no database."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sandbox.domain.clock import milliseconds, render
from sandbox.domain.ids import uuid7
from sandbox.webhooks.outbound.sender import SendResult, WebhookSender
from sandbox.webhooks.receiver_tests.checks import BURST, CHECKS, COPIES, NAMES, Check, Probing, Step
from sandbox.webhooks.receiver_tests.curl import curl
from sandbox.webhooks.receiver_tests.events import Forge, Outgoing, WireFormat
from sandbox.webhooks.receiver_tests.judges import Answer, Exchange, Limits, Observed, Reading, Verdict, described
from sandbox.webhooks.receiver_tests.probe import Probe
from sandbox.webhooks.receiver_tests.requests import ReceiverTestBody, normalized_secret
from sandbox.webhooks.receiver_tests.results import StoredFinding, received_answer, sent_request
from sandbox.webhooks.receiver_tests.timing import FIRST_PAIRS, MAX_SECONDS, advice, reveals_progress, second_pairs
from sandbox.webhooks.signing.dialects import CustomSigning, has_decoded_key

_IN_TURN: Final = 1.5
"""If two requests at the same time take this many times as long as one, the receiver handles them one after the other."""
_IN_PARALLEL: Final = 1.0
"""A receiver that takes longer than this gets the checks at the same time, if it can."""
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
    custom: CustomSigning | None = None
    """The settings if `signing` is `custom`."""
    wire: WireFormat | None = None
    """How events are written, if not natively."""

    def forge(self) -> Forge:
        """Return a maker of webhooks that are sent now."""
        now = datetime.now(UTC)
        return Forge(self.signing, self.secret, int(now.timestamp()), render(now), new_id, self.custom, self.wire)


def target_of(body: ReceiverTestBody, formats: Mapping[str, WireFormat]) -> Target:
    """Return the receiver to test. `formats` has the format of each signing whose events are not native."""
    custom = body.custom_signing
    is_decoded = has_decoded_key(body.signing, "text" if custom is None else custom.key_encoding)
    secret = normalized_secret("v1" if is_decoded else body.signing, body.secret)
    return Target(body.url, secret, body.signing, body.probe_url, custom, formats.get(body.signing))


class ReceiverRun:
    """One run of all checks against a receiver."""

    def __init__(self, sender: WebhookSender, target: Target, limits: Limits = Limits()) -> None:  # noqa: B008 -- immutable
        """`sender` must have a timeout of `limits.give_up`."""
        self._sender = sender
        self._target = target
        self._limits = limits
        self._usual_seconds = 0.0
        self._is_parallel = False
        self._probe = None if target.probe_url is None else Probe(target.probe_url, self._get, limits)
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
        """Run the check of the answer times, and decide whether the other checks run in parallel.

        One after the other, they would take minutes if the receiver is slow. So it gets them at the same time, unless it
        turns out to handle one request at a time.
        """
        if self._usual_seconds <= min(_IN_PARALLEL, self._limits.advice):
            await self._one(check, on_finding)
            return
        forge = self._target.forge()
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

    async def _one(self, check: Check, on_finding: OnFinding) -> StoredFinding:
        forge = self._target.forge()
        reason = check.not_applicable(forge)
        if reason is not None:
            finding = StoredFinding(check.name, "skipped", None, None, reason)
        else:
            finding = await self._checked(check, check.build(forge))
        self._add(finding, on_finding)
        return finding

    async def _checked(self, check: Check, requests: Sequence[Outgoing]) -> StoredFinding:
        exchanges, readings, is_idle = await self._observe(check, requests)
        if check.name == "accepts_valid":
            self._usual_seconds = exchanges[0].answer.seconds
        observed = Observed(exchanges, readings, self._usual_seconds, self._limits, self._target.signing, is_idle)
        verdict = check.judge(observed)
        if check.name == "refuses_wrong_key" and verdict.outcome == "passed":
            verdict = await self._judge_timing(exchanges[0].answer.seconds)
        # A duplicate or a late event can only be repeated together with the webhooks before it.
        first = 0 if check.probing is Probing.IN_STEPS else verdict.decisive
        at_once = BURST if check.is_burst else COPIES if check.probing is Probing.COPIED else 1
        repeated = requests[first : max(verdict.decisive + 1, min(len(check.steps), 2))]
        command = curl(self._target.url, repeated, at_once)
        sent = sent_request(self._target.url, requests, verdict.decisive, command)
        received = received_answer(exchanges[verdict.decisive].answer, self._hidden)
        return StoredFinding(check.name, verdict.outcome, sent, received, verdict.observation)

    async def _observe(self, check: Check, requests: Sequence[Outgoing]) -> tuple[list[Exchange], list[Reading] | None, bool]:
        """Send a check's requests and read the probe. Return the answers, the readings, and whether the receiver is idle."""
        probe = self._probe
        if check.probing is Probing.COPIED:
            return await self._send_copies(requests)
        if check.probing is Probing.IN_STEPS and probe is not None:
            return *await self._send_in_steps(requests, check.steps, probe), False
        if check.is_burst or (self._is_parallel and check.probing is not Probing.IN_STEPS):
            exchanges = list(await asyncio.gather(*map(self._exchange, requests)))
        else:
            exchanges = [await self._exchange(request) for request in requests]
        if probe is None:
            return exchanges, None, False
        payout_ids = [request.payout_id for request in requests] if check.probing is not Probing.NOTHING else []
        if check.probing is Probing.ONCE_EACH:
            return exchanges, list(await asyncio.gather(*map(probe.read, payout_ids))), False
        if check.probing is Probing.UNTIL_APPLIED and all(exchange.answer.is_accepted for exchange in exchanges):
            readings = await probe.settled_all(payout_ids)
            if not check.is_burst or all(reading.error is not None or reading.applied > 0 for reading in readings):
                return exchanges, readings, False
            later = await self._send_later(probe)
            return exchanges, await probe.until_idle(payout_ids, readings), later.applied > 0
        return exchanges, None, False

    async def _exchange(self, request: Outgoing) -> Exchange:
        started = time.perf_counter()
        result = await self._sender.send(self._target.url, request.body, request.headers, request.method)
        return Exchange(request, answer_of(result, time.perf_counter() - started))

    async def _send_copies(self, requests: Sequence[Outgoing]) -> tuple[list[Exchange], list[Reading] | None, bool]:
        """Send the copies of each webhook at the same time, and read the probe when each of them has had its effect."""
        exchanges: list[Exchange] = []
        # One race takes long enough if the receiver does.
        count = COPIES if self._usual_seconds > _IN_PARALLEL else len(requests)
        for start in range(0, count, COPIES):
            exchanges += await asyncio.gather(*map(self._exchange, requests[start : start + COPIES]))
        if self._probe is None:
            return exchanges, None, False
        await self._send_later(self._probe)
        return exchanges, await self._probe.settled_all([request.payout_id for request in requests[:count:COPIES]]), False

    async def _send_in_steps(
        self, requests: Sequence[Outgoing], steps: Sequence[Step], probe: Probe
    ) -> tuple[list[Exchange], list[Reading]]:
        """Send the webhooks of one payout in order, and read the probe after each step."""
        payout_id = requests[0].payout_id
        exchanges: list[Exchange] = []
        readings: list[Reading] = []
        for step in steps:
            sent = len(exchanges)
            exchanges += [await self._exchange(request) for request in requests[sent : sent + step.webhooks]]
            if not readings:
                await probe.settled(payout_id)
            if readings or step.webhooks > 1:
                await self._send_later(probe)
            applied = readings[-1].applied if readings else 0
            readings.append(await probe.caught_up(payout_id, applied + step.effects))
        return exchanges, readings

    async def _send_later(self, probe: Probe) -> Reading:
        """Send a webhook of another payout, and return its reading.

        A receiver may put events into a queue and answer immediately. When a later event has had its effect, so have these. A
        receiver that answers slowly does the work before it answers.
        """
        if self._usual_seconds > self._limits.advice:
            return Reading()
        forge = self._target.forge()
        later = forge.signed("A later webhook", forge.event(forge.new_id()))
        await self._exchange(later)
        return await probe.settled(later.payout_id)

    async def _get(self, url: str) -> Answer:
        return answer_of(await self._sender.send(url, b"", {"accept": "application/json"}, "GET"))

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
                forge = self._target.forge()
                webhook = forge.signed("", forge.event(forge.new_id()))
                two = [(wrong, forge.all_wrong(webhook)), (nearly_right, forge.almost_right(webhook))]
                # Take turns in going first, so that neither profits from the other's warm caches.
                for samples, request in two if number % 2 else reversed(two):
                    answer = (await self._exchange(request)).answer
                    if answer.is_accepted:
                        return Verdict("failed", f"{request.label} was accepted: {described(answer)}.")
                    if answer.status is None:
                        return Verdict("passed")  # another check reports what is wrong
                    samples.append(answer.seconds)
            if not reveals_progress(wrong, nearly_right):
                return Verdict("passed")
        return Verdict("advice", advice(wrong, nearly_right))


def _hidden_texts(secret: str) -> list[str]:
    texts = (secret, secret.removeprefix("whsec_").removeprefix("whsk_"))
    return [text for text in texts if len(text) >= _SHORTEST_HIDDEN]


def answer_of(result: SendResult, seconds: float = 0.0) -> Answer:
    """Return the result of a request as an answer. `seconds` is its duration."""
    return Answer(
        status=result.status,
        headers=result.response_headers,
        body=result.response_body,
        error=result.error,
        seconds=seconds,
        timed_out=result.error_class == "TIMEOUT" and result.status is None,
    )


def new_id() -> str:
    # Not for secrets: events of a receiver test need ids that no other event has.
    random_bits = random.SystemRandom()
    return uuid7(milliseconds(datetime.now(UTC)), random_bits.getrandbits(32), random_bits.getrandbits(42))
