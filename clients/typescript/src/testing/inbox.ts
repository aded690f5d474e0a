import { whyInvalid } from "../signatures.js";
import type { JsonObject } from "../values.js";

// A test may fake the clock of its process with `vi.useFakeTimers()`, which replaces the global Date.
const hostTime = Date.now.bind(Date);

/** One request that the test's webhook endpoint received, and its answer. */
export interface Received {
  /** Names are in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  /** Why it is not a valid webhook, or undefined. */
  readonly problem: string | undefined;
  /** The parsed body, if it is valid. */
  readonly event: WebhookEvent | undefined;
  /** The endpoint's answer; undefined until it answers. */
  status?: number;
  answer?: string;
}

/** The body of a webhook. */
export interface WebhookEvent {
  id: string;
  type: string;
  timestamp: string;
  previous_status?: string | null;
  data: JsonObject;
}

/** An event that arrived with a valid signature, however many times it arrived. */
export interface Webhook {
  readonly id: string;
  readonly type: string;
  /** When it happened, in the merchant's time. */
  readonly timestamp: string;
  readonly previousStatus: string | null;
  /** The payout at that moment, or what else the event is about. */
  readonly data: JsonObject;
  /** The version of the payout; 0 if the event is about something else. */
  readonly version: number;
  /** The payout's id, or null if the event is about something else. */
  readonly payoutId: string | null;
  /** Every time that it arrived, in order. */
  readonly received: readonly Received[];
}

/** The requests that one test's endpoint received, in order. */
export class Inbox {
  readonly received: Received[] = [];

  /** Record a request when it arrives. `status` and `answer` of the result are set when the endpoint answers. */
  add(secret: string, headers: Readonly<Record<string, string>>, body: Uint8Array): Received {
    let problem = whyInvalid(secret, headers, body, [hostTime() / 1000, Date.now() / 1000]);
    const event = problem === undefined ? readEvent(body) : undefined;
    if (problem === undefined && event === undefined) problem = "the body is not an event";
    const received: Received = { headers, body, problem, event };
    this.received.push(received);
    return received;
  }

  /** The requests that are not valid webhooks. */
  get invalid(): Received[] {
    return this.received.filter((one) => one.problem !== undefined);
  }

  /** Return the events: each once, in order of first arrival, but those of one payout by version. */
  events(payoutId?: string): Webhook[] {
    const copies = new Map<string, Received[]>();
    for (const one of this.received) {
      if (one.event) append(copies, one.event.id, one);
    }
    const byPayout = new Map<string, Webhook[]>();
    for (const all of copies.values()) {
      const webhook = webhookOf(all);
      append(byPayout, webhook.payoutId ?? webhook.id, webhook);
    }
    const webhooks = [...byPayout.values()].flatMap((group) => group.sort((one, other) => one.version - other.version));
    return payoutId === undefined ? webhooks : webhooks.filter((one) => one.payoutId === payoutId);
  }
}

function append<T>(groups: Map<string, T[]>, key: string, item: T): void {
  const group = groups.get(key);
  if (group) group.push(item);
  else groups.set(key, [item]);
}

function webhookOf(copies: readonly Received[]): Webhook {
  const event = copies[0]?.event as WebhookEvent;
  const isPayout = event.type.startsWith("payout.");
  return {
    id: event.id,
    type: event.type,
    timestamp: event.timestamp,
    previousStatus: event.previous_status ?? null,
    data: event.data,
    version: Number(event.data["version"] ?? 0),
    payoutId: isPayout ? String(event.data["id"]) : null,
    received: copies,
  };
}

function readEvent(body: Uint8Array): WebhookEvent | undefined {
  try {
    const event = JSON.parse(new TextDecoder().decode(body)) as Partial<WebhookEvent> | null;
    const { id, type, timestamp, data } = event ?? {};
    const isEvent = [id, type, timestamp].every((one) => typeof one === "string") && typeof data === "object" && data !== null;
    return isEvent ? (event as WebhookEvent) : undefined;
  } catch {
    return undefined;
  }
}
