import { expect } from "vitest";
import { withShop } from "./shop.js";

const test = withShop();

async function expectPaidOnce(psp, shop) {
  await psp.drain();
  expect((await psp.client.payouts.list().toArray()).length).toBe(1);
  expect(await shop.shows("ali")).toEqual(["0.00", "SUCCESS"]);
}

test.for(["connection_reset", "truncated_body"])("after %s, the shop asks again with the same key", async (kind, { psp, shop }) => {
  await shop.owe("ali", "0001", "100.00");
  await psp.fault(kind, { on: "POST /payouts", count: 1 }, () => shop.pay());
  const { journal } = await psp.request("GET", "/sandbox/v1/world");
  const calls = journal.calls.filter((call) => call.method === "POST" && call.path === "/api/v1/payouts");
  expect(calls.map((call) => call.replayed)).toEqual([false, true]);
  expect(calls[1].idempotency_key).toBe(calls[0].idempotency_key);
  await expectPaidOnce(psp, shop);
});

test("a payout is sent again while the PSP is unavailable", async ({ psp, shop }) => {
  await shop.owe("ali", "0001", "100.00");
  await psp.fault("error", { on: "POST /payouts", status: 503, count: 2 }, async () => {
    expect((await shop.pay()).sent.length).toBe(1);
  });
  await expectPaidOnce(psp, shop);
});

test("without any answer nobody is paid twice", async ({ psp, shop }) => {
  await shop.owe("ali", "0001", "100.00");
  await psp.fault("connection_reset", { on: "POST /payouts" }, async () => {
    expect((await shop.pay()).unsent.length).toBe(1);
  });
  expect((await shop.shows("ali"))[0]).toBe("0.00");
  await shop.pay();
  await expectPaidOnce(psp, shop);
});

test("a webhook that is faster than the answer wins", async ({ psp, shop }) => {
  await shop.owe("ali", "0001", "100.00");
  // The payout exists, and its webhooks arrive, before the call that creates it has an answer.
  await psp.fault("slow_after_commit", { on: "POST /payouts", milliseconds: 1000, count: 1 }, async () => {
    const paying = shop.pay();
    await psp.nextPayout();
    await psp.drain();
    await paying;
  });
  await expectPaidOnce(psp, shop);
});
