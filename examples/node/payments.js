import { randomUUID } from "node:crypto";
import { NoAnswer, Refused, createPayout } from "./psp.js";

/** The statuses in which a payout's money is back with us. */
const UNPAID = ["FAILED", "CANCELLED", "REJECTED", "RETURNED"];

/** Pay each seller the whole balance. Return the ids of payouts: `sent`, `refused`, and `unsent` without an answer. */
export async function paySellers(store, env) {
  store.change((data) => {
    for (const [id, seller] of Object.entries(data.sellers)) {
      if (seller.balance <= 0) continue;
      data.payouts[randomUUID()] = { seller: id, amount: seller.balance, spent: seller.balance, status: "UNSENT", version: 0 };
      seller.balance = 0;
    }
  });
  // The debits are stored before the first call. So a crash can delay a payout, but neither repeat nor forget it.
  return sendUnsent(store, env);
}

/** Send each payout that has no answer yet: it is new, or the answer was lost, or a crash came first. */
export async function sendUnsent(store, env) {
  const results = { sent: [], refused: [], unsent: [] };
  for (const [id, payout] of Object.entries(store.data.payouts)) {
    if (payout.status === "UNSENT") results[await send(store, env, id, payout)].push(id);
  }
  return results;
}

async function send(store, env, id, payout) {
  const { bank_code, account_number } = store.data.sellers[payout.seller];
  try {
    await createPayout(env, { id, amount: payout.amount, bank_code, account_number });
  } catch (error) {
    if (error instanceof NoAnswer) return "unsent"; // the PSP may have paid, so the money stays debited until it answers
    if (!(error instanceof Refused)) throw error;
    store.change((data) => {
      data.payouts[id].status = "REFUSED";
      giveBack(data, data.payouts[id], payout.amount);
    });
    return "refused";
  }
  store.change((data) => {
    // A webhook can be faster than this answer, and then knows more.
    if (data.payouts[id].version === 0) data.payouts[id].status = "PENDING";
  });
  return "sent";
}

/** Move an amount from a payout to its seller's balance. `spent` is what the seller has given for the payout so far. */
function giveBack(data, payout, amount) {
  data.sellers[payout.seller].balance += amount;
  payout.spent -= amount;
}

/** Apply an event to a payout, once, and only if it is newer than what we know. */
export function applyEvent(store, event) {
  store.change((data) => {
    if (data.events.includes(event.id)) return; // it arrives again after a lost answer
    data.events.push(event.id);
    const payout = data.payouts[event.data.merchant_reference];
    if (!payout || event.data.version <= payout.version) return; // not ours, or we know this state or a newer one
    // The money follows the state, not the events: of the events between two states, any may be missing or still to come.
    const [wasBack, isBack] = [UNPAID.includes(payout.status), UNPAID.includes(event.data.status)];
    if (isBack && !wasBack) giveBack(data, payout, payout.amount);
    if (wasBack && !isBack) giveBack(data, payout, -payout.amount);
    Object.assign(payout, { status: event.data.status, version: event.data.version });
  });
}
