import { createServer } from "node:http";
import { isValidWebhook } from "psp-sandbox";
import { UsageError, withPsp } from "psp-sandbox/vitest";
import { expect, test as base, vi } from "vitest";

const test = withPsp(base);
const poor = withPsp(base, { balance: "100.00", frozen: "2030-01-01T00:00:00Z", seed: 7 });
const lenient = withPsp(base, { allowFailedDeliveries: true });

test("a returned payout gives the money back", async ({ psp }) => {
  const before = await psp.balance();
  const payout = await psp.pays("returned", { amount: "250.00" });
  expect((await psp.balance()).available).toBe("999750.00");
  expect((await psp.advance("60s")).complete).toBe(true);
  expect((await psp.payout(payout)).status).toBe("RETURNED");
  const webhook = await psp.webhooks.expect("payout.returned", { payout, times: 1 });
  expect(webhook.received[0]?.status).toBe(204);
  expect(await psp.webhooks(payout).types()).toEqual(["payout.created", "payout.processing", "payout.succeeded", "payout.returned"]);
  expect(await psp.balance()).toEqual(before);
});

poor("the merchant is as the options say", async ({ psp }) => {
  expect((await psp.balance()).available).toBe("100.00");
  expect(await psp.now()).toBe("2030-01-01T00:00:00.000Z");
  await expect(psp.pays("success", { amount: "100.01" })).rejects.toMatchObject({ code: "INSUFFICIENT_BALANCE" });
});

poor("the clock can be frozen, advanced and resumed", async ({ psp }) => {
  expect(await psp.freeze("2030-06-01T00:00:00Z")).toBe("2030-06-01T00:00:00.000Z");
  await psp.advance({ to: new Date("2030-06-02T00:00:00Z") });
  await psp.advance("1h 30m");
  expect(await psp.now()).toBe("2030-06-02T01:30:00.000Z");
  await psp.resume();
  expect(Date.parse(await psp.now())).toBeGreaterThan(Date.parse("2030-06-02T01:30:00Z"));
});

test("an application gets the webhooks, and its answer counts", async ({ psp }) => {
  const statuses: string[] = [];
  let answers = 0;
  const app = await psp.liveApp((env) =>
    createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const body = Buffer.concat(chunks);
      answers += 1;
      if (answers === 1) return void response.writeHead(500).end();
      if (!isValidWebhook(env.PSP_WEBHOOK_SECRET, request.headers, body)) return void response.writeHead(401).end();
      statuses.push((JSON.parse(body.toString()) as { data: { status: string } }).data.status);
      response.writeHead(204).end();
    }),
  );
  expect(app.webhookUrl).toBe(`${app.url}/webhooks`);
  const payout = await psp.pays("success");
  await psp.advance("1m");
  expect((await psp.webhooks.received()).map((one) => one.status).sort()).toEqual([204, 204, 204, 500]);
  expect(new Set(statuses)).toEqual(new Set(["PENDING", "PROCESSING", "SUCCESS"]));
  expect((await psp.nextPayout({ reference: payout.merchant_reference })).id).toBe(payout.id);
});

lenient("an application that does not answer is a failed delivery", async ({ psp }) => {
  psp.forwardWebhooks("http://127.0.0.1:9/webhooks");
  await psp.pays("success");
  expect((await psp.webhooks.received())[0]).toMatchObject({ status: 502, problem: undefined });
});

test("an event that arrives twice counts once", async ({ psp }) => {
  await psp.fault("duplicate", { on: "payout.succeeded" }, async (fault) => {
    await psp.pays("success");
    expect(await fault.hits()).toBe(1);
  });
  const webhook = await psp.webhooks.expect("payout.succeeded", { times: 1 });
  expect(webhook.received.length).toBe(2);
});

test("a webhook with a wrong signature does not count", async ({ psp }) => {
  await psp.fault("wrong_key", { on: "payout.succeeded", count: 1 });
  await psp.pays("success");
  await expect(psp.webhooks.expect("payout.succeeded")).rejects.toThrow("not counted: no signature matches");
  await psp.advance("1m");
  await psp.webhooks.expect("payout.succeeded", { times: 1 });
});

test("what does not arrive is explained immediately while the clock is frozen", async ({ psp }) => {
  await psp.pays("success");
  const failed = psp.webhooks.expect("payout.returned");
  await expect(failed).rejects.toThrow(/arrived 0 times\n {2}The clock is frozen.*\n {2}arrived: payout.created \(version 1\)/);
});

test("the clock of the test's process may be a fake", async ({ psp }) => {
  vi.useFakeTimers({ now: new Date("2040-01-01T00:00:00Z") });
  try {
    const payout = await psp.pays("returned");
    await psp.advance("60s");
    await psp.webhooks.expect("payout.returned", { payout, times: 1 });
  } finally {
    vi.useRealTimers();
  }
});

test("other events come after subscribing to them", async ({ psp }) => {
  await psp.subscribe("*");
  const user = await psp.client.users.create({ name: "Ali" });
  await psp.client.bulkCredits.upload(`uuid,amount\n${user.id},1.00\n`);
  expect((await psp.webhooks.expect("bulk_credit.completed")).payoutId).toBeNull();
});

test("mistakes in a test are told as such", async ({ psp }) => {
  await expect(psp.pays("succes")).rejects.toThrow(/no scenario "succes"\. There are: .*success/);
  await expect(psp.pays("success", { amount: 1.5 as never })).rejects.toThrow(UsageError);
  await expect(psp.advance("soon")).rejects.toThrow(UsageError);
  await expect(psp.fault("drop", { on: "POST /payouts" })).rejects.toThrow("one of webhooks");
  await expect(psp.fault("slow" as never)).rejects.toThrow("There is no fault");
  await expect(psp.fault("error", { on: "payouts" })).rejects.toThrow("neither a request");
  await expect(psp.nextPayout({ reference: "B", timeoutMs: 0 })).rejects.toThrow("no payout with reference");
  expect(() => psp.forwardWebhooks("localhost")).toThrow(UsageError);
});

test("an adapter of Safepay Raast uses the merchant of the test", async ({ psp }) => {
  expect(() => psp.safepay.webhookSecret).toThrow(UsageError);
  await expect(psp.safepay.subscribe("not a URL")).rejects.toThrow(UsageError);
  const secret = await psp.safepay.subscribe("http://127.0.0.1:9/", "payment.settled");
  expect(Buffer.from(psp.safepay.webhookSecret, "base64")).toHaveLength(32);
  expect(psp.safepay.webhookSecret).toBe(secret);
  psp.allowFailedDeliveries = true;
  const response = await fetch(`${psp.safepay.url}/v1/aggregators/${psp.safepay.aggregatorId}/payout`, {
    method: "POST",
    headers: { "X-SFPY-AGGREGATOR-SECRET-KEY": psp.safepay.key, "Content-Type": "application/json" },
    body: JSON.stringify({ request_id: crypto.randomUUID(), amount: "200", creditor_iban: "PK12HABB0000000000000004" }),
  });
  const made = (await response.json()) as { data: { token: string; status: string } };
  expect(made.data.status).toBe("P_INITIATED");
  expect((await psp.payout(made.data.token.slice(3))).amount).toBe("200.00");
});
