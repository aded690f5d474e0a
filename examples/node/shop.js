import { toMinor, toText } from "./money.js";
import { applyEvent, paySellers } from "./payments.js";
import { Store, fileOf } from "./store.js";
import { isAuthentic } from "./webhooks.js";

const MAX_BODY_BYTES = 1024 * 1024;

/**
 * Return the shop, as a function that answers the requests of a server of node:http.
 *
 * `env` has PSP_URL, PSP_API_KEY and PSP_WEBHOOK_SECRET; SHOP_FILE is where the data is.
 */
export function createShop(env, store = new Store(fileOf(env))) {
  const routes = {
    "POST /sellers": (body) => addSeller(store, JSON.parse(body)),
    "POST /orders": (body) => addOrder(store, JSON.parse(body)),
    "POST /payouts": async () => [200, await paySellers(store, env)],
    "POST /webhooks/psp": (body, headers) => receiveWebhook(store, env, headers, body),
  };
  return async (request, response) => {
    let [status, answer] = [500, {}];
    try {
      const seller = request.method === "GET" && /^\/sellers\/(\w+)$/.exec(request.url)?.[1];
      const route = seller ? () => showSeller(store, seller) : routes[`${request.method} ${request.url}`];
      [status, answer] = route ? await route(await bodyOf(request), request.headers) : [404, {}];
    } catch (error) {
      if (error instanceof RangeError || error instanceof SyntaxError) [status, answer] = [422, { error: error.message }];
    }
    response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(answer));
  };
}

function addSeller(store, { id, bank_code, account_number }) {
  store.change((data) => {
    data.sellers[id] = { bank_code, account_number, balance: 0 };
  });
  return [201, { id }];
}

function addOrder(store, { seller, total }) {
  const amount = toMinor(total);
  store.change((data) => {
    data.sellers[seller].balance += amount;
  });
  return [201, {}];
}

function showSeller(store, id) {
  const payouts = Object.values(store.data.payouts).filter((payout) => payout.seller === id);
  const shown = payouts.map(({ amount, status }) => ({ amount: toText(amount), status }));
  return [200, { balance: toText(store.data.sellers[id].balance), payouts: shown }];
}

function receiveWebhook(store, env, headers, body) {
  if (!isAuthentic(env.PSP_WEBHOOK_SECRET, headers, body)) return [401, { error: "invalid signature" }];
  const event = JSON.parse(body);
  if (event.type.startsWith("payout.")) applyEvent(store, event);
  return [200, {}];
}

async function bodyOf(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw new RangeError("the body is too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks); // a signature is that of these bytes, not of parsed and rewritten JSON
}
