import { failedChecks } from "./checks.js";
import { evidence } from "./report.js";
import { Sandbox } from "./sandbox.js";
import type { WorldOptions } from "./values.js";
import { World } from "./world.js";

/** Start the sandbox before the first test, whose own time would not suffice. */
export async function startSandbox(): Promise<void> {
  await Sandbox.get();
}

/** A failed check at the end of a test, or the report of a failed test. It has no stack, which would show this package's code. */
export class PspFailure extends Error {
  override readonly name = "PspFailure";

  constructor(message: string) {
    super(message);
    this.stack = `${this.name}: ${message}`;
  }
}

/** Make the merchant of a test. */
export function openWorld(test: string, options: WorldOptions): Promise<World> {
  return World.open(test, options);
}

/** How a test has ended, as far as its own code goes. */
export type Outcome = "passed" | "failed" | "skipped";

/**
 * End a test: check its world if it has passed, and delete the merchant.
 *
 * Returns the report of a test that has failed, and otherwise "". Throws a PspFailure if a check fails.
 */
export async function closeWorld(world: World, outcome: Outcome): Promise<string> {
  try {
    if (world.isAtRest) return "";
    if (outcome === "failed") return await evidence(world);
    const failed = outcome === "passed" ? await checked(world) : [];
    if (failed.length) throw new PspFailure([...failed, await evidence(world)].join("\n"));
    return "";
  } finally {
    await world.close();
  }
}

async function checked(world: World): Promise<string[]> {
  try {
    return await failedChecks(world);
  } catch (error) {
    return [`The checks at the end of the test could not be made: ${String(error)}`];
  }
}
