/**
 * Tests with a merchant of their own, for Vitest.
 *
 *     import { expect, test as base } from "vitest";
 *     import { withPsp } from "psp-sandbox/vitest";
 *
 *     const test = withPsp(base);
 *
 *     test("a returned payout gives the money back", async ({ psp }) => {
 *       const payout = await psp.pays("returned", { amount: "250.00" });
 *       await psp.advance("60s");
 *       await psp.webhooks.expect("payout.returned", { payout, times: 1 });
 *       expect((await psp.balance()).available).toBe("1000000.00");
 *     });
 */

import { relative } from "node:path";
import { type TestAPI, afterEach, beforeAll } from "vitest";
import { REST_MS, isExplored } from "./testing/explored.js";
import { PspFailure, closeWorld, openWorld, startSandbox } from "./testing/lifecycle.js";
import { START_MS } from "./testing/start.js";
import type { WorldOptions } from "./testing/values.js";
import type { World } from "./testing/world.js";

/** Return a test function whose tests can use the fixture `psp`: a merchant that only this test has. */
export function withPsp<C extends object>(base: TestAPI<C>, options: WorldOptions = {}): TestAPI<C & { psp: World }> {
  beforeAll(startSandbox, START_MS);
  const worlds = new WeakMap<object, World>();
  // It runs before the fixtures that use the merchant stop the application.
  if (isExplored()) afterEach(async ({ task }) => worlds.get(task)?.comeToRest(failureOf(task)), REST_MS);
  return base.extend<{ psp: World }>({
    psp: async ({ task, onTestFinished }: ContextLike, use: (world: World) => Promise<void>) => {
      const world = await openWorld(nameOf(task), options);
      worlds.set(task, world);
      // It runs after the fixtures and hooks that use the merchant. Vitest would report an error of a fixture twice.
      onTestFinished(() => finish(task, world));
      await use(world);
    },
  } as never) as unknown as TestAPI<C & { psp: World }>;
}

async function finish(task: TaskLike, world: World): Promise<void> {
  const { state = "", pending = false } = task.result ?? {};
  const report = await closeWorld(world, state === "fail" ? "failed" : pending ? "skipped" : "passed");
  if (report) throw new PspFailure(report);
}

function failureOf(task: TaskLike): string | null {
  const { state, errors } = task.result ?? {};
  return state === "fail" ? (errors?.[0]?.message.split("\n")[0] ?? "It failed.") : null;
}

/** What this module needs of a test's context. */
interface ContextLike {
  readonly task: TaskLike;
  onTestFinished(hook: () => Promise<void>): void;
}

/** What this module needs to know of a test. */
interface TaskLike {
  readonly name: string;
  readonly file: { readonly filepath: string };
  readonly suite?: { readonly name: string; readonly suite?: TaskLike["suite"] } | undefined;
  readonly result?: {
    readonly state: string;
    readonly pending?: boolean | undefined;
    readonly errors?: readonly { readonly message: string }[] | undefined;
  } | undefined;
}

function nameOf(task: TaskLike): string {
  const names: string[] = [task.name];
  for (let suite = task.suite; suite; suite = suite.suite) names.unshift(suite.name);
  return [relative(process.cwd(), task.file.filepath), ...names].join(" > ");
}

export { type Books, type BooksRow } from "./testing/explored.js";
export { type Fault, type FaultOptions } from "./testing/faults.js";
export { type Received, type Webhook } from "./testing/inbox.js";
export { type Safepay } from "./testing/safepay.js";
export { UsageError, type WorldOptions } from "./testing/values.js";
export { type Webhooks } from "./testing/webhooks.js";
export { type AppEnv, type Balance, type LiveApp, type World } from "./testing/world.js";
