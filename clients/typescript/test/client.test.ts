import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import {
  Client,
  DuplicateReference,
  InsufficientBalance,
  type KnownProblem,
  NotReached,
  ProblemError,
  UnexpectedResponse,
  Unreachable,
  ValidationError,
  WaitTimeout,
} from "psp-sandbox";
import { withPsp } from "psp-sandbox/vitest";
import { expect, onTestFinished, test as base } from "vitest";

const test = withPsp(base);
const PAYOUT = { amount: "10.00", dest_type: "BANK", bank_code: "HBL", account_number: "12345678900001" } as const;

interface Seen {
  method: string | undefined;
  url: string | undefined;
  key: string | string[] | undefined;
}

/** Start a server that answers the calls one by one, undefined with a broken connection. Return a client and what it was asked. */
async function scripted(answers: ([number, string, Record<string, string>?] | undefined)[], retries = 5): Promise<[Client, Seen[]]> {
  const seen: Seen[] = [];
  const server = createServer((request, response) => {
    seen.push({ method: request.method, url: request.url, key: request.headers["x-idempotency-key"] });
    const answer = answers[seen.length - 1];
    request.resume().on("end", () => {
      if (answer) response.writeHead(answer[0], answer[2]).end(answer[1]);
      else response.destroy();
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return [new Client({ url, retries, timeoutMs: 10_000 }), seen];
}

const problem = (status: number, code: string): [number, string] => [status, JSON.stringify({ status, code, detail: "…" })];

base("a write keeps its idempotency key in all attempts, and another write has another one", async () => {
  const [client, seen] = await scripted([undefined, problem(503, "UNAVAILABLE"), problem(409, "IDEMPOTENCY_KEY_IN_FLIGHT"), [201, "{}"], [201, "{}"]]);
  await client.payouts.create({ ...PAYOUT, merchant_reference: "A" });
  await client.payouts.create({ ...PAYOUT, merchant_reference: "B" });
  expect(new Set(seen.slice(0, 4).map((one) => one.key)).size).toBe(1);
  expect(seen[4]?.key).not.toBe(seen[0]?.key);
});

base("a write without an answer says with which key to repeat it", async () => {
  const [client, seen] = await scripted([], 1);
  const failed = await client.payouts.create({ ...PAYOUT, merchant_reference: "A" }).catch((error: unknown) => error);
  expect(failed).toBeInstanceOf(Unreachable);
  expect((failed as Unreachable).idempotencyKey).toBe(seen[0]?.key);
  expect(seen.length).toBe(2);
});

base("other refusals are not repeated", async () => {
  const [client, seen] = await scripted([problem(422, "INSUFFICIENT_BALANCE")]);
  await expect(client.balance.topUp({ amount: "1.00" })).rejects.toBeInstanceOf(InsufficientBalance);
  expect(seen.length).toBe(1);
});

base("a Retry-After that takes longer than the retries may is not waited for", async () => {
  const [client, seen] = await scripted([[429, "{}", { "Retry-After": "3600" }]]);
  await expect(client.balance.get()).rejects.toMatchObject({ status: 429 });
  expect(seen.length).toBe(1);
});

base("a call that is given up ends with the reason of its signal", async () => {
  const [client] = await scripted([]);
  const signal = AbortSignal.abort(new Error("enough"));
  await expect(client.balance.get({ signal })).rejects.toThrow("enough");
});

base("what is not a sandbox is told apart", async () => {
  const [client] = await scripted([[200, "<html>"], [404, "<html>"]]);
  await expect(client.balance.get()).rejects.toBeInstanceOf(UnexpectedResponse);
  await expect(client.balance.get()).rejects.toMatchObject({ code: "HTTP_404", status: 404 });
});

base("an id cannot name another resource", () => {
  const client = new Client({ url: "http://127.0.0.1:1" });
  for (const id of ["", ".", ".."]) expect(() => client.payouts.get(id)).toThrow(TypeError);
});

test("a list requests a page when its first item is needed", async ({ psp }) => {
  for (const name of ["A", "B", "C"]) await psp.pays("success", { reference: name });
  const references: string[] = [];
  for await (const payout of psp.client.payouts.list({ limit: 1, status: ["SUCCESS", "PENDING"] })) {
    references.push(payout.merchant_reference);
    if (references.length === 2) break;
  }
  expect(references).toEqual(["C", "B"]);
  const bundle = await psp.request<{ journal: { calls: { path: string }[] } }>("GET", "/sandbox/v1/world");
  const calls = bundle.journal.calls.filter((one) => one.path === "/api/v1/payouts");
  expect(calls.length).toBe(3 + 2);
});

test("each code has a class, and the class knows its code", async ({ psp }) => {
  const create = psp.client.payouts.create.bind(psp.client.payouts);
  await create({ ...PAYOUT, merchant_reference: "A" });
  await expect(create({ ...PAYOUT, merchant_reference: "A" })).rejects.toBeInstanceOf(DuplicateReference);
  await expect(create({ ...PAYOUT, merchant_reference: "B", amount: "99999999.00" })).rejects.toBeInstanceOf(InsufficientBalance);
  const failed = (await create({ ...PAYOUT, merchant_reference: "C", amount: "1.005" }).catch((error: unknown) => error)) as KnownProblem;
  expect(failed).toBeInstanceOf(ProblemError);
  switch (failed.code) {
    case "VALIDATION_ERROR":
      expect(failed.errors.map((one) => one.field)).toEqual(["amount"]);
      break;
    default:
      expect(failed).toBeInstanceOf(ValidationError);
  }
});

test("the same key repeats nothing", async ({ psp }) => {
  const fields = { ...PAYOUT, merchant_reference: "A" };
  const [one, other] = [
    await psp.client.payouts.create(fields, { idempotencyKey: "order-17" }),
    await psp.client.payouts.create(fields, { idempotencyKey: "order-17" }),
  ];
  expect(other).toEqual(one);
});

test("a lost answer does not pay twice", async ({ psp }) => {
  const hits = await psp.fault("connection_reset", { on: "POST /payouts", count: 2 }, async (fault) => {
    await psp.pays("success", { reference: "once" });
    return fault.hits();
  });
  expect(hits).toBe(2);
  expect((await psp.client.payouts.list({ merchant_reference: "once" }).toArray()).length).toBe(1);
});

test("waiting ends as soon as the status cannot be reached any more", async ({ psp }) => {
  const failed = await psp.pays("account_closed");
  await expect(psp.client.payouts.waitFor(failed.id, "SUCCESS")).rejects.toBeInstanceOf(NotReached);
  const returned = await psp.pays("returned");
  await psp.drain();
  expect((await psp.client.payouts.waitFor(returned.id, ["RETURNED", "SUCCESS"])).id).toBe(returned.id);
  await expect(psp.client.payouts.waitFor(returned.id, "RETURNED", { timeoutMs: 10 })).rejects.toThrow(WaitTimeout);
});

test("a stream shows what happens after it was opened", async ({ psp }) => {
  const stream = await psp.client.stream({ types: "payout.*", timeout: 20 });
  await psp.pays("success");
  const types: string[] = [];
  for await (const event of stream) {
    types.push(event.type);
    if (event.type === "payout.succeeded") break;
  }
  expect(types).toEqual(["payout.created", "payout.processing", "payout.succeeded"]);
});

test("null is sent, and what is undefined is not", async ({ psp }) => {
  await psp.client.settings.change({ rate_limit: 600, review_threshold: null });
  await psp.client.settings.change({ rate_limit: undefined });
  expect(await psp.client.settings.get()).toMatchObject({ rate_limit: 600, review_threshold: null });
});

test("a file is uploaded", async ({ psp }) => {
  const user = await psp.client.users.create({ name: "Ali" });
  const { activity_id } = await psp.client.bulkCredits.upload(`uuid,amount\n${user.id},12.50\n`);
  await psp.drain();
  expect(await psp.client.bulkCredits.get(activity_id)).toMatchObject({ status: "COMPLETED" });
  expect((await psp.client.users.balance(user.id)).available).toBe("12.50");
});
