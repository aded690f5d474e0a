import { withPsp } from "psp-sandbox/jest";

const pspTest = withPsp(test);

pspTest("passes", async ({ psp }) => {
  const payout = await psp.pays("returned", { amount: "250.00" });
  await psp.advance("60s");
  await psp.webhooks.expect("payout.returned", { payout, times: 1 });
  expect((await psp.balance()).available).toBe("1000000.00");
});

pspTest("fails in an assertion", async ({ psp }) => {
  await psp.pays("account_closed", { reference: "A-1" });
  expect((await psp.balance()).available).toBe("1.00");
});

pspTest("fails in the checks at its end", async ({ psp }) => {
  await psp.fault("error", { on: "POST /payouts", status: 503, count: 1 });
});

pspTest.skip("is skipped", () => {});
