// A webhook receiver that passes every check of `psp certify`, with only Node's standard library.
//
//     node examples/receivers/correct_node.js --secret whsec_... [--port 9000]
//     psp certify http://127.0.0.1:9000/webhooks --secret whsec_... --probe-url http://127.0.0.1:9000/probe
//
// It keeps its state in memory. A real receiver does the steps of `actOn` in one database transaction.

const { createHmac, timingSafeEqual } = require("node:crypto");
const { createServer } = require("node:http");
const { parseArgs } = require("node:util");

const TOLERANCE = 300; // seconds
const BODY_LIMIT = 1024 * 1024;

const { values } = parseArgs({ options: { secret: { type: "string" }, port: { type: "string", default: "9000" } } });
if (!values.secret) {
  console.error("--secret is missing: the endpoint's secret, whsec_...");
  process.exit(2);
}
const key = Buffer.from(values.secret.replace(/^whsec_/, ""), "base64");

function isValid(headers, body) {
  const id = headers["webhook-id"], stamp = headers["webhook-timestamp"], given = headers["webhook-signature"];
  if (!id || !given || !/^\d{1,12}$/.test(stamp ?? "")) return false;
  if (Math.abs(Date.now() / 1000 - Number(stamp)) > TOLERANCE) return false;
  const mac = createHmac("sha256", key).update(`${id}.${stamp}.`).update(body).digest("base64");
  const expected = Buffer.from(`v1,${mac}`);
  // During a rotation there are several signatures, and one must match.
  return given.split(" ").some((one) => {
    const actual = Buffer.from(one);
    return actual.length === expected.length && timingSafeEqual(actual, expected);
  });
}

const seen = new Set();
const payouts = new Map();

function actOn(event) {
  if (seen.has(event.id)) return; // it arrives again after a lost answer
  seen.add(event.id);
  const { id, status, version } = event.data;
  const payout = payouts.get(id) ?? { status: null, version: 0, applied: 0 };
  if (version < payout.version) return; // a newer event has arrived before it
  payouts.set(id, { status, version, applied: payout.applied + 1 });
}

function answer(response, status, body) {
  const text = body === undefined ? "" : JSON.stringify(body);
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) }).end(text);
}

function receive(request, response) {
  const chunks = [];
  let size = 0;
  request.on("data", (chunk) => {
    size += chunk.length;
    if (size <= BODY_LIMIT) chunks.push(chunk);
  });
  request.on("end", () => {
    if (size > BODY_LIMIT) return answer(response, 413);
    const body = Buffer.concat(chunks); // the raw bytes: parsing and writing them again would change them
    if (!isValid(request.headers, body)) return answer(response, 401);
    const event = JSON.parse(body.toString());
    if (event.type.startsWith("payout.")) actOn(event); // other types are accepted and ignored
    answer(response, 200);
  });
}

const server = createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (url.pathname === "/probe" && request.method === "GET") {
    const { status, applied } = payouts.get(url.searchParams.get("payout_id")) ?? { status: null, applied: 0 };
    return answer(response, 200, { status, applied });
  }
  if (request.method !== "POST") return answer(response, 405);
  receive(request, response);
});
server.listen(Number(values.port), "127.0.0.1", () => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  console.log(`webhooks: ${origin}/webhooks   probe: ${origin}/probe`);
});
