// Payouts over Safepay Raast with plain fetch.
import { createHmac, timingSafeEqual } from "node:crypto";
import { pathToFileURL } from "node:url";

export class SafepayError extends Error {
  constructor(status, body) {
    const error = body?.error ?? body;
    super(error?.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = error?.code;
  }
}

export class Safepay {
  #root;
  #key;
  #retries;

  constructor({ baseUrl, aggregatorId, secretKey, retries = 3 }) {
    this.#root = `${baseUrl.replace(/\/$/, "")}/v1/aggregators/${aggregatorId}`;
    this.#key = secretKey;
    this.#retries = retries;
  }

  // Repeats a call that had no answer or a 5xx, if that cannot act twice.
  async #call(method, path, { query = {}, body, isRepeatable = true } = {}) {
    for (let left = isRepeatable ? this.#retries : 0; ; left -= 1) {
      try {
        return await this.#callOnce(method, path, query, body);
      } catch (error) {
        if (left === 0 || (error instanceof SafepayError && error.status < 500)) throw error;
        await new Promise((done) => setTimeout(done, 250 * 2 ** (this.#retries - left)));
      }
    }
  }

  async #callOnce(method, path, query, body) {
    const search = new URLSearchParams(query).toString();
    const response = await fetch(`${this.#root}${path}${search ? `?${search}` : ""}`, {
      method,
      headers: { "X-SFPY-AGGREGATOR-SECRET-KEY": this.#key, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(60_000),
    });
    if (response.ok) return (await response.json()).data;
    // An error can also be a page of a proxy.
    throw new SafepayError(response.status, await response.json().catch(() => null));
  }

  // The request id makes it safe to repeat after an unknown outcome. A new one would pay twice.
  payout(requestId, amount, iban) {
    return this.#call("POST", "/payout", { body: { request_id: requestId, amount, creditor_iban: iban } });
  }

  payment(token) {
    return this.#call("GET", `/payments/${token}`);
  }

  // In paisa.
  charges(token) {
    return this.#call("GET", `/payments/${token}/charges`);
  }

  // Some payments, newest first, and in `count` how many there are.
  payments(filters) {
    return this.#call("GET", "/payments", { query: filters });
  }

  async find(requestId) {
    return (await this.payments({ request_id: requestId })).payments[0] ?? null;
  }

  async all(limit = 10) {
    const found = [];
    for (;;) {
      const page = await this.payments({ limit, offset: found.length });
      found.push(...page.payments);
      if (found.length >= Number(page.count) || page.payments.length === 0) return found;
    }
  }

  async title(iban) {
    const { statusCode, acctitle } = await this.#call("GET", "/title-fetch", { query: { iban } });
    return statusCode === 0 ? acctitle : null;
  }

  // What can be paid out, in paisa.
  async balance() {
    return Number((await this.#call("GET", "/ledger/accounts")).balance);
  }

  async subscribe(url, ...types) {
    const { endpoint, secret } = await this.#call("POST", "/webhooks", {
      body: { url, event_types: types, description: "payouts", enabled: true },
      isRepeatable: false,
    });
    return { token: endpoint.token, secret };
  }

  async rotate(token) {
    return (await this.#call("PUT", `/webhooks/${token}/rotate`, { isRepeatable: false })).secret;
  }

  async deliveries(token) {
    return (await this.#call("GET", `/webhooks/${token}/deliveries`)).deliveries;
  }
}

// Returns the event, or null if the webhook is not Safepay's, is older than five minutes, or its headers are of another.
// Names of headers are in lower case, as node:http has them.
export function verify(secret, headers, body, now = Date.now()) {
  const timestamp = headers["x-sfpy-timestamp"] ?? "";
  const mac = createHmac("sha256", Buffer.from(secret, "base64")).update(`${timestamp}.`).update(body).digest("hex");
  const [expected, given] = [Buffer.from(`sha256=${mac}`), Buffer.from(headers["x-sfpy-signature"] ?? "")];
  if (expected.length !== given.length || !timingSafeEqual(expected, given)) return null;
  if (!(Math.abs(now - Date.parse(timestamp)) <= 300_000)) return null;
  const event = JSON.parse(body);
  const isSame =
    headers["x-sfpy-event-id"] === event.identifier &&
    headers["x-sfpy-event-type"] === event.webhook_event_type &&
    headers["x-sfpy-aggregator-id"] === event.aggregator_id;
  return isSame ? event : null;
}

// An argument in braces is JSON.
async function main([command, ...args]) {
  const parsed = args.map((argument) => (argument.startsWith("{") ? JSON.parse(argument) : argument));
  if (command === "verify") {
    const chunks = [];
    for await (const chunk of process.stdin) chunks.push(chunk);
    return verify(...parsed, Buffer.concat(chunks));
  }
  const { SAFEPAY_BASE_URL, SAFEPAY_AGGREGATOR_ID, SAFEPAY_SECRET_KEY } = process.env;
  const safepay = new Safepay({
    baseUrl: SAFEPAY_BASE_URL,
    aggregatorId: SAFEPAY_AGGREGATOR_ID,
    secretKey: SAFEPAY_SECRET_KEY,
  });
  return safepay[command](...parsed);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    console.log(JSON.stringify(await main(process.argv.slice(2))));
  } catch (error) {
    console.log(JSON.stringify({ status: error.status, code: error.code, message: error.message }));
    process.exitCode = 1;
  }
}
