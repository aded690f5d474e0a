/// <reference types="node" preserve="true" />
import type { RequestListener, Server } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import type { CatalogueEntry, ClockRun, ExamplePayout, NewMerchant, Payout } from "../generated/models.js";
import type { EventPattern, WalletCode } from "../generated/literals.js";
import type { FaultsCreate, PayoutsCreate } from "../generated/parameters.js";
import type { Client } from "../index.js";
import type { Money, Time } from "../values.js";
import { type Books, begin, isExplored, rest } from "./explored.js";
import { Fault, type FaultOptions, faultBody } from "./faults.js";
import { Inbox } from "./inbox.js";
import { Receiver, close, listen, serverOf } from "./receiver.js";
import { Safepay } from "./safepay.js";
import { Sandbox } from "./sandbox.js";
import { UsageError, type WorldOptions, checkOptions, merchantBody, readAmount, secondsOf } from "./values.js";
import { type PayoutLike, type Webhooks, payoutIdOf, webhooksOf } from "./webhooks.js";

const WAIT_MS = 10_000;
const FIRST_PAUSE_MS = 20;
/** Each pause is longer than the last: every look is a call in the journal. */
const LONGEST_PAUSE_MS = 200;
const LIST_LIMIT = 100;
const now = performance.now.bind(performance);

/** The fields of a payout that `pays` creates. By default they are those of the catalogue's example. */
export interface PaysOptions extends Partial<Omit<PayoutsCreate, "merchant_reference" | "scenario">> {
  reference?: string;
}

/** A merchant's balance. */
export interface Balance {
  available: Money;
  locked: Money;
  total: Money;
  currency: string;
}

/** The environment variables that an application needs. */
export interface AppEnv {
  PSP_URL: string;
  PSP_API_KEY: string;
  PSP_WEBHOOK_SECRET: string;
}

/** An application that runs until the test ends. */
export interface LiveApp {
  readonly url: string;
  readonly port: number;
  readonly webhookUrl: string;
  stop(): Promise<void>;
}

/** A merchant that only this test uses: the fixture `psp`. */
export class World {
  /** The test's name. */
  readonly test: string;
  readonly merchantId: string;
  readonly apiKey: string;
  /** The secret of the test's webhook endpoint. `liveApp` and `forwardWebhooks` lead its webhooks to an application. */
  readonly webhookSecret: string;
  readonly ipnSecret: string;
  /** A typed client with the merchant's key, for everything else. */
  readonly client: Client;
  /** The verified webhooks that this test received; `psp.webhooks(payout)` are those of one payout. */
  readonly webhooks: Webhooks;
  /** Whether the test may end with webhook deliveries that have failed. */
  allowFailedDeliveries: boolean;
  /** Whether the test may end with faults that never took effect. */
  allowUnhitFaults: boolean;
  /** Whether `psp explore` has judged this test. @internal */
  isAtRest = false;
  /** @internal */
  readonly sandbox: Sandbox;
  /** @internal Everything that arrived at the test's webhook endpoint. */
  readonly inbox: Inbox;
  /** @internal The faults of this test. */
  readonly faults: Fault[] = [];
  #safepay: Safepay | undefined;
  readonly #receiver: Receiver;
  readonly #seen = new Set<string>();
  readonly #apps: LiveApp[] = [];
  #isFrozen: boolean;

  private constructor(
    sandbox: Sandbox,
    test: string,
    merchant: NewMerchant,
    options: WorldOptions,
    [receiver, inbox]: [Receiver, Inbox],
    ownKey: string,
  ) {
    this.sandbox = sandbox;
    this.test = test;
    this.merchantId = merchant.merchant_id;
    this.apiKey = merchant.api_key;
    this.webhookSecret = merchant.webhook_secret ?? "";
    this.ipnSecret = merchant.ipn_secret;
    this.client = sandbox.client.withKey(ownKey);
    this.allowFailedDeliveries = options.allowFailedDeliveries ?? false;
    this.allowUnhitFaults = options.allowUnhitFaults ?? false;
    this.inbox = inbox;
    this.#receiver = receiver;
    this.#receiver.secret = this.webhookSecret;
    this.#isFrozen = options.frozen !== false;
    const canChange = (): boolean => this.hasApp || !this.#isFrozen;
    this.webhooks = webhooksOf({ inbox, settle: () => this.drain(), canChange });
  }

  /** @internal Make the merchant of a test. Throws a UsageError or a PspError. */
  static async open(test: string, options: WorldOptions): Promise<World> {
    checkOptions(options);
    const sandbox = await Sandbox.get();
    const inbox = new Inbox();
    const receiver = new Receiver(inbox);
    try {
      const body = { ...merchantBody(test, options), webhook_url: await receiver.open(sandbox.address.receiverHost) };
      const merchant = await sandbox.createMerchant(body);
      const ownKey = isExplored() ? await begin(test, merchant.api_key) : merchant.api_key;
      return new World(sandbox, test, merchant, options, [receiver, inbox], ownKey);
    } catch (error) {
      await receiver.close();
      throw error;
    }
  }

