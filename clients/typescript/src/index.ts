/**
 * A typed client of PSP Sandbox.
 *
 *     const client = new Client(); // PSP_URL and PSP_API_KEY, or the demo merchant of `psp up`
 *     const payout = await client.payouts.create({ merchant_reference: "INV-1001", amount: "1500.00", dest_type: "BANK",
 *       bank_code: "HBL", account_number: "12345678900001" });
 *     console.log((await client.payouts.waitFor(payout.id, "SUCCESS")).processed_at);
 */

import type { WriteOptions } from "./calls.js";
import { Caller, type ClientOptions } from "./caller.js";
import { drain } from "./extended.js";
import { Nouns } from "./generated/client.js";
import type { Drained } from "./generated/models.js";
import { EventStream, type StreamOptions } from "./streams.js";

/** A client of a sandbox. Keep one for the whole program: its calls share their connections. */
export class Client extends Nouns {
  constructor(options: ClientOptions = {}) {
    super(new Caller(options));
  }

  /** The URL of the sandbox. */
  get url(): string {
    return this.caller.url;
  }

  /** Return a client for another merchant, such as one from `merchants.create`. */
  withKey(apiKey: string): Client {
    return new Client(this.caller.optionsWith(apiKey));
  }

  /**
   * Run all work that is due now, and wait for work in progress. `ran` lists what ran.
   *
   * Much work takes several calls; the result is that of all. `drained` is false, and `stopped_because` says why, if work remains
   * that cannot be done, for example because a webhook endpoint does not respond.
   */
  override drain(options: WriteOptions = {}): Promise<Drained> {
    return drain(this.caller, options);
  }

  /** Return the merchant's changes as they happen. Nothing that happens after this resolves is missed. */
  stream(options: StreamOptions = {}): Promise<EventStream> {
    return EventStream.open(this.caller, options);
  }

  /** Send a request that no method is for, and return the JSON of its answer. Throws a ProblemError unless it succeeds. */
  request<T = unknown>(method: string, path: string, body?: unknown, options: WriteOptions & { query?: object } = {}): Promise<T> {
    return this.caller.send({ method, path, body, isWrite: !["GET", "HEAD"].includes(method), ...options });
  }
}

export { type CallOptions, Pages, type WriteOptions } from "./calls.js";
export type { ClientOptions } from "./caller.js";
export { NotReached, ProblemError, PspError, UnexpectedResponse, Unreachable, WaitTimeout } from "./errors.js";
export type * as inputs from "./generated/inputs.js";
export type * from "./generated/literals.js";
export type * from "./generated/models.js";
export type * as parameters from "./generated/parameters.js";
export * from "./generated/problems.js";
export { EventStream, type StreamEvent, type StreamOptions } from "./streams.js";
export type { Amount, FileContent, JsonObject, Money, Time } from "./values.js";
export { isValidWebhook, type WebhookHeaders } from "./signatures.js";
