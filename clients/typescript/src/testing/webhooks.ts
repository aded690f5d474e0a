import { setTimeout as pause } from "node:timers/promises";
import type { EventType } from "../generated/literals.js";
import type { Inbox, Received, Webhook } from "./inbox.js";
import { UsageError } from "./values.js";

const EXPECT_MS = 10_000;
const FIRST_PAUSE_MS = 10;
const LONGEST_PAUSE_MS = 200;
const MOST_SHOWN = 20;
const now = performance.now.bind(performance);

/** What `expect` may be told. */
export interface ExpectOptions {
  /** There must be exactly so many different ones, at least 1. */
  times?: number;
  /** A payout or its id. */
  payout?: PayoutLike;
  /** How long to wait, in real time. By default 10 000, or 0 if the clock is frozen and the test has no application. */
  timeoutMs?: number;
}

/** A payout or its id. */
export type PayoutLike = string | { readonly id: string };

/**
 * The verified webhooks that the test received, each event once, those of a payout ordered by its version.
 *
 * Called with a payout, it returns those of that payout. Reading waits until all due deliveries have been attempted, so there is
 * nothing to wait for in between. Requests that are not genuine webhooks are only in `received`.
 */
export interface Webhooks {
  (payout: PayoutLike): Webhooks;
  /** Return all of them, in order. */
  all(): Promise<Webhook[]>;
  /** Return their event types, in order. */
  types(): Promise<string[]>;
  /** Return every request that arrived, in order: also repeated ones and, unless of one payout, invalid ones. */
  received(): Promise<Received[]>;
  /** Wait for an event of this type and return the last one. Throws an error that says what arrived instead. */
  expect(eventType: EventType, options?: ExpectOptions): Promise<Webhook>;
}

/** What webhooks are read from. */
export interface Source {
  readonly inbox: Inbox;
  /** Waits until all due deliveries have been attempted. */
  settle(): Promise<void>;
  /** Whether events can still arrive when all due work is done: if a clock or an application runs. */
  canChange(): boolean;
}

/** Return the webhooks of a source: all, or those of one payout. */
export function webhooksOf(source: Source, payoutId?: string): Webhooks {
  const all = async (): Promise<Webhook[]> => {
    await source.settle();
    return source.inbox.events(payoutId);
  };
  const received = async (): Promise<Received[]> => {
    await source.settle();
    return source.inbox.received.filter((one) => payoutId === undefined || one.event?.data["id"] === payoutId);
  };
  const types = async (): Promise<string[]> => (await all()).map((one) => one.type);
  const expect = (eventType: EventType, options: ExpectOptions = {}): Promise<Webhook> =>
    waitFor(source, eventType, options, options.payout === undefined ? payoutId : payoutIdOf(options.payout));
  return Object.assign((payout: PayoutLike) => webhooksOf(source, payoutIdOf(payout)), { all, types, received, expect });
}

/** Return the id of a payout, which may be given as its id. Throws a UsageError. */
export function payoutIdOf(payout: PayoutLike): string {
  const found: unknown = typeof payout === "string" ? payout : payout?.id;
  if (typeof found !== "string") throw new UsageError(`expected a payout or its id, not ${JSON.stringify(payout)}`);
  return found;
}

async function waitFor(source: Source, eventType: string, options: ExpectOptions, payoutId: string | undefined): Promise<Webhook> {
  const { times } = options;
  if (!eventType.includes(".")) throw new UsageError(`${eventType} is not an event type. They look like payout.succeeded.`);
  if (times === 0) throw new UsageError("times: 0 cannot be expected. Assert that psp.webhooks.types() does not have the type.");
  const limit = options.timeoutMs ?? (source.canChange() ? EXPECT_MS : 0);
  const ends = now() + limit;
  for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(wait * 1.5, LONGEST_PAUSE_MS)) {
    const isLast = now() >= ends;
    await source.settle();
    const found = source.inbox.events(payoutId).filter((one) => one.type === eventType);
    const last = found.at(-1);
    if (last && (times === undefined || found.length === times)) return last;
    if (isLast || found.length > (times ?? found.length)) {
      const of = payoutId === undefined ? "" : ` of payout ${payoutId}`;
      throw new Error(explanation(source, eventType + of, times, found.length, payoutId));
    }
    await pause(wait);
  }
}

function explanation(
  source: Source,
  wanted: string,
  times: number | undefined,
  found: number,
  payoutId: string | undefined,
): string {
  const often = times === undefined ? "" : times === 1 ? " once" : ` ${times} times`;
  const isStill = !source.canChange() && found < (times ?? 1);
  const arrived = source.inbox.events(payoutId).slice(-MOST_SHOWN);
  return [
    `expected ${wanted}${often}, but it arrived ${found} times`,
    ...(isStill ? ["  The clock is frozen, and nothing more is due. To let time pass, call psp.advance."] : []),
    ...(arrived.length ? arrived.map((one) => `  arrived: ${one.type} (version ${one.version})`) : ["  nothing arrived"]),
    ...source.inbox.invalid.slice(-5).map((one) => `  not counted: ${one.problem}`),
  ].join("\n");
}
