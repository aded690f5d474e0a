/// <reference lib="esnext.disposable" preserve="true" />
import type { Client } from "../index.js";
import type { Fault as FaultState } from "../generated/models.js";
import type { FaultsCreate } from "../generated/parameters.js";
import { UsageError } from "./values.js";

const API_KINDS = ["latency", "error", "rate_limit", "connection_reset", "slow_after_commit", "truncated_body"];
const WEBHOOK_KINDS = [
  "drop", "duplicate", "delay", "reorder", "stale_timestamp", "wrong_key", "tampered_body", "truncated_body",
];
/** Kinds of faults that make a webhook invalid. */
const SPOILING_KINDS = ["stale_timestamp", "wrong_key", "tampered_body", "truncated_body"];
const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"];
const PREFIX = /^\/(api|vendor|aggregator)\//;

/** What a fault is, besides its kind: the parameters of the kind, and which matches are hit. */
export interface FaultOptions extends Omit<FaultsCreate, "kind" | "target"> {
  /** A request such as "POST /payouts", "webhooks", or an event type such as "payout.succeeded"; by default the kind decides. */
  on?: string;
  /** Part of the merchant reference of the requests that are hit. */
  reference?: string;
  /** Whether the test may end without the fault having taken effect. */
  allowUnhit?: boolean;
}

/** Return the parameters of `faults.create`. Throws a UsageError if there is no such fault. */
export function faultBody(kind: FaultsCreate["kind"], options: FaultOptions): FaultsCreate {
  if (!API_KINDS.includes(kind) && !WEBHOOK_KINDS.includes(kind)) {
    const kinds = [...new Set([...API_KINDS, ...WEBHOOK_KINDS])].join(", ");
    throw new UsageError(`There is no fault ${JSON.stringify(kind)}. On the API and on webhooks there are: ${kinds}.`);
  }
  const { on, reference, allowUnhit: _, match: given, ...parameters } = options;
  const { target, match } = readOn(kind, on);
  const all = { ...match, ...given, ...(reference === undefined ? {} : { reference }) };
  return { ...parameters, kind, target, ...(Object.keys(all).length ? { match: all } : {}) } as FaultsCreate;
}

function readOn(kind: string, on: string | undefined): { target: "api" | "webhooks"; match: Record<string, string> } {
  if (on === undefined) return { target: API_KINDS.includes(kind) ? "api" : "webhooks", match: {} };
  if (on === "webhooks" || /^[^ /]*[.*][^ /]*$/.test(on)) {
    return checked(kind, on, "webhooks", on === "webhooks" ? {} : { event_type: on });
  }
  const [path = "", method] = on.split(" ").reverse();
  if ((method !== undefined && !METHODS.includes(method)) || !path.startsWith("/")) {
    throw new UsageError(
      `on: ${JSON.stringify(on)} is neither a request such as "POST /payouts", nor "webhooks", nor an event type such as ` +
        `"payout.succeeded" or "payout.*".`,
    );
  }
  return checked(kind, on, "api", { ...(method && { method }), path: PREFIX.test(path) ? path : `/api/v1${path}` });
}

function checked<T extends "api" | "webhooks">(
  kind: string,
  on: string,
  target: T,
  match: Record<string, string>,
): { target: T; match: Record<string, string> } {
  if (!(target === "api" ? API_KINDS : WEBHOOK_KINDS).includes(kind)) {
    const of = target === "api" ? "webhooks" : "API calls";
    throw new UsageError(`A fault ${kind} cannot happen on ${JSON.stringify(on)}: it is one of ${of}.`);
  }
  return { target, match };
}

/** Return what a fault applies to, such as "POST /api/v1/payouts". */
export function describeMatch({ match, target }: Pick<FaultState, "match" | "target">): string {
  const { method, ...others } = match as Record<string, string>;
  return [method, ...Object.values(others)].filter(Boolean).join(" ") || target;
}

/** A fault that is active until it is ended, at the latest when the test ends. */
export class Fault {
  readonly kind: string;
  readonly allowUnhit: boolean;
  readonly #client: Client;
  #shown: FaultState;
  #isActive = true;

  /** @internal */
  constructor(client: Client, shown: FaultState, allowUnhit: boolean) {
    this.#client = client;
    this.#shown = shown;
    this.kind = shown.kind;
    this.allowUnhit = allowUnhit;
  }

  get id(): string {
    return this.#shown.id;
  }

  /** Return how often it took effect. */
  async hits(): Promise<number> {
    return (await this.#read()).hits;
  }

  /** Return how many requests or deliveries matched, including those that its probability or count spared. */
  async matches(): Promise<number> {
    return (await this.#read()).matches;
  }

  /** End it. Further calls have no effect. */
  async end(): Promise<void> {
    if (!this.#isActive) return;
    await this.#read();
    this.#isActive = false;
    await this.#client.faults.delete(this.id);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }

  /** Whether it makes webhooks invalid. */
  get isSpoiling(): boolean {
    return this.#shown.target === "webhooks" && SPOILING_KINDS.includes(this.kind);
  }

  /** What it applies to, such as "POST /api/v1/payouts". */
  get description(): string {
    return describeMatch(this.#shown);
  }

  async #read(): Promise<FaultState> {
    if (this.#isActive) {
      // Webhooks of earlier events may still be on their way.
      if (this.#shown.target === "webhooks") await this.#client.drain();
      this.#shown = await this.#client.faults.get(this.id);
    }
    return this.#shown;
  }
}
