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

  constructor({ baseUrl, aggregatorId, secretKey }) {
    this.#root = `${baseUrl}/v1/aggregators/${aggregatorId}`;
    this.#key = secretKey;
  }

  async #call(method, path, { query = {}, body } = {}) {
    const search = new URLSearchParams(query).toString();
    const response = await fetch(`${this.#root}${path}${search ? `?${search}` : ""}`, {
      method,
      headers: { "X-SFPY-AGGREGATOR-SECRET-KEY": this.#key, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) throw new SafepayError(response.status, answer);
    return answer.data;
  }

  // The request id makes it safe to repeat after an unknown outcome. A new one would pay twice.
  payout(requestId, amount, iban) {
    return this.#call("POST", "/payout", { body: { request_id: requestId, amount, creditor_iban: iban } });
  }

  async find(requestId) {
    const { payments } = await this.#call("GET", "/payments", { query: { request_id: requestId } });
    return payments[0] ?? null;
  }

  async all(limit = 10) {
    const found = [];
    for (let offset = 0; ; offset += limit) {
      const page = await this.#call("GET", "/payments", { query: { limit, offset } });
      found.push(...page.payments);
      if (found.length >= Number(page.count) || page.payments.length === 0) return found;
    }
  }

  async title(iban) {
    const { statusCode, acctitle } = await this.#call("GET", "/title-fetch", { query: { iban } });
    return statusCode === 0 ? acctitle : null;
  }

  async subscribe(url, ...types) {
    const { endpoint, secret } = await this.#call("POST", "/webhooks", {
      body: { url, event_types: types, description: "payouts", enabled: true },
    });
    return { token: endpoint.token, secret };
  }

  async rotate(token) {
    return (await this.#call("PUT", `/webhooks/${token}/rotate`)).secret;
  }

  async deliveries(token) {
    return (await this.#call("GET", `/webhooks/${token}/deliveries`)).deliveries;
  }
}

// Returns the event, or null if the webhook is not Safepay's or is older than five minutes.
export function verify(secret, timestamp, signature, body, now = Date.now()) {
  if (!(Math.abs(now - Date.parse(timestamp)) <= 300_000)) return null;
  const mac = createHmac("sha256", Buffer.from(secret, "base64")).update(`${timestamp}.`).update(body).digest("hex");
  const [expected, given] = [Buffer.from(`sha256=${mac}`), Buffer.from(signature)];
  return expected.length === given.length && timingSafeEqual(expected, given) ? JSON.parse(body) : null;
}

async function main([command, ...args]) {
  if (command === "verify") {
    const chunks = [];
    for await (const chunk of process.stdin) chunks.push(chunk);
    return verify(...args, Buffer.concat(chunks));
  }
  const { SAFEPAY_BASE_URL, SAFEPAY_AGGREGATOR_ID, SAFEPAY_SECRET_KEY } = process.env;
  const safepay = new Safepay({
    baseUrl: SAFEPAY_BASE_URL,
    aggregatorId: SAFEPAY_AGGREGATOR_ID,
    secretKey: SAFEPAY_SECRET_KEY,
  });
  return safepay[command](...args);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    console.log(JSON.stringify(await main(process.argv.slice(2))));
  } catch (error) {
    console.log(JSON.stringify({ status: error.status, code: error.code, message: error.message }));
    process.exitCode = 1;
  }
}
