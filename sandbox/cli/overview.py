"""`psp overview`: statistics of the newest payouts and webhooks, and the balance."""

from typing import Any

from sandbox.cli.app import Shown
from sandbox.cli.derived import command_of


def _statistics(found: dict[str, Any]) -> str:
    payouts, balance, deliveries = found["payouts"], found["balance"]["points"][-1], found["deliveries"]
    attempts = deliveries["attempts"]
    lines = [f"Newest {payouts['covers']['rows']} payouts:"]
    lines += [f"  {one['status']:<20}{one['count']:>6}  {one['amount']}" for one in payouts["by_status"] if one["count"]]
    lines += [f"  {one['failure_code']:<20}{one['count']:>6}  {one['amount']}" for one in payouts["by_failure_code"]]
    in_progress = sum(one["count"] for one in payouts["open"])
    more = "more than " if any(one["is_capped"] for one in payouts["open"]) else ""
    lines.append(f"Not final: {more}{in_progress}.")
    lines.append(f"Balance: {balance['available']} available, {balance['locked']} locked.")
    lines.append(f"Newest {deliveries['covers']['rows']} webhook deliveries:")
    lines += [f"  {one['status']:<20}{one['count']:>6}" for one in deliveries["by_status"] if one["count"]]
    if attempts["latency"] is not None:
        latency = attempts["latency"]
        lines.append(
            f"Attempts: {attempts['success_rate']:.1%} succeeded, in {latency['p50_ms']} ms (median), {latency['p95_ms']} ms "
            f"(95 %), at most {latency['max_ms']} ms."
        )
    return "\n".join(lines)


overview = command_of("overview", shown=Shown(_statistics))
