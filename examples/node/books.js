import { pathToFileURL } from "node:url";
import { toText } from "./money.js";
import { Store, fileOf } from "./store.js";

/** Return the shop's books for `psp explore`: a row for each payout. */
export function booksOf(store) {
  return Object.entries(store.data.payouts).map(([reference, { status, amount, spent }]) => {
    return { reference, status, amount: toText(amount), spent: toText(spent) };
  });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  for (const row of booksOf(new Store(fileOf(process.env)))) console.log(JSON.stringify(row));
}
