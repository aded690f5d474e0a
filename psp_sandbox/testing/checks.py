"""The checks that run when a test ends."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

from psp_sandbox.client.models import Delivery
from psp_sandbox.testing.counted import counted

if TYPE_CHECKING:
    from psp_sandbox.testing.world import World

_PAGE: Final = 100
_MAX_LISTED: Final = 10
_SHORT: Final = 200
_UNSUCCESSFUL: Final[tuple[Literal["FAILED", "PAUSED", "PENDING"], ...]] = ("FAILED", "PAUSED", "PENDING")


def failed_checks(world: "World") -> list[str]:
    """Return the failed checks at the end of a test, one readable paragraph each."""
    if not world.is_frozen:
        world.drain()  # work that began just before the end is still in progress
    return [*_audit(world), *_deliveries(world), *_invalid_webhooks(world), *_faults(world)]


def _audit(world: "World") -> Iterator[str]:
    report = world.client.audit()
    if not report.ok:
        lines = [": ".join([check.name, *check.problems[:3]]) for check in report.checks if not check.ok]
        yield _list("The audit of the ledger found errors.", lines)


def _deliveries(world: "World") -> Iterator[str]:
    if world.allow_failed_deliveries:
        return
    deliveries = _unsuccessful(world)
    if any(one.attempt_count == 0 and one.status == "PENDING" for one in deliveries):
        world.drain()  # a first attempt is in progress
        deliveries = _unsuccessful(world)
    failed = [one for one in deliveries if one.attempt_count > 0 or one.status != "PENDING"]
    if failed:
        lines = [describe_delivery(world, one) for one in failed[:_MAX_LISTED]]
        lines += [f"and {len(failed) - _MAX_LISTED} more"] if len(failed) > _MAX_LISTED else []
        hint = "If the test expects that, use @pytest.mark.psp(allow_failed_deliveries=True), or set it on psp."
        yield _list(
            f"{counted(len(failed), 'webhook delivery', 'webhook deliveries')} failed, and no later attempt succeeded.",
            lines,
            _why_unreachable(world) or hint,
        )


def _why_unreachable(world: "World") -> str | None:
    """Return what to do if a sandbox that the plugin has not started cannot reach this process, or None.

    Its attempts then end without a response, and nothing at all has arrived.
    """
    if world.uses_own_sandbox or world.received.all():
        return None
    return (
        f"Nothing arrived. The plugin receives webhooks at {world.sandbox.webhook_host}, where the sandbox at {world.url} must "
        "reach it; in a container, 127.0.0.1 is the container. Say with --psp-webhook-host by which address or name the "
        "sandbox reaches this machine, such as 172.17.0.1 or host.docker.internal, or leave --psp-url and PSP_URL out, so that "
        "the plugin starts a sandbox of its own. If the test needs no webhooks, use "
        "@pytest.mark.psp(allow_failed_deliveries=True)."
    )


def _unsuccessful(world: "World") -> list[Delivery]:
    deliveries = world.client.deliveries
    found = list(islice(deliveries.list(limit=_PAGE), _PAGE))
    if len(found) < _PAGE:  # in nearly every test, one request is enough
        return [one for one in found if one.status != "SUCCEEDED"]
    by_status = [islice(deliveries.list(limit=_PAGE, status=status), _PAGE) for status in _UNSUCCESSFUL]
    return [one for part in by_status for one in part]


def describe_delivery(world: "World", delivery: Delivery) -> str:
    """Return one line about a delivery: its event, its status and its last attempt."""
    attempts = world.client.deliveries.get(delivery.id).attempts
    line = f"{delivery.event_type} is {delivery.status} after {counted(delivery.attempt_count, 'attempt')}"
    if not attempts:
        return line
    last = attempts[-1]
    answer = f"{last.status} {_short(last.response.body if last.response else '')}" if last.status else str(last.error)
    fault = f" (fault {last.fault_kind})" if last.fault_kind else ""
    return f"{line}; the last one got {answer.strip()}{fault} from {last.url}"


def _invalid_webhooks(world: "World") -> Iterator[str]:
    # Anybody may send requests to an application. It must refuse the invalid ones itself.
    if world.has_app or world.may_get_invalid_webhooks or world.allow_failed_deliveries:
        return
    invalid = [one for one in world.received.all() if one.problem is not None]
    if invalid:
        yield _list(
            f"{counted(len(invalid), 'webhook')} arrived that did not verify.",
            [f"{one.headers.get('webhook-id', 'without an id')}: {one.problem}" for one in invalid[:_MAX_LISTED]],
        )


def _faults(world: "World") -> Iterator[str]:
    if world.allow_unhit_faults:
        return
    unhit = [f"{fault.kind} on {fault.describe()}" for fault in world.faults if not fault.hit and not fault.allow_unhit]
    active = world.client.faults.list(limit=_PAGE)
    unhit += [f"{one.kind} on {' '.join(one.match.values()) or one.target}" for one in active if not one.hits]
    if unhit:
        yield _list(
            f"{counted(len(unhit), 'fault')} never took effect, so the test has not tested what it was for.", unhit,
            "If that is intended, use psp.fault(..., allow_unhit=True) or @pytest.mark.psp(allow_unhit_faults=True).",
        )  # fmt: skip


def _list(title: str, lines: list[str], hint: str = "") -> str:
    return "\n".join([title, *(f"  - {line}" for line in lines), *([f"  {hint}"] if hint else [])])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else f"{line[:_SHORT]}…"
