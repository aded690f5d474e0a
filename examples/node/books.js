import { toText } from "./money.js";
import { Store, fileOf } from "./store.js";

// The shop's books for `psp explore`: one line of JSON for each payout.
for (const [reference, { status, amount, spent }] of Object.entries(new Store(fileOf(process.env)).data.payouts)) {
  console.log(JSON.stringify({ reference, status, amount: toText(amount), spent: toText(spent) }));
}
