// An event loop, in which an interval of a minute compares clocks, and looks whether the time is over.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Agent, get } from "node:https";
import { createRequire } from "node:module";

const { PGHOST, PORT, PSP_API_KEY, PSP_URL, SWEEP_SECONDS, UPSTREAM, UPSTREAM_CA } = process.env;
const SWEEP_MS = Number(SWEEP_SECONDS) * 1000;

async function call(path, body) {
  const key = body && { "x-idempotency-key": body.merchant_reference };
  const answer = await fetch(PSP_URL + path, {
    method: body ? "POST" : "GET",
    headers: { "x-api-key": PSP_API_KEY, "content-type": "application/json", ...key },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

let due = Date.now() + SWEEP_MS;
let [compared, apart] = [0, 0];
setInterval(async () => {
  const now = Date.now();
  const isDue = now >= due;
  if (isDue) due += SWEEP_MS;
  const clock = await call("/sandbox/v1/clock");
  compared++;
  apart = Math.max(apart, Math.abs(now - Date.parse(clock.now)) / 1000);
  if (!isDue) return;
  const reference = `swept-${(now / 1000).toFixed(3)}-${compared}-${apart.toFixed(3)}`;
  const bank = { dest_type: "BANK", bank_code: "HBL", account_number: "12345678900001" };
  await call("/api/v1/payouts", { merchant_reference: reference, amount: "5.00", ...bank });
}, 60_000);

const agent = new Agent({ keepAlive: true, ca: UPSTREAM_CA && readFileSync(UPSTREAM_CA) });
const { Pool } = PGHOST ? createRequire(import.meta.url)("pg") : {};
const database = Pool && new Pool({ max: 4, connectionTimeoutMillis: 10_000, query_timeout: 10_000 });

function ask(url) {
  return new Promise((resolve, reject) => {
    const request = get(url, { agent, timeout: 10_000 }, (response) =>
      response.toArray().then((parts) => resolve(parts.join("")), reject),
    );
    request.on("timeout", () => request.destroy(new Error("the upstream timed out"))).on("error", reject);
  });
}

async function answer(path) {
  if (path === "/clocks") return `${Date.now() / 1000} ${performance.now() / 1000}`;
  if (path !== "/work") return "";
  await database.query("SELECT pg_sleep(0.02)");
  return ask(UPSTREAM);
}

createServer(async (request, response) => {
  await request.toArray();
  const [status, text] = await answer(request.url).then((text) => [200, text], (error) => [500, String(error)]);
  response.writeHead(status).end(text);
}).listen(Number(PORT), "127.0.0.1");
