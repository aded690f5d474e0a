import { UsageError } from "./values.js";

/** What an adapter of Safepay Raast needs to use the merchant of a test: `psp.safepay`. */
export class Safepay {
  /** The base URL, which ends before `/v1`. */
  readonly url: string;
  /** For the header `X-SFPY-AGGREGATOR-SECRET-KEY`. */
  readonly key: string;
  readonly aggregatorId: string;
  #secret: string | undefined;

  /** @internal */
  constructor(url: string, merchantId: string, apiKey: string) {
    this.url = `${url}/raastwire`;
    this.key = apiKey;
    this.aggregatorId = `agg_${merchantId}`;
  }

  /** Have events sent to a URL, by default all of payments, and return the secret that signs them. */
  async subscribe(url: string, ...eventTypes: string[]): Promise<string> {
    const response = await fetch(`${this.url}/v1/aggregators/${this.aggregatorId}/webhooks`, {
      method: "POST",
      headers: { "X-SFPY-AGGREGATOR-SECRET-KEY": this.key, "Content-Type": "application/json" },
      body: JSON.stringify({ url, event_types: eventTypes.length > 0 ? eventTypes : ["payment.*"] }),
    });
    const text = await response.text();
    if (!response.ok) throw new UsageError(`psp.safepay.subscribe was refused: ${text}`);
    const made = JSON.parse(text) as { data: { secret: string } };
    this.#secret = made.data.secret;
    return this.#secret;
  }

  /** The secret of the endpoint that `subscribe` made last. */
  get webhookSecret(): string {
    if (this.#secret === undefined) throw new UsageError("psp.safepay.subscribe(url) makes an endpoint first, and returns its secret");
    return this.#secret;
  }
}