  /** The URL of the sandbox. */
  get url(): string {
    return this.client.url;
  }

  /** The environment variables that an application needs. */
  get env(): AppEnv {
    return { PSP_URL: this.url, PSP_API_KEY: this.apiKey, PSP_WEBHOOK_SECRET: this.webhookSecret };
  }

  /** What an adapter of Safepay Raast needs to use this merchant. */
  get safepay(): Safepay {
    this.#safepay ??= new Safepay(this.url, this.merchantId, this.apiKey);
    return this.#safepay;
  }

  /** Send a request that the client has no method for, with the merchant's key. Throws a ProblemError unless it succeeds. */
  request<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    return this.client.request<T>(method, path, body);
  }

  // Payouts and money.

  /**
   * Create a payout that follows a scenario, and return it.
   *
   * `scenario` is a name of the catalogue or of the merchant's own scenarios. Throws a UsageError if there is none with this name,
   * and a ProblemError if the payout is refused, such as InsufficientBalance.
   */
  async pays(scenario = "success", options: PaysOptions = {}): Promise<Payout> {
    const entry = await this.#scenario(scenario);
    const { reference = `${scenario}-${this.#seen.size + 1}`, amount = entry.example.amount, ...fields } = options;
    const payout = await this.client.payouts.create({
      ...destinationOf(entry.example),
      ...fields,
      amount: readAmount(amount, "amount"),
      merchant_reference: reference,
      scenario: entry.scenario.name,
    });
    return this.#see(payout);
  }

  /**
   * Wait for a payout that the application creates, and return it.
   *
   * With `reference`, it is the payout with that merchant reference. Without, it is the oldest that neither `pays` nor an earlier
   * call has returned. Throws an error that lists the payouts that exist.
   */
  async nextPayout(options: { reference?: string; timeoutMs?: number } = {}): Promise<Payout> {
    const { reference, timeoutMs = WAIT_MS } = options;
    const ends = now() + timeoutMs;
    for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(wait * 1.5, LONGEST_PAUSE_MS)) {
      const isLast = now() >= ends;
      const newest = await this.client.payouts.list({ limit: LIST_LIMIT, merchant_reference: reference }).toArray(LIST_LIMIT);
      const found = newest.reverse().find((one) => reference !== undefined || !this.#seen.has(one.id));
      if (found) return this.#see(found);
      if (isLast) break;
      await pause(wait);
    }
    const others = await this.client.payouts.list({ limit: 10 }).toArray(10);
    const exist = others.map((one) => `${one.merchant_reference} (${one.status})`).join(", ") || "none";
    const wanted = reference === undefined ? "that the test does not know yet" : `with reference ${JSON.stringify(reference)}`;
    throw new Error(`no payout ${wanted} was created within ${timeoutMs} ms. The newest payouts: ${exist}.`);
  }

  /** Return a payout as it is now. It is given as a payout or its id. */
  async payout(payout: PayoutLike): Promise<Payout> {
    return this.#see(await this.client.payouts.get(payoutIdOf(payout)));
  }

  /** Return the merchant's balance now. */
  async balance(): Promise<Balance> {
    const shown = await this.client.balance.get();
    const { available_balance: available, locked_balance: locked, balance: total, currency } = shown;
    return { available, locked, total, currency };
  }

  #see(payout: Payout): Payout {
    this.#seen.add(payout.id);
    return payout;
  }

  async #scenario(name: string): Promise<CatalogueEntry> {
    const shared = this.sandbox.catalogue;
    const known = shared.get(name);
    if (known) return known;
    // The first test reads the catalogue for all; a name that is not in it may be one of the merchant's own.
    const { scenarios } = await this.client.scenarios.catalogue();
    for (const entry of scenarios) {
      if (entry.scenario.source === "builtin" && !shared.has(entry.scenario.name)) shared.set(entry.scenario.name, entry);
    }
    const found = scenarios.find((entry) => entry.scenario.name === name);
    if (found) return found;
    const names = [...new Set(scenarios.map((entry) => entry.scenario.name))].sort();
    throw new UsageError(`There is no scenario ${JSON.stringify(name)}. There are: ${names.join(", ")}.`);
  }

  // Time.

  /**
   * Move the merchant's clock on, and return when everything that fell due on the way is done. `ran` lists it in order.
   *
   * Takes a number of seconds, text such as "60s" or "1h 30m", or `{ to }`. Throws an error if the work does not end.
   */
  async advance(duration: number | string | { to: Time }): Promise<ClockRun> {
    const fields = typeof duration === "object" ? duration : { seconds: secondsOf(duration) };
    const run = await this.client.clock.advance(fields);
    if (!run.complete) throw new Error(`the clock has stopped at ${run.now}, after ${run.steps} steps: ${run.stopped_because}`);
    if (!this.#isFrozen) await this.drain();
    return run;
  }

  /** Freeze the merchant's clock, now or at a time that is not before its time, and return its time. */
  async freeze(at?: Time): Promise<string> {
    const frozen = await this.client.clock.freeze({ at });
    this.#isFrozen = true;
    return frozen.now;
  }

  /** Let the merchant's clock run on from its time. */
  async resume(): Promise<void> {
    await this.client.clock.resume();
    this.#isFrozen = false;
  }

  /** Return the merchant's time. */
  async now(): Promise<string> {
    return (await this.client.clock.get()).now;
  }

  /** Wait until everything that is due is done: steps of payouts, bulk credits and webhooks. */
  async drain(): Promise<void> {
    const run = await this.client.drain();
    if (!run.drained) throw new Error(`the sandbox still has work that is due: ${run.stopped_because}`);
  }

  // Webhooks, faults and applications.

  /** Let the test's webhook endpoint receive these event types, such as "*"; by default it receives "payout.*". */
  async subscribe(...eventTypes: EventPattern[]): Promise<void> {
    for await (const endpoint of this.client.webhookEndpoints.list({ limit: LIST_LIMIT })) {
      await this.client.webhookEndpoints.change(endpoint.id, { event_types: eventTypes });
    }
  }

  /**
   * Create a fault. It is active until its `end`, or that of the test.
   *
   * Without `count`, every match is hit. A fault that never takes effect fails the test when it ends, unless `allowUnhit`. Throws a
   * UsageError, or a ValidationError for options that do not fit.
   */
  async fault(kind: FaultsCreate["kind"], options?: FaultOptions): Promise<Fault>;
  /** Create a fault that is active while `during` runs, and return what that returns. */
  async fault<T>(kind: FaultsCreate["kind"], options: FaultOptions, during: (fault: Fault) => Promise<T>): Promise<T>;
  async fault<T>(
    kind: FaultsCreate["kind"],
    options: FaultOptions = {},
    during?: (fault: Fault) => Promise<T>,
  ): Promise<Fault | T> {
    const shown = await this.client.faults.create(faultBody(kind, options));
    const fault = new Fault(this.client, shown, options.allowUnhit ?? false);
    this.faults.push(fault);
    if (!during) return fault;
    try {
      return await during(fault);
    } finally {
      await fault.end();
    }
  }

  /**
   * Run an application on a free port of loopback until the test ends, and pass the webhooks on to its `path`.
   *
   * `create` gets the application's settings, and returns a server of node:http or a function that answers requests, such as an
   * app of Express.
   */
  async liveApp(
    create: (env: AppEnv) => Server | RequestListener | Promise<Server | RequestListener>,
    options: { path?: string } = {},
  ): Promise<LiveApp> {
    const { path = "/webhooks" } = options;
    if (!path.startsWith("/")) throw new UsageError(`path: ${JSON.stringify(path)} must begin with /`);
    const server = serverOf(await create(this.env));
    const port = await listen(server);
    const url = `http://127.0.0.1:${port}`;
    const app = { url, port, webhookUrl: `${url}${path}`, stop: () => close(server) };
    this.#apps.push(app);
    this.forwardWebhooks(app.webhookUrl);
    return app;
  }

  /**
   * Pass the webhooks on to an application that the test has started itself.
   *
   * They arrive unchanged and signed with `webhookSecret`, and the sandbox gets the answer, or 502 after 15 s without one.
   */
  forwardWebhooks(url: string): void {
    if (!/^https?:\/\//.test(url)) throw new UsageError(`${url} is not a URL such as http://127.0.0.1:3000/webhooks`);
    this.#receiver.forwardTo = url;
  }

  /** Say what the application believes, for `psp explore`: it is compared with the sandbox's payouts when the test has ended. */
  books(read: Books): void {
    this.#receiver.books = read;
  }

  /** Say how to restart the application with the data it has stored, for `psp explore`. */
  onRestart(restart: () => Promise<void> | void): void {
    this.#receiver.restart = restart;
  }

  // The end of the test.

  /** @internal Let `psp explore` bring the merchant to rest and judge it, while the application runs. Once is enough. */
  async comeToRest(failure: string | null): Promise<void> {
    if (!isExplored() || this.isAtRest) return;
    this.isAtRest = true;
    await rest(this.apiKey, failure, this.#receiver.exploredUrls);
  }

  /** @internal Whether the test's webhooks are passed on to an application. */
  get hasApp(): boolean {
    return this.#receiver.forwardTo !== undefined;
  }

  /** @internal Whether the merchant's clock is frozen, so far as this test has changed it with `freeze` and `resume`. */
  get isFrozen(): boolean {
    return this.#isFrozen;
  }

  /** @internal Stop the applications and delete the merchant. */
  async close(): Promise<void> {
    await Promise.all(this.#apps.map((app) => app.stop()));
    await this.sandbox.deleteMerchant(this.merchantId);
    await this.#receiver.close();
  }
}

function destinationOf(example: ExamplePayout): Pick<PayoutsCreate, "dest_type" | "bank_code" | "wallet_code" | "account_number"> {
  const { account_number } = example;
  return example.wallet_code
    ? { dest_type: "WALLET", wallet_code: example.wallet_code as WalletCode, account_number }
    : { dest_type: "BANK", bank_code: example.bank_code ?? undefined, account_number };
}
