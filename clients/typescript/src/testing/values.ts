import { createHash } from "node:crypto";
import type { Time } from "../values.js";

const UNIT_SECONDS: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, min: 60, h: 3600, d: 86_400 };
const PART = /(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*/g;

/** The package was used in a wrong way. The message says how to use it. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** How a test's merchant is made, and what the checks at its end accept. */
export interface WorldOptions {
  /** The opening balance, "1000000.00" by default. */
  balance?: string;
  /** With the same seed, random choices repeat. By default it depends on the test's name. */
  seed?: number;
  /** Whether the clock is frozen, or at which time. True by default. */
  frozen?: boolean | Time;
  /** The merchant's name, by default that of the test. */
  name?: string;
  /** Whether the test may end with webhook deliveries that have failed. */
  allowFailedDeliveries?: boolean;
  /** Whether the test may end with faults that never took effect. */
  allowUnhitFaults?: boolean;
}

const OPTIONS: Readonly<Record<keyof Required<WorldOptions>, readonly string[]>> = {
  balance: ["string"],
  seed: ["number"],
  frozen: ["boolean", "string", "object"],
  name: ["string"],
  allowFailedDeliveries: ["boolean"],
  allowUnhitFaults: ["boolean"],
};

/** Throw a UsageError if an option has a name or a type that is not one of WorldOptions. */
export function checkOptions(options: WorldOptions): void {
  for (const [name, value] of Object.entries(options)) {
    const types = OPTIONS[name as keyof WorldOptions];
    if (!types) throw new UsageError(`withPsp has no option ${name}. It takes ${Object.keys(OPTIONS).join(", ")}.`);
    if (value !== undefined && !types.includes(typeof value)) {
      throw new UsageError(`The option ${name} must be a ${types.join(" or ")}, not ${JSON.stringify(value)}.`);
    }
  }
  if (options.balance !== undefined) readAmount(options.balance, "balance");
}

/** Return the body of `POST /merchants` for a test. */
export function merchantBody(testName: string, options: WorldOptions): { name: string; [field: string]: unknown } {
  const { balance = "1000000.00", frozen = true, seed = seedOf(testName) } = options;
  const name = (options.name ?? testName.slice(-100)).slice(0, 100);
  const body = { name, opening_balance: balance, seed };
  return frozen === false ? body : { ...body, frozen_at: frozen === true ? new Date() : frozen };
}

/** Return a seed for a test. Each test has a different one, so that the ids of two tests differ. */
function seedOf(testName: string): number {
  return createHash("sha256").update(testName).digest().readUInt32BE();
}

/** Return an amount of money. Throws a UsageError for a number: it cannot hold most amounts exactly. */
export function readAmount(value: unknown, name: string): string {
  if (typeof value !== "string" || !/^\d+(\.\d{1,2})?$/.test(value)) {
    throw new UsageError(`${name} must be an amount as text, such as "100.00", not ${JSON.stringify(value)}.`);
  }
  return value;
}

/** Return a duration in seconds: from a number of seconds, or text such as "60s" or "1h 30m". Throws a UsageError. */
export function secondsOf(duration: number | string): number {
  if (typeof duration === "number" && Number.isFinite(duration) && duration >= 0) return duration;
  const text = String(duration).trim();
  const parts = [...text.matchAll(PART)];
  if (typeof duration === "number" || text === "" || parts.map((part) => part[0]).join("") !== text) {
    throw new UsageError(`${JSON.stringify(duration)} is not a duration. Write "60s", "5m", "2h", "1d" or "1h 30m", or seconds.`);
  }
  return parts.reduce((sum, part) => sum + Number(part[1]) * (UNIT_SECONDS[part[2] ?? ""] ?? 0), 0);
}

/** Return a count with its noun, such as "2 attempts". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
