import { setTimeout as pause } from "node:timers/promises";
import { toText } from "./money.js";

const ATTEMPTS = 3;
const TIMEOUT_MS = 10_000;

/** The PSP refused a payout for good. */
export class Refused extends Error {}

/** The PSP gave no answer, or none that says what became of the payout. It may exist or not. */
export class NoAnswer extends Error {}

/** Create a payout, or repeat the call that did. Safe to repeat. Throws Refused, or NoAnswer after the last attempt. */
export async function createPayout({ PSP_URL, PSP_API_KEY, RETRY_MS = 500 }, payout) {
  const body = {
    merchant_reference: payout.id,
    amount: toText(payout.amount),
    dest_type: "BANK",
    bank_code: payout.bank_code,
    account_number: payout.account_number,
  };
  let reason;
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    if (attempt > 0) await pause(RETRY_MS * 2 ** (attempt - 1));
    try {
      return await create(`${PSP_URL}/api/v1/payouts`, PSP_API_KEY, payout.id, body);
    } catch (error) {
      if (error instanceof Refused) throw error;
      // The answer was lost, or half of it. The payout may exist, so only the same idempotency key is safe.
      reason = error;
    }
  }
  throw new NoAnswer(`payout ${payout.id} has no answer`, { cause: reason });
}

async function create(url, apiKey, key, body) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "X-API-KEY": apiKey, "X-IDEMPOTENCY-KEY": key, "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const created = await answer.json();
  if (answer.ok) return created;
  // An earlier call succeeded, so long ago that the PSP has forgotten its idempotency key. Its webhooks tell the rest.
  if (answer.status === 409 && created.code === "DUPLICATE_REFERENCE") return created;
  if ([400, 422].includes(answer.status)) throw new Refused(created.code);
  throw new NoAnswer(created.code);
}
