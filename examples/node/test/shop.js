import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withPsp } from "psp-sandbox/vitest";
import { test as base } from "vitest";
import { booksOf } from "../books.js";
import { sendUnsent } from "../payments.js";
import { createShop } from "../shop.js";
import { Store } from "../store.js";

/** The running shop, used over HTTP as by its customers and its staff. */
class Shop {
  constructor(url, folder, env) {
    this.url = url;
    this.folder = folder;
    this.env = env;
  }

  async call(method, path, body) {
    const answer = await fetch(`${this.url}${path}`, { method, body: body === undefined ? undefined : JSON.stringify(body) });
    return { status: answer.status, ...(await answer.json()) };
  }

  /** Add a seller to whom the shop owes an amount. The last digits of the account choose what becomes of payouts. */
  async owe(id, suffix, ...totals) {
    await this.call("POST", "/sellers", { id, bank_code: "HBL", account_number: `1234567890${suffix}` });
    for (const total of totals) await this.call("POST", "/orders", { seller: id, total });
  }

  /** Pay all sellers. Return the ids of the payouts. */
  async pay() {
    const { sent, refused, unsent } = await this.call("POST", "/payouts");
    return { sent, refused, unsent };
  }

  /** Return what the shop owes a seller, and the statuses of the seller's payouts. */
  async shows(id) {
    const { balance, payouts } = await this.call("GET", `/sellers/${id}`);
    return [balance, ...payouts.map((payout) => payout.status)];
  }
}

/** Return a test function with the fixtures `psp` and `shop`: the shop runs, and the sandbox sends its webhooks to it. */
export function withShop(options) {
  return withPsp(base, options).extend({
    shop: async ({ psp }, use) => {
      const folder = mkdtempSync(join(tmpdir(), "shop-"));
      const file = join(folder, "shop.json");
      const env = { ...psp.env, SHOP_FILE: file, RETRY_MS: 5 };
      let running = createShop(env);
      const app = await psp.liveApp(() => (request, response) => running(request, response), { path: "/webhooks/psp" });
      const shop = new Shop(app.url, folder, env);
      psp.books(() => booksOf(new Store(file)));
      shop.restart = async () => {
        rmSync(`${file}.new`, { recursive: true, force: true }); // who restarts it makes room first
        const store = new Store(file);
        await sendUnsent(store, env);
        running = createShop(env, store);
      };
      psp.onRestart(shop.restart);
      await use(shop);
      rmSync(folder, { recursive: true });
    },
  });
}
