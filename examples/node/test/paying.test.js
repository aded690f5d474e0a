import { expect } from "vitest";
import { withShop } from "./shop.js";

const test = withShop();
const poor = withShop({ balance: "99.99" });

test("a seller is paid the whole balance, exactly", async ({ psp, shop }) => {
  await shop.owe("ali", "0001", "4.35", "0.29", "1.15"); // as floats, these times 100 are a little less than 435, 29 and 115
  const { sent } = await shop.pay();
  const payout = await psp.nextPayout({ reference: sent[0] });
  expect([payout.amount, payout.status]).toEqual(["5.79", "SUCCESS"]);
  expect(await psp.webhooks(payout).types()).toEqual(["payout.created", "payout.processing", "payout.succeeded"]);
  expect(await shop.shows("ali")).toEqual(["0.00", "SUCCESS"]);
});

test("what is not an amount is refused", async ({ shop }) => {
  await shop.owe("ali", "0001");
  for (const total of ["0.001", "0.00", "-1.00", "ten", 4.35]) {
    expect((await shop.call("POST", "/orders", { seller: "ali", total })).status).toBe(422);
  }
});

test("a failed payout returns the money to the seller", async ({ psp, shop }) => {
  await shop.owe("ali", "0003", "100.00");
  await shop.pay();
  await psp.drain();
  expect(await shop.shows("ali")).toEqual(["100.00", "FAILED"]);
});

test("a returned payout returns the money to the seller", async ({ psp, shop }) => {
  await shop.owe("ali", "0012", "100.00");
  const { sent } = await shop.pay();
  await psp.advance("59s");
  expect(await shop.shows("ali")).toEqual(["0.00", "SUCCESS"]);
  await psp.advance("1s");
  await psp.webhooks.expect("payout.returned", { payout: await psp.nextPayout({ reference: sent[0] }), times: 1 });
  expect(await shop.shows("ali")).toEqual(["100.00", "RETURNED"]);
});

poor("a refused payout returns the money to the seller", async ({ shop }) => {
  await shop.owe("ali", "0001", "100.00");
  expect((await shop.pay()).refused.length).toBe(1);
  expect(await shop.shows("ali")).toEqual(["100.00", "REFUSED"]);
});
