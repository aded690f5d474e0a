import assert from "node:assert/strict";
import { test } from "node:test";

const { PSP_URL, PSP_API_KEY, PORT = "3000" } = process.env;

async function call(url, method, body, headers = {}) {
  const answer = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${url}: ${answer.status}`);
  return answer.json();
}

const shop = (method, path, body) => call(`http://127.0.0.1:${PORT}${path}`, method, body);

/** Owe a seller an amount, pay all sellers, and wait until the PSP has done everything that is due. */
async function pay(id, suffix, total) {
  await shop("POST", "/sellers", { id, bank_code: "HBL", account_number: `1234567890${suffix}` });
  await shop("POST", "/orders", { seller: id, total });
  await shop("POST", "/payouts");
  await call(`${PSP_URL}/sandbox/v1/drain`, "POST", {}, { "X-API-KEY": PSP_API_KEY, "Content-Type": "application/json" });
}

test("a seller is paid", async () => {
  await pay("ali", "0001", "1250.35");
  const { balance, payouts } = await shop("GET", "/sellers/ali");
  assert.deepEqual([balance, payouts[0].status], ["0.00", "SUCCESS"]);
});

test("a failed payout gives the money back", async () => {
  await pay("bina", "0003", "100.00");
  const { balance, payouts } = await shop("GET", "/sellers/bina");
  assert.deepEqual([balance, payouts[0].status], ["100.00", "FAILED"]);
});
