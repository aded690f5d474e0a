import { mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { withShop } from "./shop.js";

const test = withShop();

/** Owe a seller 100.00. A payout to this seller succeeds, and is returned after a minute. */
async function payAli(shop) {
  await shop.owe("ali", "0012", "100.00");
  await shop.pay();
}

test("a webhook that arrives twice counts once", async ({ psp, shop }) => {
  await payAli(shop);
  await psp.fault("duplicate", { on: "payout.returned" }, () => psp.advance("1m"));
  const returned = await psp.webhooks.expect("payout.returned", { times: 1 });
  expect(returned.received.map((one) => one.status)).toEqual([200, 200]);
  expect(await shop.shows("ali")).toEqual(["100.00", "RETURNED"]);
});

test("a late webhook does not undo a newer one", async ({ psp, shop }) => {
  await psp.fault("delay", { on: "payout.succeeded", milliseconds: 120_000 }, async () => {
    await payAli(shop);
    await psp.advance("1m");
  });
  expect(await shop.shows("ali")).toEqual(["100.00", "RETURNED"]);
  await psp.advance("1m");
  expect((await psp.webhooks.received()).at(-1).event.type).toBe("payout.succeeded");
  expect(await shop.shows("ali")).toEqual(["100.00", "RETURNED"]);
});

test.for([
  ["wrong_key", {}],
  ["tampered_body", {}],
  ["stale_timestamp", { seconds: 301 }],
])("a webhook with %s is refused", async ([kind, options], { psp, shop }) => {
  await payAli(shop);
  await psp.fault(kind, { on: "payout.returned", count: 1, ...options }, () => psp.advance("1m"));
  expect((await psp.webhooks.received()).at(-1).status).toBe(401);
  expect(await shop.shows("ali")).toEqual(["0.00", "SUCCESS"]);
  await psp.advance("1m"); // the sandbox sends it again, and now it is genuine
  expect(await shop.shows("ali")).toEqual(["100.00", "RETURNED"]);
});

test("a new secret may sign before we know it", async ({ psp, shop }) => {
  const [endpoint] = await psp.client.webhookEndpoints.list().toArray(1);
  const { secret } = await psp.client.webhookEndpoints.rotateSecret(endpoint.id, { grace_seconds: 3600 });
  psp.onRestart(() => {
    shop.env.PSP_WEBHOOK_SECRET = secret; // within the hour
    return shop.restart();
  });
  await payAli(shop);
  await psp.advance("1m");
  expect(await shop.shows("ali")).toEqual(["100.00", "RETURNED"]);
});

test("a webhook that cannot be stored is not acknowledged", async ({ psp, shop }) => {
  await payAli(shop);
  await psp.drain();
  const inTheWay = join(shop.folder, "shop.json.new"); // a folder, so the shop cannot write the file
  mkdirSync(inTheWay);
  await psp.advance("1m");
  expect((await psp.webhooks.received()).at(-1).status).toBe(500);
  rmdirSync(inTheWay);
  expect(await shop.shows("ali")).toEqual(["0.00", "SUCCESS"]);
  await psp.advance("1m");
  expect(await shop.shows("ali")).toEqual(["100.00", "RETURNED"]);
});
