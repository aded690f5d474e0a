import { createHmac, timingSafeEqual } from "node:crypto";

/** The maximum difference in seconds between a webhook's timestamp and our clock. */
const TOLERANCE = 300;

/** Return whether a webhook with this raw body was signed with our `whsec_` secret, within five minutes of now, either way. */
export function isAuthentic(secret, headers, body) {
  const { "webhook-id": id = "", "webhook-timestamp": stamp = "", "webhook-signature": given = "" } = headers;
  if (id === "" || !/^\d{1,12}$/.test(stamp)) return false;
  if (Math.abs(Date.now() / 1000 - Number(stamp)) > TOLERANCE) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const right = Buffer.from(`v1,${createHmac("sha256", key).update(`${id}.${stamp}.`).update(body).digest("base64")}`);
  // While a secret is replaced, a webhook has a signature with the old one and a signature with the new one.
  const signatures = given.split(" ").map((one) => Buffer.from(one));
  return signatures.some((one) => one.length === right.length && timingSafeEqual(one, right));
}
