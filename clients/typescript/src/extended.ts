import { randomUUID } from "node:crypto";
import type { WriteOptions } from "./calls.js";
import type { Caller } from "./caller.js";
import { NotReached, WaitTimeout } from "./errors.js";
import type { PayoutStatus } from "./generated/literals.js";
import type { ClockRun, ClockState, Drained, Payout, TimelineEntry } from "./generated/models.js";
import * as nouns from "./generated/nouns.js";
import type { ClockAdvance } from "./generated/parameters.js";

const LONGEST_POLL_SECONDS = 25;
const MOST_REPEATS = 20;
/** The statuses that a payout leaves only if it is reinitiated. */
const ENDED: readonly (string | null)[] = ["FAILED", "CANCELLED", "REJECTED", "RETURNED"];

/** The payouts, and waiting for them. */
export class PayoutsApi extends nouns.PayoutsApi {
  /**
   * Wait until a payout is in one of these statuses, or has been since it was last reinitiated, and return it.
   *
   * Waits up to `timeoutMs` of real time, 30 000 by default. Throws WaitTimeout after that, and NotReached as soon as the payout
   * has ended in another status.
   */
  async waitFor(
    payoutId: string,
    statuses: PayoutStatus | readonly PayoutStatus[],
    options: { timeoutMs?: number } = {},
  ): Promise<Payout> {
    const wanted = [statuses].flat() as PayoutStatus[];
    if (wanted.length === 0) throw new TypeError("name at least one status to wait for");
    let left = (options.timeoutMs ?? 30_000) / 1000;
    for (;;) {
      const timeout = Math.max(0, Math.min(left, LONGEST_POLL_SECONDS));
      const payout = await this.get(payoutId, { wait_for: wanted, timeout });
      if (wanted.includes(payout.status)) return payout;
      const timeline = await this.timeline(payoutId);
      if (sinceReinitiated(timeline).some((entry) => wanted.some((status) => status === entry.to))) return payout;
      if (ENDED.includes(payout.status)) throw new NotReached(payout, wanted, timeline, "it has ended.");
      left -= timeout;
      if (left <= 0) throw await this.#late(payout, wanted, timeline, options.timeoutMs ?? 30_000);
    }
  }

  async #late(payout: Payout, wanted: PayoutStatus[], timeline: TimelineEntry[], waitedMs: number): Promise<WaitTimeout> {
    const clock: ClockState = await this.caller.send({ method: "GET", path: "/sandbox/v1/clock" });
    const hint = clock.frozen ? ` The merchant's clock is frozen at ${clock.now}; advance it.` : "";
    return new WaitTimeout(payout, wanted, timeline, `${waitedMs} ms have passed.${hint}`);
  }
}

/** Return the part of a timeline since the payout was last reinitiated. */
function sinceReinitiated(timeline: readonly TimelineEntry[]): readonly TimelineEntry[] {
  const starts = timeline.map((entry) => ENDED.includes(entry.from) && entry.to === "PENDING");
  return timeline.slice(Math.max(0, starts.lastIndexOf(true)));
}

/** The clock of the merchant. */
export class ClockApi extends nouns.ClockApi {
  /**
   * Advance the clock by `seconds`, or to a time, and run all that becomes due on the way. `ran` lists it.
   *
   * A long advance takes several calls; the result is that of all. `complete` is false, and `stopped_because` says why, if work
   * remains that cannot be done, for example because a webhook endpoint does not respond.
   */
  override async advance(fields: ClockAdvance, options: WriteOptions = {}): Promise<ClockRun> {
    const first = { ...options, idempotencyKey: options.idempotencyKey ?? randomUUID() };
    // The sandbox keeps the goal under the key: the same call again continues to the same goal.
    const next = (): Promise<ClockRun> =>
      this.caller.send({
        method: "POST",
        path: "/sandbox/v1/clock/advance",
        body: fields,
        isWrite: true,
        waits: LONGEST_POLL_SECONDS,
        ...first,
      });
    const run = await next();
    return repeat(run, next, (one) => one.complete, (all, more) => ({ ...more, from: all.from }));
  }
}

/** Drain until nothing is due, or until a call makes no progress. */
export async function drain(caller: Caller, options: WriteOptions): Promise<Drained> {
  const first = { ...options, idempotencyKey: options.idempotencyKey ?? randomUUID() };
  const next = (): Promise<Drained> =>
    caller.send({ method: "POST", path: "/sandbox/v1/drain", body: {}, isWrite: true, waits: LONGEST_POLL_SECONDS, ...first });
  return repeat(await next(), next, (one) => one.drained, (_, more) => more);
}

interface Run {
  steps: number;
  ran?: unknown[] | null | undefined;
}

/** Repeat a call until it is done, or makes no progress. The result counts what all of them ran. */
async function repeat<T extends Run>(
  run: T,
  next: () => Promise<T>,
  isDone: (run: T) => boolean,
  joined: (all: T, more: T) => T,
): Promise<T> {
  for (let repeats = 0; repeats < MOST_REPEATS && !isDone(run); repeats += 1) {
    const more = await next();
    run = { ...joined(run, more), steps: run.steps + more.steps, ran: [...(run.ran ?? []), ...(more.ran ?? [])] };
    if (more.steps === 0) break;
  }
  return run;
}

