import { createHmac, timingSafeEqual } from "node:crypto";

const TOLERANCE_SECONDS = 300;

/** The headers of a request, as node:http has them: names in lower case. */
export type WebhookHeaders = Readonly<Record<string, string | readonly string[] | undefined>>;

/**
 * Return whether a webhook is signed with one of our secrets, at most five minutes ago or ahead, by Standard Webhooks.
 *
 * `secrets` are those of the endpoint, `whsec_...`; during a rotation there are two. `body` is the raw body: JSON that was parsed and
 * written again has other bytes. `now` is our time in Unix seconds. Never throws, whatever the headers are.
 */
export function isValidWebhook(
  secrets: string | readonly string[],
  headers: WebhookHeaders,
  body: string | Uint8Array,
  now: number = Date.now() / 1000,
): boolean {
  return whyInvalid(secrets, headers, body, [now]) === undefined;
}

/** Return why a request is not a valid webhook, or undefined if it is. Its timestamp must be close to one of the `times`. */
export function whyInvalid(
  secrets: string | readonly string[],
  headers: WebhookHeaders,
  body: string | Uint8Array,
  times: readonly number[],
): string | undefined {
  const [id, stamp, given] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map((name) => headers[name]);
  if (typeof id !== "string" || id === "") return "the header webhook-id is missing";
  if (typeof stamp !== "string" || !/^\d{1,12}$/.test(stamp)) return "webhook-timestamp is missing, or not a number";
  if (typeof given !== "string") return "the header webhook-signature is missing";
  const expected = [secrets].flat().map((secret) => signature(secret, `${id}.${stamp}.`, body));
  if (!given.split(" ").some((one) => expected.some((right) => isEqual(one, right)))) return "no signature matches";
  const off = Math.min(...times.map((time) => Math.abs(time - Number(stamp))));
  return off > TOLERANCE_SECONDS ? `the timestamp is ${Math.round(off)} s off` : undefined;
}

function signature(secret: string, start: string, body: string | Uint8Array): string {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  return `v1,${createHmac("sha256", key).update(start).update(body).digest("base64")}`;
}

function isEqual(given: string, expected: string): boolean {
  const [one, other] = [Buffer.from(given), Buffer.from(expected)];
  return one.length === other.length && timingSafeEqual(one, other);
}
