/**
 * Tests with a merchant of their own, for Jest.
 *
 *     import { withPsp } from "psp-sandbox/jest";
 *
 *     const pspTest = withPsp(test);
 *
 *     pspTest("a returned payout gives the money back", async ({ psp }) => {
 *       const payout = await psp.pays("returned", { amount: "250.00" });
 *       await psp.advance("60s");
 *       await psp.webhooks.expect("payout.returned", { payout, times: 1 });
 *       expect((await psp.balance()).available).toBe("1000000.00");
 *     });
 */

import { relative } from "node:path";
import { closeWorld, openWorld, startSandbox } from "./testing/lifecycle.js";
import { START_MS } from "./testing/start.js";
import { UsageError, type WorldOptions } from "./testing/values.js";
import type { World } from "./testing/world.js";

/** A test that uses a merchant of its own. */
export type PspBody = (fixtures: { psp: World }) => Promise<void> | void;

/** What this module needs of a function that declares a test. */
type Declare = (name: string, body: () => Promise<void>, timeoutMs?: number) => void;

/** What this module needs of Jest's `test`. */
export interface JestTest extends Declare {
  only: Declare;
  skip: Declare;
}

/** Declares a test. */
export type PspDeclare = (name: string, body: PspBody, timeoutMs?: number) => void;

/** Declares tests whose bodies get `{ psp }`. */
export interface PspTest extends PspDeclare {
  only: PspDeclare;
  skip: PspDeclare;
}

interface JestGlobals {
  beforeAll?: (body: () => Promise<void>, timeoutMs: number) => void;
  expect?: { getState(): { currentTestName?: string; testPath?: string } };
}

/** Return a test function whose tests get `psp`: a merchant that only this test has. Throws a UsageError outside of Jest. */
export function withPsp(base: JestTest, options: WorldOptions = {}): PspTest {
  const { beforeAll } = globalThis as JestGlobals;
  if (!beforeAll) throw new UsageError("psp-sandbox/jest works in test files of Jest only.");
  beforeAll(startSandbox, START_MS);
  const declared = (declare: Declare): PspDeclare => {
    return (name, body, timeoutMs) => declare(name, () => runTest(name, body, options), timeoutMs);
  };
  return Object.assign(declared(base), { only: declared(base.only), skip: declared(base.skip) });
}

async function runTest(name: string, body: PspBody, options: WorldOptions): Promise<void> {
  const psp = await openWorld(fullName(name), options);
  try {
    await body({ psp });
  } catch (error) {
    await psp.comeToRest(String(error).split("\n")[0] ?? "");
    throw withReport(error, await closeWorld(psp, "failed"));
  }
  await psp.comeToRest(null);
  await closeWorld(psp, "passed");
}

function fullName(name: string): string {
  const { currentTestName, testPath } = (globalThis as JestGlobals).expect?.getState() ?? {};
  const file = testPath === undefined ? [] : [relative(process.cwd(), testPath)];
  return [...file, currentTestName ?? name].join(" > ");
}

/** Return the error of a test with the report behind its message. Jest shows the stack, which begins with the message. */
function withReport(error: unknown, report: string): unknown {
  if (!(error instanceof Error)) return new Error(`${String(error)}\n\n${report}`);
  const message = `${error.message}\n\n${report}`;
  const stack = error.stack ?? "";
  error.stack = stack.includes(error.message) ? stack.replace(error.message, () => message) : `${message}\n${stack}`;
  error.message = message;
  return error;
}

export { type Books, type BooksRow } from "./testing/explored.js";
export { type Fault, type FaultOptions } from "./testing/faults.js";
export { type Received, type Webhook } from "./testing/inbox.js";
export { type Safepay } from "./testing/safepay.js";
export { UsageError, type WorldOptions } from "./testing/values.js";
export { type Webhooks } from "./testing/webhooks.js";
export { type AppEnv, type Balance, type LiveApp, type World } from "./testing/world.js";
