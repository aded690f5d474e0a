import { mkdirSync, writeFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { type JournalEntry } from "../generated/models.js";
import { PspError } from "../index.js";
import { describeDelivery } from "./checks.js";
import type { World } from "./world.js";

const FOLDER = ".psp-failures";
const MOST_PAYOUTS = 10;
const MOST_CALLS = 50;
const MOST_DELIVERIES = 30;
const MOST_DETAILS = 10;
/** Several endpoints can get the same event, so there are at most as many events as deliveries; repeated ones may be older. */
const MOST_EVENTS = 100;
const MOST_CHARACTERS = 300;
const OWN_CALLS = /^((GET|POST|DELETE) \/sandbox\/v1\/(audit|drain|faults|catalogue|clock)\b|GET \/api\/v1\/webhook-deliveries\b)/;

/** A call, as a world bundle has it. */
type Call = Pick<
  JournalEntry,
  | "at" | "method" | "path" | "query" | "status" | "request_id" | "request_body" | "response_body" | "replayed"
  | "idempotency_key" | "fault" | "api_key_id"
>;

/**
 * Save the merchant's world in .psp-failures, and return the report of a failed test, without secrets.
 *
 * It shows API calls, payouts, deliveries, which sandbox it was, and where the world was saved.
 */
export async function evidence(world: World): Promise<string> {
  const { calls, saved } = await journal(world);
  const { address } = world.sandbox;
  const parts: [string, string[]][] = [
    ["API calls (the host's time)", calls],
    ["payouts (the merchant's time)", await attempt(() => payouts(world))],
    ["webhook deliveries (the merchant's time)", await attempt(() => deliveries(world))],
    ["world", [`The sandbox was ${address.url}, ${address.isOurs ? `started by ${address.startedBy}` : "of PSP_URL"}.`, saved]],
  ];
  const sections = parts.map(([title, lines]) => `--- PSP Sandbox: ${title} ---\n${shown(lines)}`);
  return redacted(world, sections.join("\n"));
}

async function journal(world: World): Promise<{ calls: string[]; saved: string }> {
  try {
    // The list of requests may lack the newest ones for a moment. An export waits for them, and has them in order. It comes first,
    // so that it does not include the calls that read the rest.
    const bundle = await world.request<{ journal: { calls: Call[] } }>("GET", "/sandbox/v1/world");
    return { calls: callLines(bundle.journal.calls), saved: save(bundle, world.test) };
  } catch (error) {
    if (!(error instanceof PspError)) throw error;
    return { calls: [`(not available: ${error.message})`], saved: "The world was not saved." };
  }
}

/** Save a bundle, and return a line that says where, or why it failed. */
function save(bundle: unknown, test: string): string {
  const name = test.replaceAll("/", ".").replace(/[^\w.-]+/g, "-").replace(/^-+|-+$/g, "").slice(-180);
  const path = resolve(FOLDER, `${name}.psp-world.json`);
  try {
    mkdirSync(FOLDER, { recursive: true });
    writeFileSync(path, JSON.stringify(bundle));
  } catch (error) {
    return `The world was not saved: ${String(error)}`;
  }
  const shortest = join(relative(process.cwd(), path));
  return `The world was saved in ${shortest}. \`psp world import ${shortest}\` loads it into another sandbox.`;
}

function callLines(calls: readonly Call[]): string[] {
  // Leave our own calls out first, and count repeated ones as one, so that polls do not displace the application's calls.
  const groups: Call[][] = [];
  for (const call of calls.filter((one) => !OWN_CALLS.test(callName(one)))) {
    const group = groups.at(-1);
    if (group?.[0] && outcome(group[0]) === outcome(call)) group.push(call);
    else groups.push([call]);
  }
  return newest(groups.reverse(), MOST_CALLS, (group) => {
    const [one] = group as [Call, ...Call[]];
    const notes = [
      one.fault ? `fault ${one.fault.kind}` : "",
      one.replayed ? "replayed" : "",
      one.idempotency_key ? `key ${one.idempotency_key}` : "",
      group.length > 1 ? `${group.length} times` : "",
    ].filter(Boolean);
    return [
      `${one.at}  ${callName(one)} → ${one.status}${notes.map((note) => `  [${note}]`).join("")}`,
      ...(one.request_body && one.method !== "GET" ? [`    sent: ${one.request_body}`] : []),
      ...(one.status >= 400 ? [`    answer: ${one.response_body}`] : []),
    ];
  });
}

function callName(call: Call): string {
  return `${call.method} ${call.path}${call.query ? `?${call.query}` : ""}`;
}

/** Return a text that is equal for repeated calls with the same answer, and different for all others. */
function outcome(call: Call): string {
  if (!["GET", "HEAD"].includes(call.method)) return call.request_id;
  return JSON.stringify([callName(call), call.status, call.response_body, call.fault, call.api_key_id]);
}

async function payouts(world: World): Promise<string[]> {
  const found = await world.client.payouts.list({ limit: MOST_PAYOUTS }).toArray(MOST_PAYOUTS + 1);
  const timelines = new Map(
    await Promise.all(found.map(async (one) => [one.id, await world.client.payouts.timeline(one.id)] as const)),
  );
  return newest(found, MOST_PAYOUTS, (one) => {
    const failure = one.failure_code ? `, ${one.failure_code}` : "";
    return [
      `${one.merchant_reference}: ${one.amount} ${one.currency}, ${one.status}${failure} (${one.id})`,
      ...(timelines.get(one.id) ?? []).map((step) => `  ${step.at}  ${step.from ?? "-"} → ${step.to}  (${step.cause})`),
    ];
  });
}

async function deliveries(world: World): Promise<string[]> {
  const found = await world.client.deliveries.list({ limit: MOST_DELIVERIES }).toArray(MOST_DELIVERIES + 1);
  const events = await world.client.events.list({ limit: MOST_EVENTS }).toArray(MOST_EVENTS);
  const references = new Map(events.map((event) => [event.id, (event.data as { merchant_reference?: string }).merchant_reference]));
  const unsuccessful = found.filter((one) => one.status !== "SUCCEEDED").slice(0, MOST_DETAILS);
  const details = new Map(await Promise.all(unsuccessful.map(async (one) => [one.id, await describeDelivery(world, one)] as const)));
  const lines = newest(found, MOST_DELIVERIES, (one) => {
    const reference = references.get(one.event_id);
    const text = details.get(one.id) ?? `${one.event_type} ${one.status} (attempts: ${one.attempt_count})`;
    return [`${one.created_at}  ${text}${reference ? `  [${reference}]` : ""}`];
  });
  const invalid = world.inbox.invalid.slice(-MOST_DETAILS);
  return [...lines, ...invalid.map((one) => `arrived, but not valid: ${one.problem} (answered ${one.status ?? "nothing"})`)];
}

/** Return the lines of the first items of a list that begins with the newest, oldest first, and say if these are not all. */
function newest<T>(items: readonly T[], count: number, lines: (item: T) => string[]): string[] {
  const note = items.length > count ? [`(only the newest ${count})`] : [];
  return [...note, ...items.slice(0, count).reverse().flatMap(lines)];
}

async function attempt(read: () => Promise<string[]>): Promise<string[]> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof PspError)) throw error;
    return [`(not available: ${error.message})`];
  }
}

function shown(lines: readonly string[]): string {
  const cut = (line: string): string =>
    line.length <= MOST_CHARACTERS ? line : `${line.slice(0, MOST_CHARACTERS)}… (${line.length} characters)`;
  return (lines.length ? lines : ["(none)"]).map(cut).join("\n");
}

function redacted(world: World, text: string): string {
  const secrets = [world.apiKey, world.webhookSecret, world.ipnSecret].filter(Boolean);
  return secrets.reduce((rest, secret) => rest.replaceAll(secret, "***"), text);
}
