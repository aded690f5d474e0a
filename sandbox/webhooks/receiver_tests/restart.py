"""The check `survives_restart`: kill the receiver in the middle of a burst, start it again, and see what it did.

`psp certify --app` runs it, because only the machine of the receiver can kill it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from sandbox.webhooks.outbound.sender import WebhookSender
from sandbox.webhooks.receiver_tests.application import Application, ApplicationError
from sandbox.webhooks.receiver_tests.checks import BURST
from sandbox.webhooks.receiver_tests.events import Json, Outgoing
from sandbox.webhooks.receiver_tests.judges import Answer, Limits, described
from sandbox.webhooks.receiver_tests.probe import Probe
from sandbox.webhooks.receiver_tests.results import StoredFinding
from sandbox.webhooks.receiver_tests.runner import Target, answer_of, new_id

NAME: Final = "survives_restart"
_ANSWERED: Final = (1, 10, 25)
"""The receiver is killed once for each of these numbers of answers to a burst."""
_TRIES: Final = 20
_PAUSE: Final = 0.25


class _Round(NamedTuple):
    events: Sequence[Json]
    accepted: Sequence[bool]
    """Whether each event was accepted before the receiver was killed."""


async def check_restart(sender: WebhookSender, target: Target, app: Application) -> StoredFinding:
    """Run the check against an application that is running, and return what it found. The target must have a probe."""
    assert target.probe_url is not None, "only the probe shows what was lost"
    run = _Restart(sender, target, target.probe_url, Limits())
    try:
        for answered in _ANSWERED:
            observation = await run.once(app, answered)
            if observation is not None:
                return StoredFinding(NAME, "failed", None, None, observation)
    except ApplicationError as error:
        return StoredFinding(NAME, "failed", None, None, f"The check could not be completed. {error}")
    return StoredFinding(NAME, "passed", None, None, "")


class _Restart:
    def __init__(self, sender: WebhookSender, target: Target, probe_url: str, limits: Limits) -> None:
        self._sender = sender
        self._target = target
        self._probe = Probe(probe_url, self._get, limits)

    async def once(self, app: Application, answered: int) -> str | None:
        """Kill and restart the receiver once it has answered this many webhooks. Return the error, or None."""
        forge = self._target.forge()
        burst = await self._interrupt(app.kill, answered)
        await app.restart()
        accepted = [event for event, is_accepted in zip(burst.events, burst.accepted, strict=True) if is_accepted]
        readings = await self._probe.settled_all([forge.payout_id(event) for event in accepted])
        lost = sum(reading.applied < 1 for reading in readings)
        if lost:
            return (
                f"The receiver was killed in the middle of a burst. Of {len(accepted)} webhooks that it had accepted before, "
                f"{lost} have no effect after the restart: they are lost, or it has forgotten them."
            )
        refusal = await self._send_again(burst.events)
        if refusal is not None:
            return f"After a restart, a webhook that was sent again was not accepted: {refusal}."
        readings = await self._probe.settled_all([forge.payout_id(event) for event in burst.events])
        never, twice = (sum(is_wrong(reading.applied) for reading in readings) for is_wrong in (_is_none, _is_many))
        if never:
            return (
                "The receiver was killed in the middle of a burst, restarted, and sent all of it again. It accepted every "
                f"webhook, but {never} of {len(readings)} have no effect: the retry of an interrupted one counts as a "
                "duplicate."
            )
        if twice:
            return f"After a restart, the same webhooks were sent again, and the receiver acted on {twice} of them twice."
        return None

    async def _interrupt(self, kill: Callable[[], Awaitable[None]], answered: int) -> _Round:
        events = [self._target.forge().event(new_id()) for _ in range(BURST)]
        accepted = [False] * BURST
        enough = asyncio.Event()

        async def send(number: int) -> None:
            accepted[number] = (await self._post(events[number])) is None
            if sum(accepted) >= answered:
                enough.set()

        async with asyncio.TaskGroup() as group:
            sending = [group.create_task(send(number)) for number in range(BURST)]
            waiting = group.create_task(enough.wait())
            # If too few are accepted, the awaited number of answers never comes.
            asyncio.gather(*sending).add_done_callback(lambda _: enough.set())
            await waiting
            await kill()
        return _Round(events, accepted)

    async def _send_again(self, events: Sequence[Json]) -> str | None:
        """Send each webhook again until it is accepted, one after the other. Return why one is not, or None."""
        for event in events:
            for left in reversed(range(_TRIES)):
                refusal = await self._post(event)
                if refusal is None:
                    break
                if not left:
                    return refusal
                await asyncio.sleep(_PAUSE)
        return None

    async def _post(self, event: Json) -> str | None:
        """Send a webhook. Return why it was not accepted, or None."""
        request: Outgoing = self._target.forge().signed("", event)
        answer = answer_of(await self._sender.send(self._target.url, request.body, request.headers))
        return None if answer.is_accepted else described(answer)

    async def _get(self, url: str) -> Answer:
        return answer_of(await self._sender.send(url, b"", {"accept": "application/json"}, "GET"))


def _is_none(applied: int) -> bool:
    return applied < 1


def _is_many(applied: int) -> bool:
    return applied > 1
