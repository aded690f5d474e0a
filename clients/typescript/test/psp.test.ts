import { expect, test as base } from "vitest";
import { withPsp } from "psp-sandbox/vitest";

const test = withPsp(base);

test("a returned payout gives the money back", async ({ psp }) => {
  const before = await psp.balance();
  const payout = await psp.pays("returned", { amount: "250.00" });
  expect((await psp.balance()).available).not.toBe(before.available);
  await psp.advance("60s");
  expect((await psp.payout(payout)).status).toBe("RETURNED");
  await psp.webhooks.expect("payout.returned", { payout, times: 1 });
  expect(await psp.webhooks(payout).types()).toEqual(["payout.created", "payout.processing", "payout.succeeded", "payout.returned"]);
  expect(await psp.balance()).toEqual(before);
});

test("fails", async ({ psp }) => {
  const payout = await psp.pays("account_closed", { reference: "A-1" });
  expect((await psp.payout(payout)).status).toBe("SUCCESS");
});

test("fails2", async ({ psp }) => {
  await psp.fault("error", { on: "POST /payouts", status: 503, count: 1 });
});
