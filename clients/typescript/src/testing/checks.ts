import type { Delivery } from "../generated/models.js";
import { describeMatch } from "./faults.js";
import { counted } from "./values.js";
import type { World } from "./world.js";

const PAGE = 100;
const MOST_LISTED = 10;
const MOST_CHARACTERS = 200;
const UNSUCCESSFUL = ["FAILED", "PAUSED", "PENDING"] as const;

/** Return the failed checks at the end of a test, one readable paragraph each. */
export async function failedChecks(world: World): Promise<string[]> {
  if (!world.isFrozen) await world.drain(); // work that began just before the end is still in progress
  return [...(await audit(world)), ...(await deliveries(world)), ...invalidWebhooks(world), ...(await faults(world))];
}

async function audit(world: World): Promise<string[]> {
  const report = await world.client.audit();
  if (report.ok) return [];
  const lines = report.checks.filter((check) => !check.ok).map((check) => [check.name, ...check.problems.slice(0, 3)].join(": "));
  return [list("The audit of the ledger found errors.", lines)];
}

async function deliveries(world: World): Promise<string[]> {
  if (world.allowFailedDeliveries) return [];
  let found = await unsuccessful(world);
  if (found.some((one) => one.attempt_count === 0 && one.status === "PENDING")) {
    await world.drain(); // a first attempt is in progress
    found = await unsuccessful(world);
  }
  const failed = found.filter((one) => one.attempt_count > 0 || one.status !== "PENDING");
  if (failed.length === 0) return [];
  const lines = await Promise.all(failed.slice(0, MOST_LISTED).map((one) => describeDelivery(world, one)));
  if (failed.length > MOST_LISTED) lines.push(`and ${failed.length - MOST_LISTED} more`);
  const hint =
    whyUnreachable(world) ?? "If the test expects that, use withPsp(test, { allowFailedDeliveries: true }), or set it on psp.";
  const title = `${counted(failed.length, "webhook delivery", "webhook deliveries")} failed, and no later attempt succeeded.`;
  return [list(title, lines, hint)];
}

/** Return what to do if a sandbox that this run has not started cannot reach this process: nothing at all has arrived then. */
function whyUnreachable(world: World): string | undefined {
  if (world.sandbox.address.isOurs || world.inbox.received.length > 0) return undefined;
  return (
    `Nothing arrived. The test receives webhooks on 127.0.0.1, where the sandbox at ${world.url} must run, too; in a container, ` +
    "127.0.0.1 is the container. Run the container with --network=host, or leave PSP_URL out, so that the run starts a sandbox " +
    "of its own. If the test needs no webhooks, use withPsp(test, { allowFailedDeliveries: true })."
  );
}

async function unsuccessful(world: World): Promise<Delivery[]> {
  const list = world.client.deliveries.list.bind(world.client.deliveries);
  const found = await list({ limit: PAGE }).toArray(PAGE);
  // In nearly every test, one request is enough.
  if (found.length < PAGE) return found.filter((one) => one.status !== "SUCCEEDED");
  return (await Promise.all(UNSUCCESSFUL.map((status) => list({ limit: PAGE, status }).toArray(PAGE)))).flat();
}

/** Return one line about a delivery: its event, its status and its last attempt. */
export async function describeDelivery(world: World, delivery: Delivery): Promise<string> {
  const { attempts } = await world.client.deliveries.get(delivery.id);
  const line = `${delivery.event_type} is ${delivery.status} after ${counted(delivery.attempt_count, "attempt")}`;
  const last = attempts.at(-1);
  if (!last) return line;
  const answer = last.status ? `${last.status} ${short(last.response?.body ?? "")}`.trim() : String(last.error);
  const fault = last.fault_kind ? ` (fault ${last.fault_kind})` : "";
  return `${line}; the last one got ${answer}${fault} from ${last.url}`;
}

function invalidWebhooks(world: World): string[] {
  // Anybody may send requests to an application. It must refuse the invalid ones itself.
  if (world.hasApp || world.allowFailedDeliveries || world.faults.some((fault) => fault.isSpoiling)) return [];
  const invalid = world.inbox.invalid.map((one) => `${one.headers["webhook-id"] ?? "without an id"}: ${one.problem}`);
  if (invalid.length === 0) return [];
  return [list(`${counted(invalid.length, "webhook")} arrived that did not verify.`, invalid.slice(0, MOST_LISTED))];
}

async function faults(world: World): Promise<string[]> {
  for (const fault of world.faults) await fault.end();
  if (world.allowUnhitFaults) return [];
  const unhit: string[] = [];
  for (const fault of world.faults) {
    if (!fault.allowUnhit && (await fault.hits()) === 0) unhit.push(`${fault.kind} on ${fault.description}`);
  }
  for (const one of await world.client.faults.list({ limit: PAGE }).toArray(PAGE)) {
    if (one.hits === 0) unhit.push(`${one.kind} on ${describeMatch(one)}`);
  }
  if (unhit.length === 0) return [];
  const hint = "If that is intended, use psp.fault(..., { allowUnhit: true }) or withPsp(test, { allowUnhitFaults: true }).";
  return [list(`${counted(unhit.length, "fault")} never took effect, so the test has not tested what it was for.`, unhit, hint)];
}

function list(title: string, lines: readonly string[], hint?: string): string {
  return [title, ...lines.map((line) => `  - ${line}`), ...(hint ? [`  ${hint}`] : [])].join("\n");
}

function short(text: string): string {
  const line = text.split(/\s+/).join(" ");
  return line.length <= MOST_CHARACTERS ? line : `${line.slice(0, MOST_CHARACTERS)}…`;
}
